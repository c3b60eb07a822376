"""Darkroom's page: flags -> engine -> page -> launch.

Also the app_file of a Hugging Face Space: run without flags there, or asked for its `demo`.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
# gradio's queue keeps statistics that nobody here can see: after each event, a table of the last 10,000.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

import gradio as gr
import gradio.http_server

from engine.errors import EngineError, NotSaved
from engine.local import DATA_DIR, PRESETS, open_engine
from engine.pictures.outputs import check_folder
from engine.running.engine import Engine
from ui.page import build_page
from ui.theme import page_assets

USER = "darkroom"
"""The name that goes with a password made up for a shared link."""

FIRST_PORT, PORTS = gradio.http_server.INITIAL_PORT_VALUE, gradio.http_server.TRY_NUM_PORTS
"""Where a page without --port is put: the first free one of these."""

SESSIONS = 200
"""Opened pages that gradio remembers at a time; each takes 0.3 MB. Of one that was forgotten the newest sheet counts as shown."""

NO_LINK = "No public link could be had: the tunnel needs the internet, which cannot be reached. The page runs here all the same."


def main(arguments: Sequence[str] | None = None) -> int:
    """Opens the page and serves it until interrupted. Returns the exit code: 2 for flags that cannot be followed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        auth = credentials(options.auth, options.share)
        check_address(options.host, options.port)
        engine = open_engine(model=options.model, device=options.device, dtype=options.dtype, data_dir=options.data_dir)
        try:
            check_folder(engine.outputs)
        except NotSaved as error:  # a page is of use all the same: each picture can be downloaded
            print(f"darkroom: {error}", file=sys.stderr)
        threading.Thread(target=engine.library.reconcile, name="library", daemon=True).start()
        page = open_page(engine)
        engine.warm()
        serve(page, engine, options, auth)
    except EngineError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 2
    return 0


def open_page(engine: Engine) -> gr.Blocks:
    """The page, with a folder of its own for gradio's temporary files: the one it takes by itself is shared by all
    users of a machine, and belongs to whoever came first."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="darkroom-")
        atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    return build_page(engine, PRESETS)


def serve(page: gr.Blocks, engine: Engine, options: argparse.Namespace, auth: tuple[str, str] | None) -> None:
    """Serves the page; says where it is, and why there is no public link when one was wanted. Raises EngineError without a port."""
    try:
        _, address, public = page.queue(max_size=64).launch(
            server_name=options.host, server_port=options.port, share=options.share, auth=auth,
            allowed_paths=[str(engine.outputs)], max_file_size="40mb", prevent_thread_lock=True, quiet=True,
            state_session_capacity=SESSIONS, ssr_mode=False, enable_monitoring=False, footer_links=[], run_history=False, **page_assets(),
        )  # fmt: skip
    except OSError:
        engine.close()
        raise EngineError(_taken(options.port)) from None
    print(f"Darkroom is open at {address}", flush=True)
    if options.share:
        print(f"Public link: {public}" if public else NO_LINK, flush=True)
        if auth and not options.auth:
            print(f"Log in as {auth[0]} with password {auth[1]}", flush=True)
    try:
        page.block_thread()
    finally:
        engine.close()


def check_address(host: str, port: int | None) -> None:
    """Raises EngineError when no page can be served there: gradio would try a hundred ports for some seconds each, or show a traceback."""
    try:
        places = socket.getaddrinfo(host.strip("[]"), port or 0, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, place in places:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just left is free
                probe.bind(place)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            raise EngineError(_taken(port)) from None
        if code == errno.EACCES:
            raise EngineError(f"Port {port} may not be used by this account: choose one from 1024 on with --port.") from None
        own = "--host takes one of its own, such as 127.0.0.1, or 0.0.0.0 for all of them"
        raise EngineError(f"This machine has no address “{host[:100]}”: {own}.") from None


def _taken(port: int | None) -> str:
    if port is None:
        return f"None of the ports from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free: choose another with --port."
    return f"Port {port} is taken by another program: choose another with --port, or leave it out for the first free one from {FIRST_PORT}."


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text[:20]}")
    return port


def credentials(auth: str | None, share: bool) -> tuple[str, str] | None:
    """USER:PASSWORD as a pair; a made-up password for a link shared without one. Raises EngineError when it is no pair."""
    if auth is None:
        return (USER, secrets.token_urlsafe(9)) if share else None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise EngineError("--auth takes USER:PASSWORD, both not empty.")
    return user, password


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app.py", description="Darkroom: type a prompt, watch the picture develop.")
    parser.add_argument("--model", help="start with this model: a name in presets/models.toml, or a folder saved by diffusers")
    parser.add_argument("--device", help="cuda or cpu; default: cuda where there is one")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="the network's number format")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, metavar="DIR", help="where outputs/ is; default: beside app.py")
    # GRADIO_SERVER_NAME: how a Space says that its page must listen on all addresses.
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    parser.add_argument("--host", default=host, help="address to listen on; 0.0.0.0 for the local network; default: 127.0.0.1")
    parser.add_argument("--port", type=_port, help=f"default: the first free one from {FIRST_PORT}")
    parser.add_argument("--share", action="store_true", help="make a public link (with a password)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this; --share alone makes a password up")
    return parser


def __getattr__(name: str) -> gr.Blocks:
    """`demo`, where gradio's own tools look for it: the page with all defaults, built when it is asked for."""
    if name != "demo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    demo = globals()["demo"] = open_page(open_engine())
    return demo


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a service's stop ends as Ctrl+C does: work stopped, files removed
    sys.exit(main())
