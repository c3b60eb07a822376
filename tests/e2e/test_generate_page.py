"""A person at the Generate tab."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from engine.pictures import metadata
from tests.conftest import ROOT
from tests.e2e.conftest import CUT_THE_LINE, DONE, drop, open_page, prompt, run, see, set_number, settings_of, text_of

pytestmark = pytest.mark.browser

WATCH_FRAMES = """
() => {
  window.frames_seen = [];
  const look = () => {
    document.querySelectorAll('#stage .frame').forEach(frame => {
      const image = frame.querySelector('img'), canvas = frame.querySelector('canvas');
      if (!image) return;  // nothing is known of it yet
      const shown = image.hasAttribute('src') ? image.src : frame.classList.contains('drawn') && canvas.toDataURL();
      if (shown && window.frames_seen.at(-1) !== shown) window.frames_seen.push(shown);
    });
    requestAnimationFrame(look);
  };
  look();
}
"""


def shown_file(page, data_dir: Path) -> Path:
    """The file of the picture on the stage."""
    source = page.locator("#stage .frame img").first.get_attribute("src")
    [file] = [path for path in (data_dir / "outputs").rglob("*.png") if path.name in source]
    return file


def test_a_prompt_becomes_a_picture_step_by_step(page, data_dir):
    prompt(page, "an owl, noto style")
    set_number(page, "steps", 40)
    page.evaluate(WATCH_FRAMES)
    run(page)
    seen = page.evaluate("window.frames_seen")
    previews, last = [source for source in seen if source.startswith("data:")], seen[-1]
    assert len(set(previews)) >= 2
    assert "gradio_api/file=" in last
    page.wait_for_function("document.querySelector('#stage .frame img').naturalWidth === 64")
    assert re.search(r"40 steps in [\d.]+ s on cpu, seed \d+", text_of(page, "#stage .status"))
    found = metadata.read_picture(shown_file(page, data_dir))
    assert found.settings["prompt"] == "an owl, noto style"
    see(page, seed=str(found.settings["seed"]))
    assert "Steps: 40" in settings_of(page)


def test_the_downloaded_file_carries_its_settings(page, tmp_path):
    prompt(page, "a peach, noto style")
    set_number(page, "steps", 3)
    run(page)
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "picture.png")
    found = metadata.read_picture(tmp_path / "picture.png")
    assert found.source == "Darkroom"
    assert found.settings["prompt"] == "a peach, noto style"


def test_a_run_whose_end_was_missed_is_taken_up_again(page):
    prompt(page, "a rocket, fluent style")
    set_number(page, "steps", 150)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .frame.developing.drawn", timeout=DONE)
    page.evaluate(CUT_THE_LINE)
    page.click("#stop")
    page.wait_for_function("window.unanswered > 1", timeout=DONE)
    assert page.locator(".stage.running").count() == 1
    page.evaluate("window.mend()")
    page.wait_for_selector(".stage.done", timeout=DONE)
    page.wait_for_selector("#generate:not([disabled])", timeout=DONE)
    assert page.locator(".thumb.unfinished").count() == 1


def test_stop_keeps_what_there_is(page):
    prompt(page, "a rocket, fluent style")
    set_number(page, "steps", 150)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .frame.developing.drawn", timeout=DONE)
    assert re.search(r"step \d+ of 150 · [\d.]+ steps/s · .* left", text_of(page, "#stage .status"))
    page.click("#stop")
    page.wait_for_selector(".stage.done", timeout=DONE)
    assert re.fullmatch(r"Stopped after step \d+ of 150\.", text_of(page, "#stage .status"))
    expect(page.locator(".thumb.unfinished")).to_have_count(1)
    set_number(page, "steps", 4)
    run(page)
    assert "4 steps" in text_of(page, "#stage .status")


def test_a_dropped_picture_fills_in_its_settings(page, data_dir):
    prompt(page, "a cactus, fluent style")
    page.fill("#negative textarea", "red")
    set_number(page, "steps", 7)
    set_number(page, "cfg", 6)
    run(page)
    seed = page.input_value("#seed input")
    content = shown_file(page, data_dir).read_bytes()
    page.click("#start-over")
    see(page, prompt="", negative="")
    drop(page, "cactus.png", content)
    see(page, prompt="a cactus, fluent style", negative="red", steps="7", cfg="6", seed=seed)
    expect(page.locator("#seed-mode input:checked")).to_have_value("Keep")


def test_what_a_dropped_picture_asks_for_beyond_the_page_is_said_until_it_is_closed(page):
    """200 steps of 150, CFG 6.55 between the slider's stops, CLIP skip 2 in the folded settings."""
    drop(page, "steps200.png", (ROOT / "tests" / "data" / "metadata" / "steps200.png").read_bytes())
    page.wait_for_selector("#loaded .loaded")
    assert "Steps 200 became 150, the most here." in text_of(page, "#loaded")
    see(page, steps="150", cfg="6.55")
    page.wait_for_selector("#more:has-text('More: CLIP skip 2')")
    page.click("#loaded button:has-text('Close')")
    page.wait_for_selector("#loaded .loaded", state="detached")
    set_number(page, "steps", 9)
    drop(page, "steps200.png", (ROOT / "tests" / "data" / "metadata" / "steps200.png").read_bytes())
    see(page, steps="150", cfg="6.55", seed="5")
    set_number(page, "steps", 3)
    run(page)
    text = settings_of(page)
    assert "Steps: 3, Sampler: Euler a, Schedule type: Uniform, CFG scale: 6.55, Seed: 5" in text
    assert "Clip skip: 2" in text


def test_a_dropped_jpeg_of_another_tool_fills_in_its_settings(page):
    drop(page, "car.jpg", (ROOT / "tests/data/metadata/40-a1111.jpg").read_bytes(), "image/jpeg")
    see(page, prompt="a red car, a blue house", negative="text, frame", seed="1234")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.png", b"just some words", "no PNG, JPEG, WebP or AVIF picture"), ("cut.png", "cut", "damaged"),
        ("plain.png", "plain", "carries no settings"),
    ],
)
def test_a_file_without_settings_is_told_apart(page, name, content, sentence):
    drop(page, name, content if isinstance(content, bytes) else _png(content))
    page.wait_for_selector(f".toast-body:has-text('{sentence}')")


def test_bad_input_gets_a_sentence_and_the_next_request_works(page):
    prompt(page, "a crown, noto style")
    set_number(page, "steps", 3)
    set_number(page, "width", 500)
    page.click("#generate")
    page.wait_for_selector("#stage .refusal")
    assert "Width must be a multiple of 8: try 496 or 504" in text_of(page, "#stage .refusal")
    expect(page.locator(".chip").first).to_be_visible()  # nothing that was there is taken away
    set_number(page, "width", 64)
    run(page)
    assert "3 steps" in text_of(page, "#stage .status")


def test_a_number_beyond_a_slider_gets_a_sentence_too(page):
    page.fill("#steps input[type=number]", "9999")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stage .refusal")).to_have_text("Steps must be a whole number from 1 to 150; it was 9999.")


def test_what_was_wrong_takes_no_picture_of_several_away(page):
    set_number(page, "steps", 2)
    set_number(page, "count", 3)
    run(page)
    set_number(page, "width", 500)
    page.click("#generate")
    page.wait_for_selector("#stage .refusal")
    assert page.locator("#stage .frame.finished").count() == 3
    set_number(page, "width", 64)
    set_number(page, "count", 1)
    run(page)
    assert page.locator("#stage .refusal").count() == 0


def test_a_picture_is_downloaded_as_the_kind_of_file_that_was_chosen(page):
    set_number(page, "steps", 2)
    page.check("#seed-mode input[value=Keep]")
    page.click("#download-kind input")
    page.locator("ul[role=listbox] li").filter(has_text="JPEG").first.click()
    run(page)
    expect(page.locator("#generate")).to_have_text("Generate")
    run(page)  # equal settings: only another picture
    expect(page.locator(".thumb")).to_have_count(2)
    with page.expect_response(lambda reply: '"JPEG"' in (reply.request.post_data or "")):
        page.click(".thumb >> nth=1")
    for _ in range(100):  # the button has its new file a moment after that came
        with page.expect_download() as download:
            page.click("#download")
        if download.value.suggested_filename.endswith(".jpg"):
            break
        page.wait_for_timeout(100)
    assert metadata.read_picture(download.value.path()).settings["steps"] == 2
    with Image.open(download.value.path()) as image:
        assert image.format == "JPEG"


def test_a_server_that_is_away_is_told_beside_a_picture_that_is_looked_at(page):
    set_number(page, "steps", 2)
    run(page)
    set_number(page, "steps", 150)
    set_number(page, "count", 4)
    page.click("#generate")
    page.wait_for_selector("#stage .frame.developing.drawn")
    page.click(".thumb >> nth=0")
    page.wait_for_selector("#stage .stage.done")
    page.evaluate(CUT_THE_LINE)
    notices = page.locator("#stage .notices")
    expect(notices).to_contain_text("does not answer")
    page.evaluate("window.mend()")
    expect(notices).to_have_text("")
    page.click("#stop")
    expect(page.locator("#generate")).to_be_enabled()


def test_an_example_is_one_click(page):
    example = text_of(page, ".chip >> nth=0")
    page.click(".chip >> nth=0")
    page.wait_for_selector(".stage.done", timeout=DONE)
    see(page, prompt=example)


def test_several_images_develop_together_and_any_can_be_used_again(page):
    prompt(page, "a taco, twemoji style")
    set_number(page, "steps", 12)
    set_number(page, "count", 4)
    run(page)
    assert page.locator("#stage .frame.finished").count() == 4
    assert text_of(page, "#stage .status") == "4 finished of 4 pictures"
    page.locator("#stage .frame img >> nth=1").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stage .frame")).to_have_count(1)
    shown = re.search(r"seed (\d+)", text_of(page, "#stage .status")).group(1)
    expect(page.locator("#settings-text textarea")).to_have_value(re.compile(f"Seed: {shown}"))
    prompt(page, "something else")
    page.click("#reuse")
    see(page, prompt="a taco, twemoji style", seed=shown)


def test_words_past_the_limit_are_shown_while_typing(page):
    prompt(page, "an apple " + "and a pear " * 12)
    page.wait_for_function("document.querySelector('#token-hint').innerText.includes('these words are cut')")


def test_pictures_are_found_again_after_a_reload(page):
    prompt(page, "a lemon, noto style")
    set_number(page, "steps", 3)
    run(page)
    expect(page.locator(".thumb")).to_have_count(1)
    page.reload()
    expect(page.locator(".thumb")).to_have_count(1)


def test_two_visitors_draw_at_the_same_time_and_see_only_their_own(visit):
    first, second = visit(), visit()
    for visitor, text in ((first, "a lemon, noto style"), (second, "a crab, fluent style")):
        prompt(visitor, text)
        set_number(visitor, "steps", 40)
    for visitor in (first, second):
        visitor.keyboard.press("Control+Enter")
    for visitor, text in ((first, "a lemon, noto style"), (second, "a crab, fluent style")):
        visitor.wait_for_selector(".stage.done", timeout=DONE)
        visitor.wait_for_selector(".thumb")
        assert [thumb.get_attribute("title").split(", seed")[0] for thumb in visitor.locator(".thumb").all()] == [text]


def test_dark_by_default_and_light_on_demand(page):
    assert page.evaluate("document.body.classList.contains('dark')")
    page.click("[data-theme-choice=light]")
    page.wait_for_selector("body:not(.dark)")
    page.reload()
    page.wait_for_selector("body:not(.dark) [data-theme-choice=light][aria-pressed=true]")


def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    for button in ("#generate", "#stop"):
        box = page.locator(button).bounding_box()
        assert box["x"] >= 0
        assert box["y"] + box["height"] <= 844


def test_nothing_jumps_between_idle_running_and_done(page):
    place = "(() => { const b = document.querySelector('#settings-text').getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
    idle = page.evaluate(place)
    prompt(page, "a key, fluent style")
    set_number(page, "steps", 30)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .frame.developing.drawn", timeout=DONE)
    running = page.evaluate(place)
    page.wait_for_selector(".stage.done", timeout=DONE)
    assert idle == running == page.evaluate(place)


def _png(kind: str) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return buffer.getvalue()[: 900 if kind == "cut" else None]


def test_a_picture_is_verified_and_copied_as_python_and_as_a_command(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    prompt(page, "an owl's nest, noto style")
    set_number(page, "steps", 3)
    run(page)
    page.get_by_role("button", name="Make it again").click()
    page.click("#verify")
    expect(page.locator("#verdict")).to_contain_text("Identical: its recipe gives the same bits here and now.")
    page.click("#as-python")
    expect(page.locator("#copied textarea")).to_have_value(re.compile("StableDiffusionPipeline.from_pretrained"))
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('# pip install torch'))")
    page.click("#as-command")
    expect(page.locator("#copied textarea")).to_have_value(re.compile("^python -m engine generate --prompt='an owl'"))
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('python -m engine'))")
    assert page.locator("#strip .thumb").count() == 1
    run(page)
    expect(page.locator("#verdict")).not_to_contain_text("Identical")
    expect(page.locator("#copied")).to_have_count(0)


def test_a_copied_link_opens_the_page_of_somebody_else_with_the_same_settings(page, visit, address):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    words = 'an owl, "noto" style & 100% +\nat night, 夜'
    prompt(page, words)
    set_number(page, "steps", 3)
    run(page)
    page.get_by_role("button", name="Make it again").click()
    page.click("#as-link")
    page.wait_for_function("start => navigator.clipboard.readText().then(text => text.startsWith(start))", arg=f"{address}?prompt=an+owl")
    link = page.evaluate("navigator.clipboard.readText()")
    seed = re.search(r"Seed: (\d+)", settings_of(page))[1]
    other = visit()
    open_page(other, link + "&__theme=dark")
    see(other, prompt=words, steps="3", seed=seed)
    assert other.url == f"{address}?__theme=dark"  # a reload keeps what is changed from here on
    prompt(other, "a crab")
    other.reload()
    see(other, prompt="a crab", steps="3", seed=seed)


PASTE = """
text => {
  const clipboardData = new DataTransfer();
  clipboardData.setData('text/plain', text);
  const pasted = new ClipboardEvent('paste', {clipboardData, bubbles: true, cancelable: true});
  return document.querySelector('#prompt textarea').dispatchEvent(pasted);
}
"""


def test_settings_pasted_into_the_prompt_fill_the_fields_and_words_are_left_to_the_browser(page):
    words = "an owl, noto style\nNegative prompt: red\nSteps: 9, Sampler: Euler, CFG scale: 6.5, Seed: 77, Size: 64x64, Model: nobodys"
    assert page.evaluate(PASTE, "Steps: a ladder") is True
    assert page.evaluate(PASTE, words) is False
    see(page, prompt="an owl, noto style", negative="red", steps="9", seed="77", width="64")
    expect(page.locator("#loaded")).to_contain_text("“nobodys”")
    # Where a browser lets no clipboard be read, the text that stands in the prompt is taken.
    prompt(page, words.replace("77", "78"))
    page.click("#paste-settings")
    see(page, prompt="an owl, noto style", seed="78")
