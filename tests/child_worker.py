"""A worker in a process of its own that speaks only in orders and messages; its device stays with the test, which holds it back."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.library.library import Library
from engine.pictures.made import DeviceFacts
from engine.recipes.catalog import Catalog, ModelSpec
from engine.running.device import Device, Key, Report
from engine.running.messages import Message, Order, Tell
from engine.running.worker import Worker

ATTRIBUTES = {"kind", "model", "packer", "width", "preview_seconds", "room", "kept_bytes"}

SAFETY = 20.0
"""Seconds after which a child that does not end is ended, so that a broken test ends."""

PROCESSES = multiprocessing.get_context("forkserver")  # a new one takes 20 ms: all that a worker imports is there already
PROCESSES.set_forkserver_preload([__name__])


class ChildWorker:
    """engine.running.messages.Link to a Worker in a child process."""

    def __init__(self, open_device: Callable[[], Device], catalog: Catalog, folder: Callable[[], Path], library: Library, tell: Tell):
        self._line, line = PROCESSES.Pipe()
        self._calls, calls = PROCESSES.Pipe()
        self._sending = threading.Lock()
        self._process = PROCESSES.Process(target=run_worker, args=(line, calls, catalog, folder, library), daemon=True)
        self._process.start()
        line.close()
        calls.close()
        self._reader = threading.Thread(target=self._read, args=(tell,), name="messages", daemon=True)
        self._reader.start()
        threading.Thread(target=self._serve, args=(open_device,), name="device", daemon=True).start()

    def send(self, order: Order) -> None:
        with self._sending:
            try:
                self._line.send(order)
            except OSError:
                raise EngineError("The worker's process has ended.") from None

    def close(self) -> None:
        with self._sending:
            self._line.send(None)
        self._reader.join(SAFETY)
        self._process.terminate()  # nothing, where it has ended as it should
        self._process.join()
        self._line.close()

    def _read(self, tell: Tell) -> None:
        message: Message | None
        with suppress(EOFError, OSError):  # the child was ended
            while (message := self._line.recv()) is not None:
                tell(message)

    def _serve(self, open_device: Callable[[], Device]) -> None:
        """What the child asks of its device, each call in a thread of its own: one may be held back."""
        sending, opened = threading.Lock(), []

        def say(*words: Any) -> None:
            with sending:
                self._calls.send(words)

        def answer(ticket: int, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            try:
                if name == "open":
                    opened.append(open_device())
                    value = None
                elif name == "load":
                    value = opened[0].load(*arguments, partial(say, "report", ticket))
                elif name == "facts":
                    value = opened[0].facts(*arguments).result()
                else:
                    value = getattr(opened[0], name)
                    value = value if name in ATTRIBUTES else value(*arguments, **options)
                say("answer", ticket, value, None)
            except BaseException as error:  # noqa: BLE001 - the child's to deal with
                say("answer", ticket, None, error)

        with ThreadPoolExecutor(32) as pool, self._calls:
            while True:
                try:
                    call = self._calls.recv()
                except (EOFError, OSError):  # the child has ended
                    return
                pool.submit(answer, *call)


class RemoteDevice:
    """engine.running.device.Device in the child: every call goes to the test's process and waits for its answer."""

    def __init__(self, calls: Connection):
        self._calls = calls
        self._sending = threading.Lock()
        self._tickets = itertools.count()
        self._answers: dict[int, Future[Any]] = {}
        self._reports: dict[int, Report] = {}
        self._settling = ThreadPoolExecutor(8)
        threading.Thread(target=self._read, daemon=True).start()
        self._call("open")

    def __getattr__(self, name: str) -> Any:
        return self._call(name) if name in ATTRIBUTES else partial(self._call, name)

    def load(self, spec: ModelSpec, report: Report) -> Any:
        return self._ask("load", (spec,), {}, report).result()

    def facts(self, key: Key | None = None) -> Future[DeviceFacts]:
        return self._ask("facts", (key,), {})

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self._ask(name, arguments, options).result()

    def _ask(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any], report: Report | None = None) -> Future[Any]:
        ticket, answer = next(self._tickets), Future()
        self._answers[ticket] = answer
        if report is not None:
            self._reports[ticket] = report
        with self._sending:
            self._calls.send((ticket, name, arguments, options))
        return answer

    def _read(self) -> None:
        while True:
            try:
                kind, ticket, *rest = self._calls.recv()
            except (EOFError, OSError):
                return
            if kind == "report":
                self._reports[ticket](*rest)
                continue
            # In threads of their own: whoever waits for an answer may ask the next thing in it.
            self._settling.submit(settle, self._answers.pop(ticket), *rest)


def settle(answer: Future[Any], value: Any, error: BaseException | None) -> None:
    answer.set_result(value) if error is None else answer.set_exception(error)


def run_worker(line: Connection, calls: Connection, catalog: Catalog, folder: Callable[[], Path], library: Library) -> None:
    """The child: takes orders until None comes."""
    sending = threading.Lock()

    def tell(message: Message | None) -> None:
        with sending:
            line.send(message)

    worker = Worker(partial(RemoteDevice, calls), catalog, folder, library, tell)
    order: Order | None
    while (order := line.recv()) is not None:
        worker.send(order)
    worker.close()
    library.close()
    tell(None)
