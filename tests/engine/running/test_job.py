from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.pictures.made import Made, Provenance
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.events import Cancelled, Developing, End, Event, Failed, Finished, Notice, Preview, Queued
from engine.running.job import Job, Watcher
from tests.fake_device import SAFETY

IMAGE, OTHER = Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1), "white")
MADE = Made(Recipe(), Provenance("", "cpu", "float32", 1, False, 9, 9, 1.0), "0" * 64, Path("picture.png"))
ENDS: dict[str, Callable[[int], Event]] = {
    "finished": lambda cell: Finished(cell, MADE),
    "failed": lambda cell: Failed(cell, "no"),
    "cancelled": lambda cell: Cancelled(cell, 1, 9),
}
CELLS = 3


def plan_of(cells: int, *, exact: bool = False) -> Plan:
    return Plan(tuple(Cell(index, Recipe(seed=index)) for index in range(cells)), exact)


def job_of(cells: int = CELLS) -> Job:
    return Job(plan_of(cells))


def of_cell(events: list[Event], cell: int) -> list[Event]:
    return [event for event in events if not isinstance(event, Notice) and event.cell == cell]


def check_grammar(events: list[Event], cells: int = CELLS) -> None:
    """Queued* Preview* Developing* and exactly one end for every cell, steps increasing, nothing after the last end."""
    for cell in range(cells):
        *before, end = of_cell(events, cell)
        assert isinstance(end, End)
        order = [kind for kind, _ in groupby(map(type, before))]
        assert order == [kind for kind in (Queued, Preview, Developing) if kind in order]
        steps = [event.step for event in before if isinstance(event, Preview)]
        assert all(earlier < later for earlier, later in pairwise(steps))
    assert isinstance(events[-1], End)


moves = st.lists(
    st.one_of(
        st.tuples(st.just("preview"), st.integers(0, CELLS - 1), st.booleans()),
        st.tuples(st.just("notice"), st.none() | st.integers(0, CELLS - 1), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, CELLS - 1), st.sampled_from(list(ENDS))),
        st.tuples(st.just("read"), st.none(), st.none()),
        st.tuples(st.just("late"), st.none(), st.none()),
        st.tuples(st.just("grow"), st.none(), st.integers(0, 2)),
    ),
    max_size=60,
)
examples = settings(max_examples=120, deadline=None, derandomize=True, database=None)


class Played:
    """A job to which moves were published, with what should be known of it at every moment."""

    def __init__(self, queued: set[int]):
        self.cells = CELLS
        self.job = job_of()
        self.published: list[Event] = []
        self.ends: dict[int, Event] = {}
        self.steps: dict[int, int] = {}
        self.images: dict[int, Image.Image] = {}
        self.watcher = self.job.watch()
        self.read: list[Event] = []
        for cell in sorted(queued):
            self.publish(Queued(cell, ahead=cell))

    def publish(self, event: Event) -> None:
        """Also notes it, when it comes before its cell's end and the job's."""
        version, counts = self.job.standing().version, event.cell not in self.ends and len(self.ends) < self.cells
        if counts:
            self.published.append(event)
            if isinstance(event, End):
                self.ends[event.cell] = event
            elif isinstance(event, Preview) and event.image is not None:
                self.images[event.cell] = event.image
        self.job.publish(event)
        assert self.job.standing().version == version + counts

    def play(self, move: tuple) -> None:
        kind, cell, detail = move
        if kind == "preview":
            self.steps[cell] = self.steps.get(cell, 0) + 1
            self.publish(Preview(cell, self.steps[cell], 99, Image.new("RGB", (1, 1)) if detail else None, "linear" if detail else ""))
        elif kind == "notice":
            self.publish(Notice(f"notice {len(self.published)}", cell, progress=0.5 if detail else None))
        elif kind == "end":
            self.publish(ENDS[detail](cell))
        elif kind == "read":
            self.read += self.watcher.take(timeout=0)
        elif kind == "grow":
            self.grow(detail)
        else:
            self.check_late_watcher()

    def grow(self, more: int) -> None:
        """By so many cells. Those who watched to the last end have heard it, and watch anew."""
        had_ended = self.job.done
        new = self.job.grow(plan_of(self.cells + more))
        assert [cell.index for cell in new] == list(range(self.cells, self.cells + more))
        self.cells += more
        assert self.job.done == (had_ended and not more)
        if had_ended and more:
            self.read += self.watcher.take(timeout=0)
            assert self.watcher.ended
            self.watcher = self.job.watch()
            self.watcher.take(timeout=0)

    def check_late_watcher(self) -> None:
        events = self.job.watch().take(timeout=0)
        assert [e for e in events if isinstance(e, Notice)] == [e for e in self.published if isinstance(e, Notice) and e.progress is None]
        assert {e.cell: e for e in events if isinstance(e, End)} == self.ends
        for cell in set(range(self.cells)) - set(self.ends):
            last = of_cell(self.published, cell)[-1:]
            told = of_cell(events, cell)
            assert [type(event) for event in told] == [type(event) for event in last]
            if told and isinstance(told[0], Preview):
                assert (told[0].step, told[0].image) == (last[0].step, self.images.get(cell))


def lasting(events: list, kinds: type | tuple[type, ...]) -> list:
    """The events of these kinds that even a slow reader hears: all but the progress of a download."""
    return [event for event in events if isinstance(event, kinds) and getattr(event, "progress", None) is None]


def test_a_slow_reader_hears_the_newest_progress_only() -> None:
    job = job_of()
    watcher = job.watch()
    for part in (0.1, 0.5, 0.9):
        job.publish(Notice("downloading", progress=part))
    assert [event.progress for event in watcher.take(timeout=0)] == [0.9]


@examples
@given(moves=moves, queued=st.sets(st.integers(0, CELLS - 1)))
def test_whatever_is_published_every_reader_hears_the_grammar(moves: list[tuple], queued: set[int]) -> None:
    played = Played(queued)
    for move in moves:
        played.play(move)
    for cell in range(played.cells):
        played.publish(Finished(cell, MADE))
        played.publish(Preview(cell, 1000, 1000))
        played.publish(Notice("after the end", cell))
    played.publish(Notice("after all ends"))
    played.read += played.watcher.take(timeout=0)

    check_grammar(played.read, played.cells)
    assert played.watcher.ended
    assert played.job.done
    for kinds in (End, Notice, Queued):
        assert lasting(played.read, kinds) == lasting(played.published, kinds)
    check_grammar(list(played.job.events()), played.cells)
    assert played.job.wait() == played.ends


@examples
@given(moves=moves)
def test_a_reader_who_is_always_there_misses_nothing(moves: list[tuple]) -> None:
    played = Played(set())
    for move in moves:
        played.play(move)
        played.read += played.watcher.take(timeout=0)
    assert played.read == played.published


def test_a_slow_reader_finds_the_newest_preview_and_every_other_event() -> None:
    job = job_of(1)
    watcher = job.watch()
    job.publish(Queued(0, 3))
    for step in range(1, 100):
        job.publish(Preview(0, step, 100, IMAGE))
        job.publish(Notice(f"notice {step}"))
    job.publish(Finished(0, MADE))
    events = watcher.take(timeout=0)
    assert [event.step for event in events if isinstance(event, Preview)] == [99]
    assert sum(isinstance(event, Notice) for event in events) == 99
    assert events[0] == Queued(0, 3)
    assert events[-1] == Finished(0, MADE)


def test_a_slow_reader_finds_each_cells_newest_place_in_the_line() -> None:
    watcher = Watcher()
    for event in (Queued(0, 9), Queued(1, 10), Queued(0, 4), Notice("between"), Queued(0, 1)):
        watcher.put(event)
    assert watcher.take(timeout=0) == [Queued(0, 1), Queued(1, 10), Notice("between")]


def test_a_cell_that_takes_no_more_steps_tells_none() -> None:
    job = job_of(2)
    for event in (Preview(0, 1, 9, IMAGE), Developing(0, 1, 9), Preview(0, 2, 9, OTHER), Queued(0, 3)):
        job.publish(event)
    standing = job.standing()
    assert (standing.cells[0], standing.developing) == (Preview(0, 1, 9, IMAGE), {0})
    assert job.watch().take(timeout=0) == [Preview(0, 1, 9, IMAGE), Developing(0, 1, 9)]
    job.publish(Cancelled(0, 2, 9))
    assert job.standing().developing == frozenset()
    assert job.watch().take(timeout=0) == [Cancelled(0, 2, 9)]


def test_only_cells_that_have_begun_can_be_said_to_be_stopping() -> None:
    job = job_of(4)
    for event in (Queued(0, 0), Preview(1, 3, 9), Preview(2, 4, 9), Preview(3, 9, 9), Finished(3, MADE)):
        job.publish(event)
    job.stopping({0, 2, 3})
    assert job.standing().developing == {2}
    job.stopping()
    assert job.standing().developing == {1, 2}


def test_a_preview_comes_after_what_was_published_before_it() -> None:
    watcher = Watcher()
    for event in (Preview(0, 1, 9), Notice("between"), Preview(0, 2, 9)):
        watcher.put(event)
    assert watcher.take(timeout=0) == [Notice("between"), Preview(0, 2, 9)]


def test_a_step_without_a_picture_keeps_the_unseen_picture_before_it() -> None:
    watcher = Watcher()
    watcher.put(Preview(0, 1, 9, IMAGE, "vae"))
    watcher.put(Preview(0, 2, 9))
    (event,) = watcher.take(timeout=0)
    assert (event.step, event.image, event.method) == (2, IMAGE, "vae")
    watcher.put(Preview(0, 3, 9))
    (event,) = watcher.take(timeout=0)
    assert (event.step, event.image) == (3, None)


def test_a_late_watcher_sees_the_last_picture_even_when_the_newest_step_has_none() -> None:
    job = job_of(2)
    job.publish(Preview(0, 1, 9, OTHER, "vae"))
    job.publish(Preview(0, 2, 9, IMAGE, "linear"))
    job.publish(Preview(0, 3, 9))
    job.publish(Preview(0, 4, 9))
    (event,) = job.watch().take(timeout=0)
    assert (event.step, event.image, event.method) == (4, IMAGE, "linear")


def test_a_late_watcher_hears_notices_first_then_previews_then_ends() -> None:
    job = job_of(3)
    for event in (Queued(2, 1), Failed(0, "no"), Preview(1, 5, 9, IMAGE), Notice("words were cut", 1), Notice("loading", progress=0.4)):
        job.publish(event)
    expected = [Notice("words were cut", 1), Queued(2, 1), Preview(1, 5, 9, IMAGE), Failed(0, "no")]
    assert job.watch().take(timeout=0) == expected


def test_an_ended_job_tells_a_new_watcher_its_ends_and_is_sealed() -> None:
    job = job_of(2)
    job.publish(Preview(1, 1, 9))
    job.publish(Finished(1, MADE))
    job.publish(Cancelled(0, 1, 9))
    watcher = job.watch()
    assert not watcher.ended
    assert watcher.take(timeout=0) == [Finished(1, MADE), Cancelled(0, 1, 9)]
    assert watcher.ended
    assert watcher.take() == []


def test_only_the_first_end_of_a_cell_counts() -> None:
    job = job_of(2)
    for event in (Cancelled(0, 1, 9), Finished(0, MADE), Preview(0, 2, 9), Failed(1, "no")):
        job.publish(event)
    assert job.wait() == {0: Cancelled(0, 1, 9), 1: Failed(1, "no")}


def test_done_and_ended_follow_the_cells() -> None:
    job = job_of(2)
    assert not job.done
    job.publish(Failed(1, "no"))
    assert (job.end(0), job.end(1) is not None, job.done) == (None, True, False)
    job.publish(Finished(0, MADE))
    assert job.done


def test_who_has_left_hears_nothing_more() -> None:
    job = job_of(1)
    watcher, other = job.watch(), job.watch()
    job.leave(watcher)
    job.leave(watcher)
    job.publish(Notice("still here?"))
    assert watcher.take(timeout=0) == []
    assert other.take(timeout=0) == [Notice("still here?")]


def test_closing_the_events_leaves_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(1)
    job.publish(Notice("first"))
    left: list[Watcher] = []
    monkeypatch.setattr(job, "leave", left.append)
    events = job.events()
    assert next(events) == Notice("first")
    events.close()
    assert len(left) == 1


def test_taking_waits_as_long_as_asked() -> None:
    start = time.perf_counter()
    assert Watcher().take(timeout=0.05) == []
    assert time.perf_counter() - start > 0.04


def test_a_waiting_reader_wakes_at_the_first_event() -> None:
    job = job_of(1)
    taken: list[Event] = []
    watcher = job.watch()
    reader = threading.Thread(target=lambda: taken.extend(watcher.take(timeout=SAFETY)), daemon=True)
    reader.start()
    job.publish(Notice("wake up"))
    reader.join(SAFETY)
    assert taken == [Notice("wake up")]


def test_jobs_are_told_apart() -> None:
    assert job_of().id != job_of().id
    assert job_of() != job_of()


def publish_all(job: Job, cell: int, steps: int) -> None:
    job.publish(Queued(cell, 0))
    for step in range(1, steps + 1):
        job.publish(Preview(cell, step, steps, IMAGE if step % 3 == 0 else None))
    job.publish(Notice(f"cell {cell} is about to end", cell))
    job.publish(Finished(cell, MADE))
    job.publish(Preview(cell, steps + 1, steps))


def test_threads_that_publish_and_threads_that_read_agree() -> None:
    cells, readers, steps = 4, 6, 150
    job = job_of(cells)
    heard: list[list[Event]] = [[] for _ in range(readers)]

    def read(log: list[Event], pause: float) -> None:
        for event in job.events():
            log.append(event)
            time.sleep(pause)

    threads = [threading.Thread(target=read, args=(log, 0.002 * (place % 2)), daemon=True) for place, log in enumerate(heard[:4])]
    threads += [threading.Thread(target=publish_all, args=(job, cell, steps), daemon=True) for cell in range(cells)]
    threads += [threading.Thread(target=read, args=(log, 0), daemon=True) for log in heard[4:]]
    for thread in threads:
        thread.start()
    ends = job.wait()
    for thread in threads:
        thread.join(SAFETY)

    assert not any(thread.is_alive() for thread in threads)
    assert ends == {cell: Finished(cell, MADE) for cell in range(cells)}
    for log in heard:
        check_grammar(log, cells)
        assert {event.cell for event in log if isinstance(event, Notice)} == set(range(cells))


# Growing.


def test_who_watches_a_running_job_is_told_of_the_cells_it_grows_by() -> None:
    job = job_of(1)
    watcher = job.watch()
    assert job.grow(plan_of(3)) == plan_of(3).cells[1:]
    for cell in (1, 0):
        job.publish(Finished(cell, MADE))
    assert not job.done
    job.publish(Finished(2, MADE))
    assert watcher.take(timeout=0) == [Finished(cell, MADE) for cell in (1, 0, 2)]
    assert (watcher.ended, job.done, list(job.wait())) == (True, True, [1, 0, 2])


def test_a_job_that_has_ended_can_grow_and_is_watched_anew() -> None:
    job = job_of(1)
    old = job.watch()
    job.publish(Finished(0, MADE))
    assert job.done
    job.grow(plan_of(2))
    assert not job.done
    new = job.watch()
    job.publish(Failed(1, "no"))
    assert old.take(timeout=0) == [Finished(0, MADE)]
    assert new.take(timeout=0) == [Finished(0, MADE), Failed(1, "no")]
    assert (old.ended, new.ended, job.done) == (True, True, True)
    assert job.wait() == {0: Finished(0, MADE), 1: Failed(1, "no")}


def test_who_waits_for_a_job_waits_for_the_cells_it_grew_by() -> None:
    job, waited = job_of(1), []
    reader = threading.Thread(target=lambda: waited.append(job.wait()), daemon=True)
    reader.start()
    job.grow(plan_of(2))
    job.publish(Finished(0, MADE))
    reader.join(timeout=0.05)
    assert reader.is_alive()
    job.publish(Finished(1, MADE))
    reader.join(SAFETY)
    assert [list(ends) for ends in waited] == [[0, 1]]


def test_what_had_been_said_stays_said_when_a_job_grows() -> None:
    job = job_of(2)
    for event in (Notice("words were cut", 0), Finished(0, MADE), Preview(1, 3, 9, IMAGE)):
        job.publish(event)
    job.grow(plan_of(3))
    job.publish(Queued(2, 1))
    expected = [Notice("words were cut", 0), Queued(2, 1), Preview(1, 3, 9, IMAGE), Finished(0, MADE)]
    assert job.watch().take(timeout=0) == expected
    assert job.made() == {0: MADE}


def test_growing_by_nothing_leaves_a_job_that_has_ended_ended() -> None:
    job = job_of(1)
    job.publish(Finished(0, MADE))
    assert job.grow(plan_of(1)) == ()
    assert job.done
    assert job.watch().take(timeout=0) == [Finished(0, MADE)]


def test_cells_of_a_grown_plan_may_stand_in_any_order() -> None:
    job = job_of(2)
    cells = plan_of(4).cells
    assert [cell.index for cell in job.grow(Plan(cells[::-1]))] == [3, 2]
    assert job.plan.cells == cells[::-1]


@pytest.mark.parametrize(
    "plan",
    [plan_of(1), Plan(()), plan_of(3, exact=True), Plan((*plan_of(1).cells, Cell(1, Recipe(seed=9)), Cell(2, Recipe(seed=2))))],
    ids=["a cell is missing", "empty", "exact now", "a cell has changed"],
)
def test_a_plan_that_does_not_hold_the_old_one_is_refused(plan: Plan) -> None:
    job = job_of(2)
    before = job.standing()
    with pytest.raises(ValueError, match="can only grow"):
        job.grow(plan)
    assert job.standing() == before


def test_finished_cells_come_in_the_order_in_which_they_were() -> None:
    job = job_of(4)
    for event in (Finished(2, MADE), Failed(1, "no"), Finished(0, MADE, reused=True), Cancelled(3, 1, 9, MADE)):
        job.publish(event)
    assert job.finished() == [Finished(2, MADE), Finished(0, MADE, reused=True)]


# Standing.


def test_a_standing_is_a_moment_and_its_version_tells_moments_apart() -> None:
    job = job_of(2)
    standings = [job.standing()]
    loading = Notice("loading", progress=0.4)
    for event in (Queued(0, 1), Notice("words were cut", 0), loading, Preview(0, 1, 9, IMAGE), Finished(0, MADE)):
        job.publish(event)
        standings.append(job.standing())
    assert [standing.version for standing in standings] == [0, 1, 2, 3, 4, 5]
    assert [standing.loading for standing in standings] == [None, None, None, loading, None, None]
    assert [list(standing.cells.values()) for standing in standings] == [
        [], [Queued(0, 1)], [Queued(0, 1)], [Queued(0, 1)], [Preview(0, 1, 9, IMAGE)], [Finished(0, MADE)],
    ]  # fmt: skip
    assert standings[-1].notices == (Notice("words were cut", 0),)
    assert job.standing() == standings[-1]


def test_what_comes_after_a_cells_end_makes_no_new_standing() -> None:
    job = job_of(2)
    job.publish(Finished(0, MADE))
    before = job.standing()
    for event in (Preview(0, 9, 9), Notice("late", 0), Failed(0, "no")):
        job.publish(event)
    assert job.standing() == before


def test_growing_makes_a_new_standing() -> None:
    job = job_of(1)
    job.publish(Finished(0, MADE))
    before = job.standing()
    job.grow(plan_of(2))
    after = job.standing()
    assert (after.version, after.plan, after.cells) == (before.version + 1, plan_of(2), before.cells)
    assert before.plan == plan_of(1)


def test_a_standing_says_at_which_version_each_cell_changed() -> None:
    job = job_of(3)
    for event in (Queued(0, 0), Queued(1, 1), Notice("to all"), Preview(0, 1, 9), Notice("cut", 1), Finished(0, MADE), Preview(0, 2, 9)):
        job.publish(event)
    assert job.standing().changed == {0: 6, 1: 5}
    job.grow(plan_of(4))
    job.publish(Queued(3, 0))
    assert job.standing().changed == {0: 6, 1: 5, 3: 8}


def test_a_standing_sets_apart_what_had_ended_before_the_job_grew() -> None:
    job = job_of(2)
    job.publish(Finished(0, MADE))
    job.grow(plan_of(3))
    assert job.standing().earlier == set()  # one run still
    for cell in (1, 2):
        job.publish(Finished(cell, MADE))
    assert job.standing().earlier == set()
    job.grow(plan_of(4))
    job.publish(Finished(3, MADE))
    assert job.standing().earlier == {0, 1, 2}


def test_a_standing_counts_the_seconds_since_the_first_step_of_its_run_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("engine.running.job.time", SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    job = job_of(1)
    job.publish(Queued(0, 0))
    assert job.standing().seconds == 0
    job.publish(Preview(0, 1, 9, elapsed=2.0))
    now[0] += 5
    job.publish(Preview(0, 2, 9, elapsed=7.0))
    assert job.standing().seconds == 7
    job.publish(Finished(0, MADE))
    job.grow(plan_of(2))
    now[0] += 60
    assert job.standing().seconds == 0
    job.publish(Preview(1, 1, 9, elapsed=0.5))
    assert job.standing().seconds == 0.5
