"""tests/setup_browser.py: what it finds, what it tries, and that it never stands in the way of the other tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import setup_browser
from tests.setup_browser import COMMANDS, find_browser, main, run_limited


def program(path: Path, body: str) -> Path:
    """An executable shell script at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def chromium(path: Path) -> Path:
    return program(path, "echo Chromium 156")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The PATH, one empty folder, of a user's machine without any browser and without a network."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("DARKROOM_BROWSER", raising=False)
    monkeypatch.setattr(setup_browser, "APPLICATIONS", (str(tmp_path / "Applications/Google Chrome"),))
    monkeypatch.setattr(setup_browser, "_playwrights_own", lambda: str(tmp_path / "ms-playwright/chrome"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


@pytest.fixture
def tried(monkeypatch):
    """The commands that were run, in order. None really runs: each is looked up in `tried.effects` by its last words, or fails."""

    class Tried(list):
        effects = {}  # noqa: RUF012  a fresh class for each test

    commands = Tried()

    def pretend(command, seconds):
        assert seconds <= 300
        commands.append(" ".join(command[1:]))
        for words, effect in commands.effects.items():
            if commands[-1].endswith(words):
                effect()
                return None
        return "failed with status 100"

    monkeypatch.setattr(setup_browser, "run_limited", pretend)
    return commands


def test_nothing_is_found_where_nothing_is(machine):
    assert find_browser() is None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_browser_in_the_path_is_found_as_soon_as_it_is_there(machine, command):
    assert find_browser() is None
    chromium(machine / command)
    assert find_browser() == machine / command


@pytest.mark.parametrize("place", ["Applications/Google Chrome", "ms-playwright/chrome"])
def test_a_browser_outside_the_path_is_found(machine, tmp_path, place):
    chromium(tmp_path / place)
    assert find_browser() == tmp_path / place


def test_a_stub_that_only_asks_for_a_snap_is_passed_over(machine, tmp_path):
    program(machine / "chromium-browser", "echo 'requires the chromium snap to be installed' >&2; exit 1")
    assert find_browser() is None
    chromium(machine / "google-chrome")
    assert find_browser() == machine / "google-chrome"


def test_a_browser_that_hangs_is_passed_over(machine, monkeypatch):
    monkeypatch.setattr(setup_browser, "ASK_SECONDS", 0.2)
    program(machine / "chromium", f"exec {shutil.which('sleep', path=os.defpath)} 60")
    assert find_browser() is None


@pytest.mark.parametrize("name", ["{0}/my browser", "my-browser"])
def test_the_browser_named_in_the_environment_comes_first(machine, monkeypatch, name):
    chromium(machine / "chromium")
    named = chromium(machine / name.format(machine).rpartition("/")[2])
    monkeypatch.setenv("DARKROOM_BROWSER", name.format(machine))
    assert find_browser() == named


def test_a_wrong_name_in_the_environment_is_not_replaced_by_another_browser(machine, monkeypatch, tried, capsys):
    chromium(machine / "chromium")
    monkeypatch.setenv("DARKROOM_BROWSER", "none")
    assert find_browser() is None
    main()
    assert "DARKROOM_BROWSER is 'none', which does not run here" in capsys.readouterr().out
    assert tried == []


def test_where_playwright_keeps_its_own_can_be_asked_in_a_running_event_loop():
    import asyncio

    async def ask():
        return setup_browser._playwrights_own()

    own = asyncio.run(ask())
    assert own is not None
    assert Path(own).is_absolute()


def test_without_playwright_there_is_no_browser_of_its_own(monkeypatch):
    monkeypatch.setattr(setup_browser, "_WHERE_PLAYWRIGHT_KEEPS_ITS_OWN", "import no_such_module")
    assert setup_browser._playwrights_own() is None


def test_nothing_is_installed_where_a_browser_is(machine, tried, capsys):
    chromium(machine / "chromium")
    main()
    assert capsys.readouterr().out == f"Browser tests: {machine / 'chromium'}\n"
    assert tried == []


def test_a_user_gets_playwrights_download(machine, tried, tmp_path, capsys):
    tried.effects["playwright install chromium"] = lambda: chromium(tmp_path / "ms-playwright/chrome")
    main()
    assert capsys.readouterr().out.endswith(f"Browser tests: {tmp_path / 'ms-playwright/chrome'}\n")
    assert tried == ["-m playwright install chromium"]


def test_a_user_without_a_network_is_told_why_there_are_no_browser_tests(machine, tried, capsys):
    program(machine / "apt-get", "")
    main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert "skipped" in last
    assert "(fetching Playwright's Chromium failed with status 100)" in last
    assert tried == ["-m playwright install chromium"]


def test_root_on_debian_gets_the_package(machine, monkeypatch, tried, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(machine / "apt-get", "")
    tried.effects = {"update": lambda: None, "--no-install-recommends chromium": lambda: chromium(machine / "chromium")}
    main()
    assert capsys.readouterr().out.endswith(f"Browser tests: {machine / 'chromium'}\n")
    assert [words.split()[-1] for words in tried] == ["chromium", "update", "chromium"]


def test_root_on_debian_gets_the_libraries_that_a_download_lacks(machine, monkeypatch, tried, tmp_path, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(machine / "apt-get", "")
    own = tmp_path / "ms-playwright/chrome"
    tried.effects = {
        "playwright install chromium": lambda: program(own, "echo 'libnss3.so: cannot open shared object file' >&2; exit 127"),
        "playwright install-deps chromium": lambda: chromium(own),
    }
    main()
    assert capsys.readouterr().out.endswith(f"Browser tests: {own}\n")
    assert len(tried) == 2


def test_root_without_a_network_is_told_everything_that_failed(machine, monkeypatch, tried, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(machine / "apt-get", "")
    main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert "Playwright's Chromium failed with status 100; installing Debian's Chromium failed with status 100" in last
    assert len(tried) == 2  # no installing after a failed update


def test_a_command_has_a_time_limit_that_also_ends_what_it_started(tmp_path):
    alive = tmp_path / "alive"
    script = f"(while :; do echo >> '{alive}'; sleep 0.05; done) & wait"
    alive.touch()
    assert run_limited(["/bin/sh", "-c", script], 0.5) == "took longer than 0.5 s"
    size = alive.stat().st_size
    time.sleep(0.3)
    assert alive.stat().st_size == size


def test_a_command_that_fails_says_how():
    assert run_limited(["/bin/sh", "-c", "exit 3"], 5) == "failed with status 3"
    assert run_limited(["/no/such/program"], 5) == "did not start: No such file or directory"
    assert run_limited(["/bin/sh", "-c", "exit 0"], 5) is None


def test_it_runs_as_a_program_and_succeeds_without_a_browser():
    done = subprocess.run(
        [sys.executable, "-m", "tests.setup_browser"],
        cwd=Path(setup_browser.__file__).parent.parent, env={**os.environ, "DARKROOM_BROWSER": "none"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("Browser tests: skipped")
