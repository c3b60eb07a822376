"""A sheet saved as one HTML file, opened from the disk in a real browser: it shows everything, asks nobody, and runs no stranger's text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from engine.errors import OutOfMemory
from engine.recipes.plan import AxisLine, Grid, plan_grid
from engine.recipes.recipe import make_recipe
from engine.running.engine import Engine
from tests.e2e.conftest import new_context
from tests.engine.recipes.offer import OFFER
from tests.fake_device import FakeDevice
from tests.jobs import running
from ui.sheet.takeaway import Takeaway

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>window.hacked=1</script>${window.hacked=1}<img src=x onerror=window.hacked=1><!--"
PIXEL = """cell => {
  const canvas = document.querySelector(`[data-cell="${cell}"] canvas`);
  return [...canvas.getContext('2d').getImageData(canvas.width - 1, 0, 1, 1).data];
}"""
"""The colour of a cell's upper right corner, where FakeDevice paints the recipe's own colour."""


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def engine(tmp_path: Path, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with running(tmp_path, device) as engine:
        yield engine


def saved_file(engine: Engine, x: str = "seed: 1, 2, 3", y: str = "cfg: 4, 8", z: str = "", **recipe: object) -> Path:
    """The page of a finished grid whose axes are written as "seed: 1, 2"."""
    parts = {at: text.partition(": ") for at, text in {"x": x, "y": y, "z": z}.items() if text}
    lines = {at: AxisLine(axis=axis, values=values) for at, (axis, _, values) in parts.items()}
    given = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 4, **recipe}
    job = engine.submit(plan_grid(Grid(recipe=make_recipe(**given), **lines), OFFER))
    job.wait()
    return Takeaway(engine).write(job, "html", 0)


@pytest.fixture
def saved(browser, engine: Engine) -> Iterator[Callable[..., Page]]:
    """Opens the saved page of a grid; it must not have logged an error or asked for anything when the test ends."""
    contexts, asked, errors = [], [], []

    def open_saved(*axes: str, **recipe: object) -> Page:
        address = saved_file(engine, *axes, **recipe).as_uri()
        contexts.append(new_context(browser, 1280, 900))
        page = contexts[-1].new_page()
        page.on("request", lambda request: None if request.url.startswith((address, "data:")) else asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".cell[data-state]:not([data-state=waiting])")
        return page

    yield open_saved
    for context in contexts:
        context.close()
    assert asked == []
    assert errors == []


def scrub(page: Page, to: int) -> None:
    page.locator(".scrubber").fill(str(to))
    page.wait_for_function("at => document.querySelector('.sheet').dataset.at === String(at)", arg=to)


def test_all_cells_are_shown_with_their_labels(saved):
    page = saved()
    assert page.locator(".label.column").all_inner_texts() == ["1", "2", "3"]
    assert page.locator(".label.row").all_inner_texts() == ["4", "8"]
    assert page.locator(".sheet-heading").inner_text() == "a red cat"
    assert page.locator(".sheet-status").inner_text() == "6 finished of 6 pictures"
    page.wait_for_function("[...document.querySelectorAll('.cell img')].filter(one => one.naturalWidth === 64).length === 6")
    assert "null" not in page.locator(".sheet").inner_text()


def test_the_scrubber_takes_every_cell_back(saved):
    page = saved()
    seen = []
    for step in (1, 3):
        scrub(page, step)
        assert page.locator(".cell.scrubbed").count() == 6
        seen.append([page.evaluate(PIXEL, cell) for cell in range(6)])
    assert all(one != other for one, other in zip(*seen, strict=True))
    scrub(page, 4)
    assert page.locator(".cell.scrubbed").count() == 0
    assert page.locator(".cell img:visible").count() == 6


def test_a_cell_can_be_looked_at_and_gives_its_picture_away(saved):
    page = saved()
    page.locator('[data-cell="4"]').click()
    page.wait_for_selector(".loupe[open]")
    assert page.locator(".loupe h2").inner_text() == "Seed 2, CFG scale 8"
    assert "Seed: 2" in page.locator(".loupe-settings").inner_text()
    assert page.locator(".neighbours li").count() == 3
    with page.expect_download() as download:
        page.get_by_text("Download PNG").click()
    assert download.value.suggested_filename.endswith("-04-seed-2.png")
    assert not page.locator('[data-act="use"], [data-act="zoom"], [data-take]').count()


def test_two_cells_can_be_compared(saved):
    page = saved()
    page.locator('[data-cell="0"]').click()
    page.locator('[data-act="with"]').click()
    page.locator('[data-cell="4"]').click()
    page.wait_for_selector(".versus")
    assert page.locator(".changes tbody tr").all_inner_texts() == ["Seed\t1\t2", "CFG scale\t4\t8"]
    assert page.locator(".ways button").all_inner_texts() == ["Slider", "Side by side", "Flicker"]
    page.locator('[data-way="sides"]').click()
    page.wait_for_function("[...document.querySelectorAll('.versus img')].filter(one => one.naturalWidth === 64).length === 2")


def test_pages_can_be_turned(saved):
    page = saved("seed: 1, 2", "", "cfg: 4, 8")
    assert page.locator(".sheet-pages button").all_inner_texts() == ["4", "8"]
    page.locator(".sheet-pages button", has_text="8").click()
    page.wait_for_selector('[data-cell="3"][data-state=finished]')
    assert page.locator(".cell").count() == 2
    scrub(page, 2)
    assert page.locator(".cell.scrubbed").count() == 2


def test_large_pictures_are_given_away_as_what_they_are(saved):
    page = saved("seed: 1", "", width=512, height=256)
    page.locator('[data-cell="0"]').click()
    with page.expect_download() as download:
        page.get_by_text("Download JPEG").click()
    assert download.value.suggested_filename.endswith(".jpg")


def test_a_cell_that_failed_says_why(saved, device):
    device.step_errors[2] = (2, OutOfMemory(f"There is no room. {HOSTILE}"))
    page = saved()
    assert page.locator('[data-cell="1"] .cell-message').inner_text().startswith("There is no room. </script>")
    assert page.evaluate("window.hacked") is None


def test_no_strangers_text_runs(saved):
    page = saved(f'prompt: "{HOSTILE}", a cat', prompt=HOSTILE, negative_prompt=HOSTILE)
    assert page.locator(".label.column").all_inner_texts() == [HOSTILE, "a cat"]
    page.locator('[data-cell="0"]').click()
    assert HOSTILE in page.locator(".loupe-settings").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2


def test_no_script_but_the_pages_own_can_run(browser, engine):
    page = browser.new_page()
    page.goto(saved_file(engine).as_uri())
    page.wait_for_selector(".cell")
    blocked = page.evaluate("""() => new Promise(resolve => {
      document.addEventListener('securitypolicyviolation', event => resolve(event.violatedDirective), {once: true});
      const script = document.createElement('script');
      script.textContent = 'window.hacked = 1';
      document.body.append(script);
    })""")
    assert blocked.startswith("script-src")
    assert page.evaluate("window.hacked") is None
    page.close()
