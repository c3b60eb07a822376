"""Waiting for something to happen to a job: without a thread, and not for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.jobs import at_step, ends, plan_of, wait_for
from ui.sheet import stream
from ui.sheet.stream import changed


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The naps between two looks; none is slept."""
    taken: list[float] = []

    async def nap(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(stream.asyncio, "sleep", nap)
    return taken


def test_what_has_changed_already_is_told_at_once(engine, device, naps):
    device.hold()
    job = engine.submit(plan_of(engine, 2))
    assert asyncio.run(changed(job, -1)).plan is job.plan
    device.let()
    wait_for(job, at_step(1))
    assert asyncio.run(changed(job, 0)).version == job.version > 0
    assert naps == []


def test_the_next_change_is_waited_for(engine, device, monkeypatch):
    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    seen = job.version

    async def nap(seconds: float) -> None:
        device.let_go()
        ends(job)

    monkeypatch.setattr(stream.asyncio, "sleep", nap)
    standing = asyncio.run(changed(job, seen))
    assert standing.version > seen
    assert [type(event).__name__ for event in standing.cells.values()] == ["Finished"]


def test_nothing_for_a_while_is_told_too(engine, device, naps, monkeypatch):
    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    clock = iter(range(100))
    monkeypatch.setattr(stream.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(job, "standing", lambda: "where it stands")
    assert asyncio.run(changed(job, job.version)) == "where it stands"
    assert len(naps) == stream.HOLD - 1


def test_many_wait_without_a_thread_each(engine, device):
    """40 threads are all that gradio has: a hundred pages that wait took all of them."""
    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    seen = job.version

    async def crowd() -> tuple[int, int]:
        waiting = [asyncio.create_task(changed(job, seen)) for _ in range(100)]
        await asyncio.sleep(0)
        threads = threading.active_count()
        device.let_go()
        return threads, len([standing for standing in await asyncio.gather(*waiting) if standing.version > seen])

    before = threading.active_count()
    assert asyncio.run(crowd()) == (before, 100)
