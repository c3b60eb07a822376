"""python -m docs.screenshots: makes the README's pictures anew, from the real page with the embedded model."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import answers, choose_axis, free_port, open_page, set_number, wait_until
from tests.setup_browser import find_browser

PICTURES = Path(__file__).resolve().parent / "pictures"
PROMPTS = (
    "a panda, outline style", "a cactus on a pink background", "a purple heart on a green background", "hamburger on a yellow background",
    "a red car on a blue background",
)  # fmt: skip
WIDTHS = {"": (1440, 900), "-phone": (390, 844)}


def main() -> int:
    """Writes running and finished pages, dark and light, wide and narrow, into docs/pictures."""
    executable = find_browser()
    if executable is None:
        print("No Chromium or Chrome is installed here.", file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as data_dir:
        port = free_port()
        server = subprocess.Popen([sys.executable, "app.py", "--port", str(port), "--data-dir", data_dir], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the page did not open")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=str(executable), args=["--no-sandbox", "--disable-gpu"])
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                open_page(page, f"http://127.0.0.1:{port}/")
                take_all(page)
                browser.close()
        finally:
            server.terminate()
            server.wait()
    return 0


def take_all(page: Page) -> None:
    """One session: some pictures for the strip, then four images caught on their way, then the finished page."""
    take(page, "empty")
    page.check("#seed-mode input[value=Keep]")
    for prompt in PROMPTS:
        draw(page, prompt)
    set_number(page, "count", 4)
    set_number(page, "steps", 60)
    set_number(page, "cfg", 3)
    page.fill("#prompt textarea", "a cat and a red heart")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .frame.developing.drawn", timeout=60_000)
    page.screenshot(path=PICTURES / "generate-running.png")
    page.wait_for_selector(".stage.done", timeout=120_000)
    set_number(page, "count", 1)
    set_number(page, "steps", 20)
    set_number(page, "cfg", 4)
    draw(page, PROMPTS[-1])
    for theme in ("light", "dark"):
        page.click(f"[data-theme-choice={theme}]")
        take(page, f"generate-{theme}")
    take_grids(page)


def take_grids(page: Page) -> None:
    """A grid caught on its way, the finished sheet, a step of all its cells, two cells against each other."""
    page.click("#compare-tab-button")
    page.wait_for_selector("#axis-x-values", state="visible")
    page.fill("#prompt textarea", "a rocket, fluent style")
    set_number(page, "steps", 60)
    choose_axis(page, "x", "CFG scale", "1-9 (+2)")
    choose_axis(page, "y", "Prompt S/R", "rocket, sunflower, cactus, panda")
    page.check("#anew input")
    for theme in ("light", "dark"):
        page.click(f"[data-theme-choice={theme}]")
        page.click("#compare")
        page.wait_for_selector("#sheet .sheet.running .cell.drawn", timeout=60_000)
        page.wait_for_timeout(4000)
        take(page, f"compare-running-{theme}", "#sheet")
        page.wait_for_selector("#sheet .sheet:not(.running) .cell[data-state=finished]", timeout=120_000)
        take(page, f"compare-{theme}", "#sheet")
    page.locator("#sheet .scrubber").fill("8")
    page.wait_for_selector("#sheet .sheet[data-at='8']")
    take(page, "compare-scrubbed", "#sheet")
    page.click("#sheet .cell >> nth=1")
    page.click(".loupe [data-act=with]")
    page.click("#sheet .cell >> nth=4")
    page.wait_for_selector(".versus[data-way=slider]")
    take(page, "compare-versus")


def take(page: Page, name: str, phone_shows: str = "body") -> None:
    """Pictures of the page, wide from its top, narrow from the element that matters there."""
    for suffix, (width, height) in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        top = phone_shows if suffix else "body"
        page.evaluate(f"document.activeElement.blur(); document.querySelector('{top}').scrollIntoView()")
        page.wait_for_timeout(600)
        page.screenshot(path=PICTURES / f"{name}{suffix}.png")
    page.set_viewport_size({"width": 1440, "height": 900})


def draw(page: Page, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".stage.running", timeout=60_000)
    page.wait_for_selector(".stage.done", timeout=120_000)


if __name__ == "__main__":
    sys.exit(main())
