"""The real page, the real embedded model, a real browser."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.setup_browser import find_browser

DONE = 120_000
"""Milliseconds that anything may take on a slow, shared machine: nothing waits for them unless it fails."""

DROP = """
([name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, {type}));
  const target = document.querySelector('#bench');
  for (const kind of ['dragover', 'drop'])
    target.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: files}));
}
"""


CUT_THE_LINE = """
() => {
  const real = window.fetch;
  window.unanswered = 0;
  window.fetch = (...asked) => {
    if (!String(asked[0]).includes('component_server')) return real(...asked);
    window.unanswered += 1;
    return Promise.reject(new TypeError('the line is cut'));
  };
  window.mend = () => { window.fetch = real; };
}
"""
"""What the scripts ask is not answered any more, until `mend()`."""

LEAVING = ("AbortError", "Connection errored out")
"""gradio's own words about a request that was under way when the page was left."""

PICKED = "document.querySelector('.stage.done .frame img:not([hidden])')?.src"
"""Names the picture on the stage, once its run has ended."""

START_SECONDS = 120
"""How long the page may take to answer before the tests give up; machines of CI are slow and shared."""


expect.set_options(timeout=DONE)


@pytest.fixture(scope="package")  # Playwright keeps an event loop running in this thread: no longer than needed
def browser() -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed here, and none could be had")
    with sync_playwright() as playwright:
        # no-sandbox: Chromium refuses its sandbox to root, which CI often is; disable-dev-shm-usage: containers have 64 MB there.
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        running = playwright.chromium.launch(executable_path=str(executable), args=flags)
        yield running
        running.close()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def address(data_dir) -> Iterator[str]:
    """Where `python app.py` serves the page, with the embedded model loaded."""
    with served(data_dir, free_port()) as address:
        yield address


@contextlib.contextmanager
def served(data_dir: Path, port: int) -> Iterator[str]:
    """Serves the page there until it is left; gives its address."""
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", str(data_dir), "--device", "cpu"]
    # Without the tests' own folder for gradio's files: app.py must see to that itself.
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    log = (data_dir / "app.log").open("w")
    server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the page did not open")
        wait_until(lambda: "is ready" in (data_dir / "app.log").read_text(), "the model was not loaded")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(timeout=START_SECONDS)
        log.close()


@pytest.fixture
def page(visit) -> Page:
    """The page, open and ready at 1440 x 900."""
    return visit()


@pytest.fixture
def visit(browser, address) -> Iterator[Callable[[], Page]]:
    """Opens the page for one more visitor; none may have asked another machine or logged an error when the test ends."""
    contexts, foreign, errors = [], [], []

    def enter() -> Page:
        contexts.append(new_context(browser))
        opened = contexts[-1].new_page()
        opened.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else foreign.append(request.url))
        opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        open_page(opened, address)
        return opened

    yield enter
    for context in contexts:
        context.close()
    assert foreign == []
    assert [error for error in errors if not any(word in error for word in LEAVING)] == []


def new_context(browser: Browser, width: int = 1440, height: int = 900) -> BrowserContext:
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(DONE)
    return context


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    wait_until_ready(page)


def wait_until_ready(page: Page) -> None:
    page.wait_for_selector("#generate")
    page.wait_for_selector("#size-hint", state="attached")
    # gradio binds its events a moment after it draws; the size hint is filled by the page's own load event.
    page.wait_for_function("document.querySelector('#size-hint').innerText.includes('Trained at')")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def see(page, **fields: str) -> None:
    """Waits until the page's fields hold these values: each arrives at its own time."""
    for name, value in fields.items():
        expect(page.locator(f"#{name} textarea, #{name} input").first).to_have_value(value)


def set_number(page, name: str, value: float) -> None:
    field = page.locator(f"#{name} input[type=number]")
    field.fill(f"{value:g}")
    field.press("Tab")


def prompt(page, text: str) -> None:
    page.fill("#prompt textarea", text)


def drop(page, name: str, content: bytes, kind: str = "image/png") -> None:
    page.evaluate(DROP, [name, kind, base64.b64encode(content).decode()])


def text_of(page, selector: str) -> str:
    return page.locator(selector).inner_text()


def choose_axis(page, name: str, kind: str, values: str) -> None:
    page.click(f"#axis-{name}-kind input")
    page.locator("ul[role=listbox] li").filter(has_text=kind).first.click()
    see(page, **{f"axis-{name}-values": ""})  # the old kind's values make way
    page.fill(f"#axis-{name}-values textarea, #axis-{name}-values input", values)


def open_compare(page) -> None:
    page.click("#compare-tab-button")
    page.wait_for_selector("#axis-x-values", state="visible")


def run(page) -> None:
    """A run may be too quick for its beginning to be seen: it is over when another picture is there than before."""
    before = page.evaluate(PICKED)
    page.keyboard.press("Control+Enter")
    page.wait_for_function(f"before => {PICKED} && {PICKED} !== before", arg=before)


def settings_of(page) -> str:
    """The settings shown of the picture on the stage."""
    expect(page.locator("#settings-text textarea")).not_to_have_value("")
    return page.input_value("#settings-text textarea")
