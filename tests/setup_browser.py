"""A Chromium for the browser tests: found where there is one, fetched where that is possible, done without where not.

`make test` runs this module before pytest; the tests themselves only call `find_browser`, which looks and installs nothing.
DARKROOM_BROWSER names a browser to use instead, by path or by command; a name that does not run ("none") switches all of it off.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
NAMED = "DARKROOM_BROWSER"

ASK_SECONDS = 20
"""For a question answered at once on an idle machine: a browser's version, where Playwright keeps its own."""
FETCH_SECONDS = 120
"""For a download, so that a machine that cannot reach anything does not hang."""
INSTALL_SECONDS = 300
"""For the system's package manager, which is better not interrupted while it unpacks."""

_WHERE_PLAYWRIGHT_KEEPS_ITS_OWN = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


def find_browser() -> Path | None:
    """A Chromium or Chrome on this machine that starts, or None. It looks anew at every call, and installs nothing."""
    if named := os.environ.get(NAMED):
        return _if_it_starts(named)
    for candidate in (*COMMANDS, *APPLICATIONS):
        if browser := _if_it_starts(candidate):
            return browser
    own = _playwrights_own()
    return _if_it_starts(own) if own else None


def install_browser() -> str | None:
    """Try to put a browser where `find_browser` sees it; None when one is there now, otherwise why there is none."""
    failures = []
    for title, commands, seconds in _ways():
        print(f"No browser for the tests yet: {title} ...", flush=True)
        for command in commands:
            if failure := run_limited(command, seconds):
                failures.append(f"{title} {failure}")
                break
        if find_browser():
            return None
    return "; ".join(failures) or "what was installed does not start"


def main() -> None:
    """Say in one line which browser the tests will use, or why they will do without."""
    browser = find_browser()
    if browser is None and (named := os.environ.get(NAMED)):
        reason = f"{NAMED} is {named!r}, which does not run here"
    else:
        reason = None if browser else install_browser()
        browser = browser or find_browser()
    if browser:
        print(f"Browser tests: {browser}")
    else:
        print(f"Browser tests: skipped, because there is no Chromium or Chrome ({reason}). Install one, or name one in {NAMED}.")


def run_limited(command: list[str], seconds: float) -> str | None:
    """Run `command` with its output on the terminal; None when it succeeded, otherwise what became of it.

    It gets a process group of its own, so that a time limit or Ctrl+C also ends the helpers it started.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    except OSError as problem:
        return f"did not start: {problem.strerror}"
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"took longer than {seconds:g} s"
    finally:
        _end(process)
    return f"failed with status {status}" if status else None


def _ways() -> Iterator[tuple[str, list[list[str]], float]]:
    """What can be tried here, in order: a title, the commands, and a time limit for each command in seconds."""
    playwright = [sys.executable, "-m", "playwright"]
    yield "fetching Playwright's Chromium", [[*playwright, "install", "chromium"]], FETCH_SECONDS
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return
    own = _playwrights_own()
    if own and Path(own).is_file():
        yield "installing the libraries that it needs", [[*playwright, "install-deps", "chromium"]], INSTALL_SECONDS
    apt = ["apt-get", "-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=15"]
    install = [*apt, "install", "-y", "--no-install-recommends", "chromium"]
    yield "installing Debian's Chromium", [[*apt, "update"], install], INSTALL_SECONDS


def _if_it_starts(candidate: str) -> Path | None:
    """The file that `candidate`, a path or a command, stands for, if it can say its version.

    A file alone is no proof: on Ubuntu `chromium-browser` may only be a script that says to install a snap, and a downloaded
    Chromium may lack a library of the system.
    """
    path = shutil.which(candidate)
    if path is None or _answer([path, "--version"]) is None:
        return None
    return Path(path).absolute()


def _playwrights_own() -> str | None:
    """Where Playwright keeps, or would keep, the browser that it downloads; None without Playwright.

    Asked in a process of its own: inside a running event loop, as in some tests, Playwright's plain interface refuses to work.
    """
    answer = _answer([sys.executable, "-c", _WHERE_PLAYWRIGHT_KEEPS_ITS_OWN])
    return answer.strip() or None if answer else None


def _answer(command: list[str]) -> str | None:
    """What `command` prints, or None if it fails, is not there, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=ASK_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _end(process: subprocess.Popen) -> None:
    """End `process` and what it started, if it still runs: asked first, then without asking."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    main()
