"""python app.py: its flags, what it says, and whom it lets in."""

from __future__ import annotations

import gc
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

import app
from engine.errors import EngineError
from engine.local import open_catalog
from engine.running.engine import Engine
from tests.conftest import ROOT
from tests.fake_device import SAFETY, FakeDevice
from tests.gradio_loop import in_a_loop

SECONDS = 90
"""How long the page may take to answer on a slow, shared machine; here it takes about five."""

Visit = Callable[..., list[Any]]


@pytest.mark.parametrize("auth", ["ann:secret", "ann:with:colons", "ann: "])
def test_a_pair_is_split_at_the_first_colon(auth: str) -> None:
    assert app.credentials(auth, share=False) == tuple(auth.split(":", 1))
    assert app.credentials(auth, share=True) == tuple(auth.split(":", 1))


@pytest.mark.parametrize("auth", ["", ":", "ann", "ann:", ":secret"])
def test_what_is_no_pair_is_refused(auth: str) -> None:
    with pytest.raises(EngineError, match=r"^--auth takes USER:PASSWORD, both not empty\.$"):
        app.credentials(auth, share=True)


def test_a_page_of_ones_own_asks_for_no_password() -> None:
    assert app.credentials(None, share=False) is None


def test_a_shared_page_gets_a_new_password_each_time() -> None:
    pairs = {app.credentials(None, share=True) for _ in range(5)}
    assert {user for user, _ in pairs} == {app.USER}
    assert len(pairs) == 5
    assert min(len(password) for _, password in pairs) >= 12


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--auth", "ann"], "--auth takes USER:PASSWORD, both not empty."),
        (["--model", "nothing"], "There is no model “nothing” here; there is starter, sd15."),
        (["--model", "no/such/folder"], "There is no folder"),
        (["--host", "192.0.2.7"], "This machine has no address “192.0.2.7”: --host takes one of its own, such as 127.0.0.1, or 0.0.0.0"),
        (["--host", "a..b"], "This machine has no address “a..b”"),
    ],
)
def test_bad_flags_end_with_2_and_a_sentence(capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str) -> None:
    assert app.main(flags) == 2
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert line.startswith("darkroom: ")
    assert sentence in line
    assert out == ""


@pytest.mark.parametrize("flags", [["--port", "many"], ["--port", "0"], ["--port", "65536"], ["--dtype", "int3"], ["--nothing"]])
def test_flags_that_cannot_be_read_end_with_2(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        app.main(flags)
    assert caught.value.code == 2
    assert "usage: app.py" in capsys.readouterr().err


# The page, served in this process over a device without a model.


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Visit:
    """Runs app.main(flags) and looks at the page while it is open; what was seen."""
    engines: list[Engine] = []

    def open_fake(*, model: str | None, data_dir: Path, **_: object) -> Engine:
        engines.append(Engine(open_catalog(model), FakeDevice, data_dir))
        return engines[-1]

    monkeypatch.setattr(app, "open_engine", open_fake)

    def visited(look: Callable[[str], Any], *flags: str) -> list[Any]:
        seen: list[Any] = []

        def block_thread(page: gr.Blocks) -> None:
            seen.append(look(page.local_url))
            page.close(verbose=False)

        monkeypatch.setattr(gr.Blocks, "block_thread", block_thread)
        assert in_a_loop(lambda: app.main(["--data-dir", str(tmp_path), *flags])) == 0
        with pytest.raises(EngineError, match="closing"):
            engines[-1].warm()
        return seen

    return visited


def statuses(address: str) -> dict[str, int]:
    return {place: httpx.get(address + place, timeout=SAFETY).status_code for place in ("", "config", "gradio_api/info")}


def test_the_page_opens_and_says_where(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    [(address, seen)] = visit(lambda address: (address, statuses(address)))
    assert seen == {"": 200, "config": 200, "gradio_api/info": 200}
    assert capsys.readouterr().out == f"Darkroom is open at {address}\n"


def test_the_page_carries_the_look_and_asks_nobody(visit: Visit) -> None:
    [reply] = visit(lambda address: httpx.get(address, timeout=SAFETY))
    assert "darkroom-theme" in reply.text
    assert not re.search(r"fonts\.(googleapis|gstatic)\.com/css", reply.text)


def test_a_page_with_a_password_lets_nobody_in_without_it(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    def log_in(address: str) -> list[int]:
        codes = [httpx.get(f"{address}config", timeout=SAFETY).status_code]
        for password in ("wrong", "secret"):
            with httpx.Client(timeout=SAFETY) as visitor:
                codes.append(visitor.post(f"{address}login", data={"username": "ann", "password": password}).status_code)
                codes.append(visitor.get(f"{address}config").status_code)
        return codes

    assert visit(log_in, "--auth", "ann:secret") == [[401, 400, 401, 200, 200]]
    assert "secret" not in capsys.readouterr().out


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("the network cannot be reached")

    monkeypatch.setattr("gradio.networking.setup_tunnel", refuse)


@pytest.mark.usefixtures("no_network")
def test_a_link_that_cannot_be_had_is_explained_and_the_page_opens(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    [seen] = visit(statuses, "--share")
    assert (seen[""], seen["config"]) == (200, 401)
    out = capsys.readouterr().out
    assert app.NO_LINK in out
    assert re.search(r"^Log in as darkroom with password \S{12,}$", out, re.MULTILINE)


@pytest.mark.usefixtures("no_network")
def test_the_password_that_was_made_up_opens_the_page(
    visit: Visit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "made-up-word")

    def log_in(address: str) -> int:
        return httpx.post(f"{address}login", data={"username": "darkroom", "password": "made-up-word"}, timeout=SAFETY).status_code

    assert visit(log_in, "--share") == [200]
    assert "Log in as darkroom with password made-up-word" in capsys.readouterr().out


@pytest.mark.usefixtures("no_network")
def test_a_password_of_ones_own_is_not_printed(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit(lambda address: httpx.get(f"{address}config", timeout=SAFETY).status_code, "--share", "--auth", "ann:secret") == [401]
    assert "secret" not in capsys.readouterr().out


def test_a_link_is_told(visit: Visit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **_: "http://abc.gradio.live")
    visit(statuses, "--share")
    assert "Public link: https://abc.gradio.live" in capsys.readouterr().out


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_is_taken_is_told(taken_port: int, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--host", host, "--port", str(taken_port)]) == 2
    told = f"Port {taken_port} is taken by another program: choose another with --port, or leave it out for the first free one from 7860."
    assert capsys.readouterr().err == f"darkroom: {told}\n"


def test_a_port_that_is_taken_at_the_last_moment_is_told(
    visit: Visit, taken_port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "check_address", lambda host, port: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # gradio leaves the socket with which it tried
        with pytest.raises(AssertionError):
            visit(statuses, "--port", str(taken_port))
        gc.collect()
    assert f"darkroom: Port {taken_port} is taken by another program" in capsys.readouterr().err


def test_without_a_free_port_the_ports_that_were_tried_are_told() -> None:
    assert app._taken(None) == "None of the ports from 7860 to 7959 is free: choose another with --port."


def test_a_host_may_be_given_by_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert app._parser().parse_args([]).host == "127.0.0.1"
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert app._parser().parse_args([]).host == "0.0.0.0"
    assert app._parser().parse_args(["--host", "127.0.0.2"]).host == "127.0.0.2"


# The real thing.


def test_python_app_serves_the_page(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}/", tmp_path / "app.log"
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", str(tmp_path), "--device", "cpu"]
    with log.open("w") as stream:
        server = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        deadline = time.monotonic() + SECONDS
        while f"Darkroom is open at {address}" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        reply = httpx.get(address, timeout=SAFETY)
        assert (reply.status_code, "Darkroom" in reply.text) == (200, True)
    finally:
        server.terminate()
        server.wait(timeout=SECONDS)
    assert "Traceback" not in log.read_text()
