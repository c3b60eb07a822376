"""A person comes back: what the page held is there again."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import (
    DONE,
    choose_axis,
    free_port,
    new_context,
    open_compare,
    open_page,
    prompt,
    run,
    see,
    served,
    set_number,
    settings_of,
    wait_until_ready,
)  # fmt: skip

pytestmark = pytest.mark.browser

FIELDS = {"prompt": "an owl,\n“noto” style \\ ${1} 🦉", "negative": "red, text", "steps": "7", "cfg": "6.5", "seed": "123", "width": "96"}


def fill(page) -> None:
    prompt(page, FIELDS["prompt"])
    page.fill("#negative textarea", FIELDS["negative"])
    for name in ("steps", "cfg", "seed", "width"):
        set_number(page, name, float(FIELDS[name]))
    page.check("#seed-mode input[value=Keep]")
    choose(page, "scheduler", "Heun")


def choose(page, name: str, option: str) -> None:
    page.click(f"#{name} input")
    page.locator("ul[role=listbox] li").filter(has_text=option).first.click()


def see_all(page) -> None:
    see(page, **FIELDS, scheduler="Heun")
    expect(page.locator("#seed-mode input:checked")).to_have_value("Keep")


def kept(page, text: str) -> None:
    """Waits until the browser has kept what was typed."""
    page.wait_for_function("text => (sessionStorage.getItem('darkroom-page') || '').includes(text)", arg=text)


def again(page) -> None:
    page.reload()
    wait_until_ready(page)


def test_fields_axes_tab_and_folded_parts_are_back_after_a_reload(page):
    fill(page)
    page.click("#more > button")
    page.wait_for_selector("#clip-skip", state="visible")
    open_compare(page)
    choose_axis(page, "x", "Steps", "3, 4, 5")
    page.check("#anew input")
    kept(page, "3, 4, 5")
    again(page)
    see_all(page)
    page.wait_for_selector("#compare-tab-button[aria-selected=true]")
    page.wait_for_selector("#clip-skip", state="visible")
    see(page, **{"axis-x-kind": "Steps", "axis-x-values": "3, 4, 5"})
    expect(page.locator("#anew input")).to_be_checked()


def test_axes_that_are_out_of_sight_are_kept_too(page):
    open_compare(page)
    choose_axis(page, "y", "Steps", "3, 4, 5")
    page.click("#generate-tab-button")
    page.wait_for_selector("#stage", state="visible")
    for text in ("an apple", "a pear"):
        prompt(page, text)
        kept(page, text)
        again(page)
    page.wait_for_selector("#generate-tab-button[aria-selected=true]")
    open_compare(page)
    see(page, prompt="a pear", **{"axis-y-kind": "Steps", "axis-y-values": "3, 4, 5"})


def test_two_tabs_keep_their_own_and_a_new_one_begins_with_the_newest(page, address):
    prompt(page, "a cat")
    kept(page, "a cat")
    second = page.context.new_page()
    open_page(second, address)
    see(second, prompt="a cat")
    prompt(second, "a dog")
    kept(second, "a dog")
    again(page)
    see(page, prompt="a cat")
    again(second)
    see(second, prompt="a dog")
    prompt(second, "a bee")
    kept(second, "a bee")
    third = page.context.new_page()
    open_page(third, address)
    see(third, prompt="a bee")


def test_a_run_goes_on_with_all_fields_and_its_picture_is_there_afterwards(page):
    fill(page)
    set_number(page, "steps", 150)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stage .frame.developing.drawn", timeout=DONE)
    again(page)
    see(page, prompt=FIELDS["prompt"], steps="150", scheduler="Heun")
    page.wait_for_selector(".stage.running")
    page.wait_for_selector(".stage.done", timeout=DONE)
    text = settings_of(page)
    again(page)
    assert settings_of(page) == text
    page.wait_for_selector(".stage.done .frame img")


def test_what_is_not_valid_any_more_falls_back_without_an_error(page):
    prompt(page, "a lemon")
    kept(page, "a lemon")
    page.evaluate(
        """() => ['sessionStorage', 'localStorage'].forEach(name => {
            const kept = JSON.parse(window[name].getItem('darkroom-page'));
            Object.assign(kept.values, {model: 'gone', scheduler: ['Euler'], steps: 9999, guidance_scale: 'much', axis_x: 'gone'});
            Object.assign(kept, {tab: 'gone', open: 7, pick: '../../etc:0'});
            window[name].setItem('darkroom-page', JSON.stringify(kept));
        })"""
    )
    before = {name: page.input_value(f"#{name} input") for name in ("model", "scheduler", "steps", "cfg")}
    again(page)
    see(page, prompt="a lemon", **before)
    assert page.locator(".toast-body").count() == 0
    page.evaluate("() => ['sessionStorage', 'localStorage'].forEach(name => window[name].setItem('darkroom-page', '{broken'))")
    again(page)
    see(page, prompt="")


def test_start_over_clears(page):
    built = {name: page.input_value(f"#{name} textarea, #{name} input") for name in (*FIELDS, "scheduler")}
    fill(page)
    run(page)
    open_compare(page)
    choose_axis(page, "x", "Steps", "3, 4, 5")
    page.click("#start-over")
    see(page, **{"axis-x-kind": "CFG scale", "axis-x-values": "2, 5, 9"})
    page.click("#generate-tab-button")
    see(page, **built)
    page.wait_for_selector("#stage .welcome")
    expect(page.locator("#settings-text textarea")).to_have_value("")
    page.wait_for_function("JSON.parse(sessionStorage.getItem('darkroom-page')).values.prompt === ''")
    again(page)
    see(page, **built)
    expect(page.locator(".thumb")).to_have_count(1)


def test_fields_outlive_the_server(browser, tmp_path_factory):
    data_dir, port, context = tmp_path_factory.mktemp("restarted"), free_port(), new_context(browser)
    page = context.new_page()
    with served(data_dir, port) as address:
        open_page(page, address)
        fill(page)
        kept(page, "Heun")
    (data_dir / "app.log").unlink()
    with served(data_dir, port):
        again(page)
        see_all(page)
        set_number(page, "steps", 3)
        run(page)
    context.close()
