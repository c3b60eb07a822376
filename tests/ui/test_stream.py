"""Following a job at the page's own pace."""

from __future__ import annotations

import time

import pytest

from tests.engine.test_worker import at_step, ends, plan_of, running, wait_for
from tests.fake_device import FakeDevice
from ui.stream import FRAME, follow


def test_something_is_shown_before_anything_has_happened(engine, device):
    device.hold()
    views = follow(engine.submit(plan_of(engine, 2)))
    assert [cell.state for cell in next(views).cells] == ["waiting", "waiting"]
    views.close()


def test_the_last_view_is_the_end(engine):
    *_, last = follow(engine.submit(plan_of(engine, 3)))
    assert last.ended
    assert [cell.state for cell in last.cells] == ["finished"] * 3


def test_a_job_that_has_ended_is_told_in_one_batch(engine):
    job = engine.submit(plan_of(engine, 3))
    ends(job)
    first, last = follow(job)
    assert (first.ended, last.ended) == (False, True)


def test_a_fast_job_is_shown_ten_times_a_second_at_most(tmp_path):
    device = FakeDevice(tick_seconds=0.004)
    with running(tmp_path, device) as engine:
        started = time.monotonic()
        views = list(follow(engine.submit(plan_of(engine, steps=100))))
        seconds = time.monotonic() - started
    assert len(device.calls("tick")) == 100
    assert 3 <= len(views) <= seconds / FRAME + 3
    steps = [view.cells[0].step for view in views]
    assert steps == sorted(steps)
    assert steps[-1] == 100


def test_no_time_is_lost_after_the_end(engine):
    job = engine.submit(plan_of(engine))
    ends(job)
    started = time.monotonic()
    list(follow(job))
    assert time.monotonic() - started < FRAME


def test_nothing_is_shown_while_nothing_happens(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, steps=2))
    views = follow(job)
    seen = [next(views)]
    device.let()
    wait_for(job, at_step(1))
    while seen[-1].cells[0].step < 1:
        seen.append(next(views))
    device.let()
    [last] = views
    assert last.ended


@pytest.mark.parametrize("leave", [lambda views: views.close(), lambda views: list(views)], ids=["early", "at the end"])
def test_nobody_watches_after_leaving(engine, leave):
    job = engine.submit(plan_of(engine))
    views = follow(job)
    next(views)
    leave(views)
    assert job._watchers == []


def test_leaving_stops_the_watching_and_not_the_job(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine))
    views = follow(job)
    next(views)
    views.close()
    device.let_go()
    assert [type(end).__name__ for end in ends(job).values()] == ["Finished"]
