"""A person at the Compare tab."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

import pytest

from engine.pictures import metadata
from tests.e2e.conftest import CUT_THE_LINE, DONE, choose_axis, drop, open_compare, prompt, see, set_number, text_of, wait_until_ready

pytestmark = pytest.mark.browser

WATCH_CELLS = """
() => {
  window.changes = {};  // by cell: the different pictures seen while it was developing
  window.first_final = null;
  const look = () => {
    document.querySelectorAll('#sheet .cell').forEach(cell => {
      const canvas = cell.querySelector('canvas');
      if (cell.dataset.state === 'finished' && window.first_final === null)
        window.first_final = Object.values(window.changes).filter(seen => seen.size > 1).length;
      if (cell.dataset.state !== 'developing' || !cell.classList.contains('drawn')) return;
      (window.changes[cell.dataset.cell] ||= new Set()).add(canvas.toDataURL());
    });
    window.looking = requestAnimationFrame(look);
  };
  look();
}
"""


def wait_for_cells(page, state: str, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('#sheet .cell[data-state={state}]').length === {count}", timeout=DONE)


def wait_for_end(page) -> None:
    page.wait_for_selector("#sheet .sheet:not(.running) .cell", timeout=DONE)


def cells_shown(page) -> dict[str, str]:
    """What each cell of the sheet now shows: its picture's address, or its canvas' content while that is on top."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('#sheet .cell')].map(cell => {
            const image = cell.querySelector('img'), canvas = cell.querySelector('canvas');
            return [cell.dataset.cell, image.hidden ? canvas.toDataURL() : image.src];
        }))"""
    )


def scrub_to(page, step: int) -> None:
    page.locator("#sheet .scrubber").fill(str(step))
    page.wait_for_selector(f"#sheet .sheet[data-at='{step}']")


def saved(page, kind: str, tmp_path: Path) -> Path:
    """The file that a button of the sheet hands out."""
    with page.expect_download(timeout=DONE) as download:
        page.click(f"#sheet [data-take={kind}]")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    return file


def begin_three_by_three(page, text: str, steps: int = 20) -> None:
    """Seeds 11 to 13 by CFG 2, 5, 9."""
    prompt(page, text)
    set_number(page, "steps", steps)
    open_compare(page)
    choose_axis(page, "x", "CFG scale", "2, 5, 9")
    choose_axis(page, "y", "Seed", "11-13")
    page.wait_for_function("document.querySelector('#grid-cost').innerText.includes('3 x 3 = 9 cells')")
    page.click("#compare")
    page.wait_for_function("document.querySelectorAll('#sheet .cell').length === 9", timeout=DONE)


def test_a_grid_develops_live_and_comes_back_from_its_sheet(page, tmp_path):
    page.evaluate(WATCH_CELLS)
    begin_three_by_three(page, "an owl, noto style", steps=40)
    page.wait_for_selector("#sheet .cell.drawn", timeout=DONE)
    # Not before the step that is looked back at below: its tile would be another, and a JPEG's colours run over into those beside it.
    page.wait_for_function("parseFloat(document.querySelector('#sheet .cell[data-cell=\"8\"] .cell-bar').style.width) >= 100 * 3 / 40")
    page.hover("#sheet .cell >> nth=8")
    page.click("#sheet .cell >> nth=8 >> .stop-one")
    wait_for_cells(page, "finished", 8)
    wait_for_cells(page, "stopped", 1)
    assert page.evaluate("window.first_final") >= 2, "at least two cells must have changed before any was final"
    assert text_of(page, "#sheet .sheet-status") == "8 finished, 1 stopped of 9 pictures"
    assert re.fullmatch(r"\d+/40", text_of(page, "#sheet .cell >> nth=8")), "a stopped cell says how far it came"

    page.click("#sheet .cell >> nth=4")
    page.wait_for_selector(".loupe h2")
    assert text_of(page, ".loupe h2") == "CFG scale 5, Seed 12"
    assert "Seed: 12" in text_of(page, ".loupe-settings")
    assert "left\nCFG scale 2" in text_of(page, ".neighbours")
    page.wait_for_function("document.querySelector('.loupe-picture img').naturalWidth === 64")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.loupe h2').innerText === 'CFG scale 9, Seed 12'")
    page.keyboard.press("Escape")

    final = cells_shown(page)
    scrub_to(page, 3)
    early = cells_shown(page)
    scrub_to(page, 30)
    late = cells_shown(page)
    assert [cell for cell in final if len({final[cell], early[cell], late[cell]}) < (2 if cell == "8" else 3)] == []

    sheet = saved(page, "png", tmp_path)
    grid = metadata.read_picture(sheet).grid
    assert (grid.x.values, grid.y.values, grid.recipe.prompt) == ("2, 5, 9", "11, 12, 13", "an owl, noto style")
    page.reload()
    wait_until_ready(page)
    page.fill("#prompt textarea", "something else")
    drop(page, sheet.name, sheet.read_bytes())
    see(page, prompt="an owl, noto style")
    page.wait_for_selector("#compare-tab-button[aria-selected=true]")
    page.wait_for_function("document.querySelector('#grid-cost').innerText.includes('8 on the disk already')")
    page.click("#compare")
    wait_for_cells(page, "finished", 9)
    assert page.locator("#sheet .cell .mark:text-is('from disk')").count() == 8
    scrub_to(page, 3)  # the steps of what came from the disk are still kept
    assert {cell: picture for cell, picture in cells_shown(page).items() if cell != "8"} == {
        cell: picture for cell, picture in early.items() if cell != "8"
    }
    again = saved(page, "png", tmp_path)
    assert metadata.read_picture(again).grid == grid


def test_prompts_one_a_line_are_a_value_each_and_come_back_from_their_sheet(page, tmp_path):
    """Typed, pasted, added at the sheet's edge; Enter begins a line, Shift+Enter compares, as in the prompt."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    set_number(page, "steps", 2)
    open_compare(page)
    choose_axis(page, "x", "Prompt", "")
    choose_axis(page, "y", "Seed", "7")
    page.focus("#axis-x-values textarea")
    page.evaluate("navigator.clipboard.writeText('a cat, sitting\\na dog, running')")
    page.keyboard.press("Control+V")
    page.keyboard.press("Enter")
    page.keyboard.type("a bird")
    page.wait_for_function("document.querySelector('#grid-cost').innerText.includes('3 x 1 = 3 cells')")
    page.keyboard.press("Shift+Enter")
    wait_for_cells(page, "finished", 3)
    page.evaluate("navigator.clipboard.writeText('a fox, red\\n\\na bee')")
    page.focus("#sheet .more-column input")
    page.keyboard.press("Control+V")
    page.keyboard.press("Enter")
    wait_for_cells(page, "finished", 5)
    names = ["a cat, sitting", "a dog, running", "a bird", "a fox, red", "a bee"]
    assert page.locator("#sheet .label.column").all_inner_texts() == names
    written = page.input_value("#axis-x-values textarea")
    sheet = saved(page, "png", tmp_path)
    page.reload()
    wait_until_ready(page)
    drop(page, sheet.name, sheet.read_bytes())
    page.wait_for_selector("#compare-tab-button[aria-selected=true]")
    page.wait_for_function("document.querySelector('#grid-cost').innerText.includes('5 on the disk already')")
    assert page.input_value("#axis-x-values textarea") == written


def test_a_sheet_whose_line_was_cut_goes_on_when_it_is_back(page):
    begin_three_by_three(page, "a rocket, fluent style", steps=150)
    page.wait_for_selector("#sheet .cell.drawn", timeout=DONE)
    page.evaluate(CUT_THE_LINE)
    page.wait_for_function("document.querySelector('#sheet .sheet-status').innerText.includes('does not answer')", timeout=DONE)
    page.click("#stop-grid")
    page.wait_for_function("window.unanswered > 1", timeout=DONE)
    assert page.locator("#sheet .sheet.running").count() == 1
    page.evaluate("window.mend()")
    wait_for_end(page)
    assert text_of(page, "#sheet .sheet-status").endswith("of 9 pictures")


def test_a_sheet_without_a_mouse(page):
    begin_three_by_three(page, "a bee, noto style", steps=100)
    page.wait_for_selector("#sheet .cell.drawn", timeout=DONE)
    page.focus("#sheet .cell >> nth=8 >> .stop-one")
    page.keyboard.press("Enter")
    wait_for_cells(page, "stopped", 1)
    assert page.locator(".loupe[open]").count() == 0
    page.click("#sheet [data-stop=all]")
    wait_for_end(page)
    page.focus("#sheet .cell >> nth=0")
    page.keyboard.press("Enter")
    page.wait_for_selector(".loupe h2")
    for name in ("CFG scale 2, Seed 11", "CFG scale 5, Seed 11", "CFG scale 9, Seed 11"):
        page.wait_for_function(f"document.querySelector('.loupe h2').innerText === '{name}'")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('.loupe h2').innerText === 'CFG scale 9, Seed 12'")
    page.keyboard.press("Escape")
    page.wait_for_selector(".loupe:not([open])", state="attached")


def test_a_sheet_that_nobody_sees_asks_for_nothing(page):
    begin_three_by_three(page, "a fox, noto style", steps=100)
    page.wait_for_selector("#sheet .cell.drawn", timeout=DONE)
    page.click("#generate-tab-button")
    page.wait_for_selector("#sheet", state="hidden")
    asked: list = []
    page.on("request", lambda request: asked.append(request) if '"question":"frame"' in (request.post_data or "") else None)
    page.wait_for_timeout(1500)
    assert len(asked) <= 1  # the last one may still be on its way; seen, the sheet asks five times a second
    asked.clear()
    open_compare(page)
    page.wait_for_selector("#sheet .sheet.running .cell.drawn", timeout=DONE)
    page.click("#sheet [data-stop=all]")
    wait_for_end(page)
    assert len(asked) > 0


def test_a_column_is_added_while_it_runs_and_a_row_afterwards(page):
    begin_three_by_three(page, "a crab, fluent style", steps=30)
    page.wait_for_selector("#sheet .cell.drawn", timeout=DONE)
    page.fill("#sheet .more-column input", "7")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#sheet .cell').length === 12", timeout=DONE)
    wait_for_cells(page, "finished", 12)
    see(page, **{"axis-x-values": "2, 5, 9, 7"})
    page.fill("#sheet .more-row input", "14")
    page.keyboard.press("Enter")
    wait_for_cells(page, "finished", 16)
    assert text_of(page, "#sheet .sheet-status") == "4 finished of 4 new pictures"
    page.fill("#sheet .more-row input", "one more")
    page.keyboard.press("Enter")
    page.wait_for_selector(".toast-body:has-text('cannot read')")
    assert page.locator("#sheet .cell").count() == 16


def test_sixty_four_cells_develop_at_once_and_the_page_can_be_used_meanwhile(page):
    prompt(page, "a kiwi, noto style")
    set_number(page, "steps", 100)
    open_compare(page)
    choose_axis(page, "x", "Seed", "1-8")
    choose_axis(page, "y", "CFG scale", "2-9")
    page.wait_for_function("document.querySelector('#grid-cost').innerText.includes('8 x 8 = 64 cells')")
    page.click("#compare")
    page.wait_for_function("document.querySelectorAll('#sheet .cell.drawn[data-state=developing]').length === 64", timeout=DONE)
    prompt(page, "typed while it runs")
    page.wait_for_function("document.querySelector('#token-hint').innerText.includes('of 30 tokens')")
    page.click("#sheet .cell >> nth=63")
    page.wait_for_function("document.querySelector('.loupe h2')?.innerText === 'Seed 8, CFG scale 9'")
    page.keyboard.press("Escape")
    page.click("#sheet [data-stop=all]")
    wait_for_cells(page, "stopped", 64)
    assert text_of(page, "#sheet .sheet-status") == "64 stopped of 64 pictures"


def test_a_slow_line_gets_fewer_frames_never_a_queue_of_them(page):
    under_way: set = set()
    most, asked = [0], []

    def begun(request) -> None:
        if '"question":"frame"' in (request.post_data or ""):
            asked.append(request)
            under_way.add(request)
            most[0] = max(most[0], len(under_way))

    page.on("request", begun)
    page.on("requestfinished", lambda request: under_way.discard(request))
    slow = {"offline": False, "latency": 800, "downloadThroughput": 40_000, "uploadThroughput": 40_000}  # bytes a second
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    begin_three_by_three(page, "a lamp, noto style")
    wait_for_cells(page, "finished", 9)
    assert most == [1]
    assert len(asked) >= 2


def test_two_cells_against_each_other(page):
    begin_three_by_three(page, "a lemon, noto style", steps=5)
    wait_for_cells(page, "finished", 9)
    page.click("#sheet .cell >> nth=0")
    page.click(".loupe [data-act=with]")
    page.click("#sheet .cell >> nth=2")
    page.wait_for_selector(".versus[data-way=slider]")
    page.locator(".versus .cut").fill("20")
    assert "20%" in page.locator(".versus").get_attribute("style")
    assert "CFG scale\t2\t9" in text_of(page, ".changes")
    assert "Largest difference" in text_of(page, ".versus-figures")
    page.click(".loupe [data-way=heat]")
    assert page.evaluate("document.querySelector('.versus img').src").startswith("data:image/png")
    page.click(".loupe [data-way=flicker]")
    page.wait_for_selector(".versus[data-side=b]")
    page.wait_for_selector(".versus[data-side=a]")


def test_going_on_from_a_cell(page):
    begin_three_by_three(page, "a taco, twemoji style", steps=5)
    wait_for_cells(page, "finished", 9)
    page.click("#sheet .cell >> nth=5")
    page.click(".loupe [data-act=zoom]")
    see(page, seed="12", **{"axis-x-values": "7, 9, 11"})
    prompt(page, "something else")
    page.click("#sheet .cell >> nth=3")
    page.click(".loupe [data-act=use]")
    page.wait_for_selector("#generate-tab-button[aria-selected=true]")
    see(page, prompt="a taco, twemoji style", seed="12", cfg="2")


def test_a_blind_test_ends_in_a_ranking(page):
    begin_three_by_three(page, "a rocket, fluent style", steps=5)
    wait_for_cells(page, "finished", 9)
    page.click("#sheet .blind-start")
    page.wait_for_selector(".blind-side img")
    assert "CFG" not in text_of(page, ".blind")
    for picked in range(1, 5):
        page.keyboard.press("ArrowLeft" if picked % 2 else "ArrowRight")
        page.wait_for_function(f"document.querySelector('.blind-count').innerText.startsWith('{picked} picked')")
    page.click(".blind-end")
    page.wait_for_selector(".ranking")
    assert [title.inner_text() for title in page.locator(".blind h3").all()] == ["CFG scale", "Seed", "Cells"]
    assert page.locator(".blind section:last-of-type .ranking tbody tr").count() == 9


def test_what_can_be_taken_away(page, tmp_path):
    begin_three_by_three(page, "a key, fluent style", steps=5)
    wait_for_cells(page, "finished", 9)
    with zipfile.ZipFile(saved(page, "zip", tmp_path)) as archive:
        names = archive.namelist()
        rows = list(csv.DictReader(io.StringIO(archive.read("recipes.csv").decode("utf-8-sig"))))
    assert len(rows) == 9
    assert sum(name.endswith(".png") for name in names) == 10
    film = saved(page, "webp", tmp_path)
    assert film.read_bytes()[8:12] == b"WEBP"
    assert "Darkroom.Sheet" in saved(page, "html", tmp_path).read_text()
    assert "StableDiffusionPipeline" in saved(page, "ipynb", tmp_path).read_text()


def test_mistakes_get_a_sentence_and_nothing_is_started(page):
    open_compare(page)
    choose_axis(page, "x", "Scheduler", "Euler, huen")
    page.wait_for_function("document.querySelector('#grid-cost').innerText.includes('did you mean Heun')")
    page.click("#compare")
    page.click("#axis-x-kind input")
    page.locator("ul[role=listbox] li").filter(has_text="Seed").first.click()
    page.wait_for_function("document.querySelector('#axis-x-values textarea, #axis-x-values input').value === ''")
    choose_axis(page, "x", "Seed", "1-10")
    choose_axis(page, "y", "CFG scale", "1-10")
    choose_axis(page, "z", "Steps", "1-10")
    refusal = "10 x 10 x 10 = 1,000 cells are more than the 100 allowed"
    page.wait_for_function(f"document.querySelector('#grid-cost').innerText.includes('{refusal}')")
    page.click("#compare")
    page.wait_for_timeout(500)
    assert page.locator("#sheet .cell").count() == 0


def test_a_running_sheet_is_found_again_after_a_reload(page):
    begin_three_by_three(page, "a bell, noto style", steps=150)
    page.wait_for_selector("#sheet .cell.drawn", timeout=DONE)
    page.reload()
    wait_until_ready(page)
    open_compare(page)
    page.wait_for_function("document.querySelectorAll('#sheet .cell').length === 9", timeout=DONE)
    page.click("#sheet [data-stop=all]")
    wait_for_end(page)


def test_a_sheet_fits_a_phone_and_a_desk(page):
    begin_three_by_three(page, "a pear, noto style", steps=3)
    wait_for_cells(page, "finished", 9)
    for width, height in ((390, 844), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
