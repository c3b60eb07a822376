"""The page, built once, over each test's own engine; and its visitors, who press what is on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from engine.local import PRESETS
from engine.pictures.made import Made
from engine.running.engine import Engine
from tests.fake_device import FakeDevice, fake_engine
from tests.gradio_loop import in_a_loop
from tests.jobs import running
from ui.page import build_page
from ui.sheet.live import LiveSheet
from ui.sheet.takeaway import Takeaway
from ui.tabs.bench import Bench
from ui.tabs.compare import CompareTab
from ui.tabs.controls import KEEP
from ui.tabs.generate import GenerateTab

ANN, BOB = "a" * 32, "b" * 32
ASKED = {"prompt": "an owl", "seed_mode": KEEP, "seed": 100, "steps": 4}
Update = dict[Any, Any]


@pytest.fixture(autouse=True, scope="package")
def gradio_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """gradio copies what can be downloaded to a place of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def engine(tmp_path: Path, device: FakeDevice) -> Iterator[Engine]:
    with running(tmp_path, device) as engine:
        yield engine


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory, gradio_files: None) -> Iterator[gr.Blocks]:
    """The page, built once: it holds nothing of a visitor."""
    with fake_engine(tmp_path_factory.mktemp("built")) as engine:
        yield in_a_loop(lambda: build_page(engine, PRESETS))


@pytest.fixture(scope="module")  # no longer than needed: gradio leaves a socket open for each port it finds taken
def served(tmp_path_factory: pytest.TempPathFactory, gradio_files: None) -> Iterator[tuple[str, gr.Blocks, Engine]]:
    """(address, page, engine) of a page that is being served."""
    device = FakeDevice()
    with running(tmp_path_factory.mktemp("served"), device) as engine:
        page = in_a_loop(lambda: build_page(engine, PRESETS))
        launch = {"prevent_thread_lock": True, "quiet": True, "ssr_mode": False, "server_name": "127.0.0.1"}
        in_a_loop(lambda: page.queue().launch(allowed_paths=[str(engine.outputs)], **launch))
        yield page.local_url, page, engine
        page.close(verbose=False)


@pytest.fixture
def bench(built: gr.Blocks, engine: Engine) -> Bench:
    """What the page is made of, over this test's engine."""
    bench = next(owner for wired in built.fns.values() if isinstance(owner := getattr(wired.fn, "__self__", None), Bench))
    for part in (bench, bench.generate, bench.compare):
        part.engine = engine
    bench.generate.live = bench.compare.live = LiveSheet(engine, Takeaway(engine))
    return bench


@pytest.fixture
def tab(bench: Bench) -> GenerateTab:
    return bench.generate


@pytest.fixture
def grids(bench: Bench) -> CompareTab:
    return bench.compare


@pytest.fixture
def press(built: gr.Blocks, tab: GenerateTab) -> Callable[..., Iterator[Update]]:
    """Presses Generate as the page does: with what it has wired to the button."""
    inputs = next(wired.inputs for wired in built.fns.values() if wired.fn == tab._generate)

    def pressed(visitor: str = ANN, **changed: Any) -> Iterator[Update]:
        given = {tab.visitor: visitor}
        given |= {component: {**ASKED, **changed}.get(name, component.value) for name, component in tab.controls.fields.items()}
        values = [given[component] for component in inputs]
        first = tab._generate(*("" if value is None else value for value in values))
        yield first
        yield from followed(tab, first)

    return pressed


def followed(tab: GenerateTab, first: Update) -> Iterator[Update]:
    """What the stage's script shows and brings about once it has been given a run to follow."""
    value = first[tab.stage]
    key, seen, pictures = value["key"], -1, 0
    cells: dict[int, dict[str, Any]] = {}
    while key:
        answer = tab.live.ask({"question": "frame", "key": key, "seen": seen, "page": 0, "turned": False, "large": True})
        if "version" in answer:
            seen = answer["version"]
            for state in answer["cells"]:
                cells[state["index"]] = {"src": "", **cells.get(state["index"], {}), **state}
            for index in answer["sprite"]["cells"] if answer["sprite"] else []:
                cells[index]["src"] = answer["sprite"]["src"]
            shown = {name: answer[name] for name in ("status", "percent", "notices")}
            shown["frames"] = [cell for _, cell in sorted(cells.items())]
            value = {**value, **shown, "state": "done" if answer["done"] else "running"}
            yield {tab.stage: value}
        made = sum("/" in cell["src"] and cell["state"] in {"finished", "stopped"} for cell in cells.values())
        if "error" in answer or answer["done"] or made > pictures:
            told = tab._act(first[tab.visitor], gr.EventData(None, {"key": key}))
            value, pictures = {**value, **told.get(tab.stage, {})}, made
            yield {**told, tab.stage: value}
        if "error" in answer or answer["done"]:
            return
        time.sleep(0.001)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What pops up on the page."""
    messages: list[tuple[str, str]] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: messages.append(("warning", message)))
    monkeypatch.setattr(gr, "Info", lambda message, **_: messages.append(("info", message)))
    return messages


def merged(updates: list[Update]) -> Update:
    """What the page shows after all of them."""
    return {component: value for update in updates for component, value in update.items()}


def pictures(engine: Engine, visitor: str) -> list[tuple[str, Made]]:
    """A visitor's pictures as (pick, picture), newest first."""
    return [(f"{job.id}:{cell}", made) for job in engine.jobs(visitor) for cell, made in job.made().items()][::-1]


class Visit:
    """The page in one visitor's browser: what its widgets hold, and what comes of an event by what is wired to it."""

    def __init__(self, blocks: gr.Blocks, bench: Bench, visitor: str):
        self.blocks, self.bench = blocks, bench
        components = [block for block in blocks.blocks.values() if isinstance(block, gr.components.Component)]
        self.held: dict[Any, Any] = {one: "" if isinstance(one, gr.Textbox) and one.value is None else one.value for one in components}
        self.properties: dict[Any, dict[str, Any]] = {}
        self.held[bench.visitor] = visitor
        self.set(**ASKED)

    def set(self, **values: Any) -> None:
        """Writes into the recipe's widgets by name, and into a grid's: x, y and z take (axis, values)."""
        pickers = self.bench.compare.pickers
        for name, value in values.items():
            if name in pickers.axes:
                self.held[pickers.axes[name]], self.held[pickers.values[name]] = value
            else:
                self.held[self.bench.controls.fields[name]] = value

    def line(self, name: str) -> tuple[str, str]:
        """An axis and its values, as they stand in the widgets."""
        pickers = self.bench.compare.pickers
        return self.held[pickers.axes[name]], self.held[pickers.values[name]]

    def fire(self, source: Any, event: str, data: Mapping[str, Any] | None = None) -> Update:
        """Lets an event happen; all that its handlers changed."""
        wired = [wired for wired in self.blocks.fns.values() if (source._id, event) in wired.targets]
        assert wired, f"nothing is wired to {event}"
        return {component: value for one in wired for component, value in self._call(one, data).items()}

    def open_page(self) -> None:
        """What happens when the page is opened."""
        for wired in self.blocks.fns.values():
            if (self.blocks._id, "load") in wired.targets:
                self._call(wired, None)

    def fill(self, component: Any, value: Any) -> Update:
        """Writes into a widget as a person does."""
        self.held[component] = value
        return self.fire(component, "change")

    def compare(self, **values: Any) -> Update:
        """Presses Compare, with some widgets changed before."""
        self.set(**values)
        return self.fire(self.bench.compare.compare, "click")

    def act(self, **data: Any) -> Update:
        """What the contact sheet's script tells the page."""
        return self.fire(self.bench.compare.sheet, "act", data)

    @property
    def cost(self) -> tuple[str, str]:
        """The line below the axes, and its kind."""
        value = self.held[self.bench.compare.cost]
        return value["text"], value["kind"]

    def _call(self, wired: Any, data: Mapping[str, Any] | None) -> Update:
        if wired.fn is None:  # a script of the browser's
            return {}
        event = [] if data is None else [gr.EventData(None, data)]
        answer = wired.fn(*(self.held[component] for component in wired.inputs), *event)
        updates = answer if isinstance(answer, dict) and answer.keys() <= set(wired.outputs) else self._in_order(wired, answer)
        for component, value in updates.items():
            if isinstance(value, gr.blocks.Block):
                self.properties[component] = value.constructor_args
                value = value.constructor_args.get("value", self.held.get(component))
            if value != gr.skip():
                self.held[component] = value
        return updates

    def _in_order(self, wired: Any, answer: Any) -> Update:
        """An answer that names no widgets: one value for each, in their order."""
        assert not (isinstance(answer, dict) and any(isinstance(key, gr.blocks.Block) for key in answer)), "a widget that is not wired"
        values = [] if not wired.outputs else [answer] if len(wired.outputs) == 1 else answer
        return dict(zip(wired.outputs, values, strict=True))


@pytest.fixture
def ann(built: gr.Blocks, bench: Bench) -> Visit:
    return Visit(built, bench, ANN)


@pytest.fixture
def bob(built: gr.Blocks, bench: Bench) -> Visit:
    return Visit(built, bench, BOB)
