"""Jobs on the fake device: what tests ask for, wait for and count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.recipes.plan import Cell, Plan, plan_images
from engine.running.engine import Engine
from engine.running.events import End, Event, Notice, Preview
from engine.running.job import Job
from engine.running.messages import Ask
from engine.running.questions import Looks
from tests.fake_device import SAFETY, FakeDevice, fake_engine


@contextmanager
def running(folder: Path, device: FakeDevice, **options: Any) -> Iterator[Engine]:
    with fake_engine(folder, device=device, **options) as engine:
        try:
            yield engine
        finally:
            device.let_go()


def plan_of(engine: Engine, count: int = 1, model: str = "starter", **changes: Any) -> Plan:
    recipe = engine.catalog.find(model).recipe(**{"prompt": "an owl", "seed": 100, "steps": 4, **changes})
    return plan_images(recipe, engine.catalog, engine.limits, count=count)


def plan_of_models(engine: Engine, *models: str, **changes: Any) -> Plan:
    """One cell a model name, in this order."""
    settings = {"width": 64, "height": 64, **changes}
    return Plan(tuple(Cell(i, plan_of(engine, model=model, seed=i, **settings).cells[0].recipe) for i, model in enumerate(models)))


def wait_for(job: Job, reached: Callable[[Event], bool]) -> Event:
    """The first event that `reached` is true of."""
    watcher = job.watch()
    while True:
        events = watcher.take(timeout=SAFETY)
        assert events, "nothing came"
        for event in events:
            if reached(event):
                return event


@dataclass(frozen=True)
class Put:
    """A question to a worker in another thread: what a test has to ask its device."""

    what: Callable[[FakeDevice], Any]

    def answer(self, device: Any, looks: Looks) -> Any:
        return self.what(device)


def put(engine: Engine, what: Callable[[FakeDevice], Any]) -> Future[Any]:
    """The answer of `what`, asked of the device between two ticks."""
    ticket, answer = engine._expect()
    engine._send(ticket, Ask(ticket, Put(what)))
    return answer


def at_step(step: int, cell: int = 0) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Preview) and event.cell == cell and event.step >= step


def ends(job: Job, seconds: float = SAFETY) -> dict[int, Event]:
    """The end of each cell; what has come after `seconds` if that is less than all."""
    watcher = job.watch()
    found: dict[int, Event] = {}
    while not watcher.ended:
        events = watcher.take(timeout=seconds)
        if not events and not watcher.ended:
            break
        found.update({event.cell: event for event in events if isinstance(event, End)})
    return found


def kinds(job: Job) -> list[str]:
    return [type(end).__name__ for _, end in sorted(ends(job).items())]


def notices(job: Job) -> list[str]:
    return [event.text for event in job.events() if isinstance(event, Notice) and event.progress is None]


def files(engine: Engine) -> list[Path]:
    return [file for file in engine.outputs.rglob("*") if file.is_file()]
