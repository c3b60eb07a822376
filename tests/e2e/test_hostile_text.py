"""Strangers' text in the page's own templates, in a real browser: it is shown as it is, and nothing of it runs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect

from engine.pictures.made import Made, Provenance
from engine.recipes.catalog import Catalog
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.events import Failed, Finished, Notice
from engine.running.job import Job
from tests.e2e.conftest import DONE, drop, new_context, open_page
from tests.ui.hostile import MARKUP, TEMPLATES
from ui.sheet.live import LiveSheet
from ui.tabs import stage
from ui.tabs.controls import hint
from ui.theme import page_assets

pytestmark = pytest.mark.browser

IMAGE = Image.new("RGB", (16, 16), (200, 30, 60))

RECORD_SCRIPTS = """
window.ran = [];
for (const name of ['alert', 'confirm', 'prompt']) window[name] = word => { window.ran.push(`${name} ${word}`); };
null;
"""

SHOWN = """
place => {
  const all = selector => [...place.querySelectorAll(selector)];
  return {
    refusal: all('.refusal').map(e => e.textContent),
    message: all('.frame-message:not([hidden])').map(e => e.textContent),
    notice: all('.notices').map(e => e.textContent).filter(Boolean),
    'notice tooltip': all('.notices').map(e => e.title).filter(Boolean),
    picture: all('.frame img[src]').map(e => e.alt),
    'thumbnail tooltip': all('.thumb').map(e => e.title),
    thumbnail: all('.thumb img').map(e => e.alt),
    hint: all('.hint').map(e => e.textContent),
    chip: all('.chip').map(e => e.textContent),
  };
}
"""


def expected(text: str) -> dict[str, list[str]]:
    return {
        "refusal": [text], "message": [text], "notice": [text], "notice tooltip": [text], "picture": [f"finished: {text}"],
        "thumbnail tooltip": [f"{text}, seed 1"], "thumbnail": [f"{text}, seed 1"], "hint": [text], "chip": [text],
    }  # fmt: skip


def build_showcase(catalog: Catalog, texts: list[str]) -> gr.Blocks:
    """A page that puts each text wherever a stranger's text can get to."""
    jobs: dict[str, Job] = {}
    live = LiveSheet(SimpleNamespace(job_of_key=jobs.get), SimpleNamespace())

    def ask_stage(asked: Any) -> Any:
        return live.ask(asked)

    with gr.Blocks(analytics_enabled=False) as blocks:
        for i, text in enumerate(texts):
            picture = made(text)
            events = [Notice(text), Finished(0, picture), Failed(1, text)]
            job = Job(Plan((Cell(0, picture.recipe), Cell(1, picture.recipe))), id="job")
            for event in events:
                job.publish(event)
            jobs[job.key] = job
            with gr.Column(elem_id=f"text-{i}"):
                stage.stage_component(stage.refused(text), ask_stage)
                stage.stage_component(stage.followed(job, over=True), ask_stage)
                stage.stage_component(stage.welcome(catalog.default.model_copy(update={"examples": (text,)})), ask_stage)
                stage.strip_component().value = stage.strip_value([("job:0", picture)])
                hint("hint", (text, "warning"))
    return blocks


def made(prompt: str) -> Made:
    provenance = Provenance("revision", "cpu", "float32", 1, False, 4, 4, 1.25)
    recipe = Recipe(prompt=prompt, seed=1, steps=4, width=64, height=64)
    return Made(recipe, provenance, hashlib.sha256(IMAGE.tobytes()).hexdigest(), pixels=IMAGE)


@dataclass(frozen=True)
class Showcase:
    """What a browser showed of each text, the scripts that ran, and the requests that went elsewhere."""

    shown: dict[str, dict[str, list[str]]]
    ran: list[str]
    foreign: list[str]


def look(browser: Any, blocks: gr.Blocks, texts: list[str]) -> Showcase:
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, server_name="127.0.0.1", **page_assets())
    context = new_context(browser)
    try:
        page, foreign = context.new_page(), []
        page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else foreign.append(request.url))
        page.add_init_script(RECORD_SCRIPTS)
        page.goto(address)
        for part in (".refusal", ".frame-message:not([hidden])", ".frame img[src]", ".chip", ".thumb img", ".hint"):
            expect(page.locator(part)).to_have_count(len(texts))
        page.wait_for_timeout(500)  # for whatever should not run, and does
        shown = {text: page.locator(f"#text-{i}").evaluate(SHOWN) for i, text in enumerate(texts)}
        return Showcase(shown, page.evaluate("window.ran"), foreign)
    finally:
        context.close()
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def markup(browser: Any, catalog: Catalog) -> Showcase:
    return look(browser, build_showcase(catalog, MARKUP), MARKUP)


@pytest.fixture(scope="module")
def templates(browser: Any, catalog: Catalog) -> Showcase:
    return look(browser, build_showcase(catalog, TEMPLATES), TEMPLATES)


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_shown_as_it_is(markup: Showcase, text: str) -> None:
    assert markup.shown[text] == expected(text)


def test_markup_runs_nothing_and_asks_nobody(markup: Showcase) -> None:
    assert markup.ran == []
    assert markup.foreign == []


@pytest.mark.parametrize("text", TEMPLATES)
def test_what_looks_like_a_template_is_shown_as_it_is(templates: Showcase, text: str) -> None:
    assert templates.shown[text] == expected(text)


def test_what_looks_like_a_template_runs_nothing(templates: Showcase) -> None:
    assert templates.ran == []


def test_a_hostile_prompt_on_the_real_page(page: Any) -> None:
    prompt = "</p><img src=x onerror=alert(1)><b>an owl</b> {{value.state}} " + "'\"> and a pear " * 12
    page.evaluate(RECORD_SCRIPTS)
    page.fill("#prompt textarea", prompt)
    page.wait_for_function("document.querySelector('#token-hint').innerText.includes(`'\">`)")
    page.fill("#steps input[type=number]", "2")
    page.press("#steps input[type=number]", "Tab")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .frame.finished img", timeout=DONE)
    assert prompt.strip() in page.locator("#stage .frame img").get_attribute("alt")
    assert page.locator(".thumb").first.get_attribute("title").startswith(prompt)
    assert "these words were cut" in page.locator("#stage .notices").get_attribute("title")
    assert "'\"> and a pear" in page.locator("#stage .notices").text_content()
    assert page.input_value("#settings-text textarea").startswith(prompt.strip())
    assert page.evaluate("window.ran") == []


@pytest.fixture
def bare_page(browser: Any, address: str) -> Iterator[Any]:
    """The page, without the `page` fixture's own checks."""
    context = new_context(browser)
    opened = context.new_page()
    opened.add_init_script(RECORD_SCRIPTS)
    open_page(opened, address)
    yield opened
    context.close()


@pytest.mark.parametrize(
    "model", ["<b>bold</b> model", '<img src=x onerror=alert("1")>', "<a href=//evil.example>model</a>", "${alert(1)} \\ {{x}}"]
)
def test_a_strangers_picture_says_nothing_but_text(bare_page: Any, model: str) -> None:
    drop(bare_page, "picture.png", a1111_picture(f"an owl\nSteps: 4, Seed: 1, Size: 64x64, Model: {json.dumps(model)}"))
    notes = bare_page.locator("#loaded .loaded")
    notes.wait_for(timeout=30_000)
    assert f"“{model}”" in notes.inner_text()
    assert bare_page.evaluate("window.ran") == []


def a1111_picture(infotext: str) -> bytes:
    text, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("parameters", infotext)
    IMAGE.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()
