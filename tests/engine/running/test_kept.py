"""Kept: nobody's jobs are forgotten because of what another does, and all of them together have a bound."""

from __future__ import annotations

import pytest
from PIL import Image

from engine.pictures.made import Made, Provenance
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import make_recipe
from engine.running import kept
from engine.running.events import Finished
from engine.running.job import Job
from engine.running.kept import KeptJobs

RECIPE = make_recipe(prompt="an owl", width=64, height=64, steps=4)


def job_of(owner: str = "A", *, cells: int = 1, done: bool = True, pixels: Image.Image | None = None, **changes) -> Job:
    recipe = RECIPE.replace(**changes)
    job = Job(Plan(tuple(Cell(i, recipe) for i in range(cells))), owner)
    if done:
        end(job, pixels)
    return job


def end(job: Job, pixels: Image.Image | None = None) -> None:
    provenance = Provenance("", "cpu", "float32", 2, False, 4, 4, 0.5)
    for cell in job.plan.cells:
        job.publish(Finished(cell.index, Made(cell.recipe, provenance, "", pixels=pixels)))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> KeptJobs:
    """Every job weighs 1; three of one owner and five in all are kept."""
    monkeypatch.setattr(kept, "weight", lambda job: 1)
    monkeypatch.setattr(kept, "OWN_BYTES", 3)
    monkeypatch.setattr(kept, "ALL_BYTES", 5)
    return KeptJobs()


def add(jobs: KeptJobs, owner: str = "A", **options) -> Job:
    job = job_of(owner, **options)
    jobs.add(job)
    return job


def test_a_job_that_goes_on_is_found_by_its_id_at_every_moment(monkeypatch) -> None:
    """Whoever tells of it does not wait for the engine's lock."""
    jobs, job = KeptJobs(), Job(Plan((Cell(0, make_recipe()),)), "owner")
    jobs.add(job)
    found = []
    digest = kept._digest
    monkeypatch.setattr(kept, "_digest", lambda key: found.append(jobs.get(job.id)) or digest(key))
    jobs.add(job)
    assert set(found) == {job}


def test_an_owner_loses_the_oldest_and_nobody_elses(jobs):
    other = add(jobs, "B")
    own = [add(jobs) for _ in range(5)]
    assert jobs.drop_old() == own[:2]
    assert list(jobs) == [other, *own[2:]]
    assert (jobs.of("A"), jobs.of("B"), jobs.of("C")) == (own[2:], [other], [])


def test_beyond_the_total_whoever_has_most_loses_the_oldest(jobs):
    small = [add(jobs, owner) for owner in "BCD"]
    own = [add(jobs) for _ in range(3)]
    assert jobs.drop_old() == own[:1]
    assert list(jobs) == [*small, *own[1:]]


def test_many_small_owners_are_bounded_too(jobs):
    everybody = [add(jobs, str(number)) for number in range(9)]
    assert jobs.drop_old() == everybody[:4]
    assert jobs.drop_old() == []


def test_jobs_under_way_are_never_dropped_and_do_not_count(jobs):
    under_way = [add(jobs, done=False) for _ in range(9)]
    finished = [add(jobs) for _ in range(3)]
    assert jobs.drop_old() == []
    assert jobs.under_way() == under_way
    end(under_way[0])
    assert jobs.under_way() == under_way[1:]
    assert jobs.drop_old() == under_way[:1]
    assert list(jobs) == [*under_way[1:], *finished]


def test_a_job_that_goes_on_is_the_newest_again(jobs):
    own = [add(jobs) for _ in range(3)]
    jobs.drop_old()
    own[0].grow(Plan((*own[0].plan.cells, Cell(1, RECIPE))))
    jobs.add(own[0])
    assert jobs.under_way() == own[:1]
    end(own[0])
    newest = add(jobs)
    assert jobs.drop_old() == own[1:2]
    assert jobs.of("A") == [own[2], own[0], newest]


def test_the_last_job_stays_however_much_it_weighs(jobs, monkeypatch):
    monkeypatch.setattr(kept, "OWN_BYTES", 0)
    own = [add(jobs) for _ in range(2)]
    assert jobs.drop_old() == own[:1]
    assert list(jobs) == own[1:]


def test_a_dropped_job_is_found_by_nothing(jobs):
    dropped, *others = [add(jobs) for _ in range(4)]
    jobs.drop_old()
    assert dropped not in jobs
    assert (jobs.get(dropped.id), jobs.of_key(dropped.key)) == (None, None)
    assert [jobs.get(job.id) for job in others] == [jobs.of_key(job.key) for job in others] == others
    jobs.remove(dropped)
    assert list(jobs) == others


@pytest.mark.parametrize("key", ["", "nothing", "ünï", "\ud800", "x" * 100_000])
def test_another_key_finds_nothing(jobs, key):
    add(jobs)
    assert jobs.of_key(key) is None


def test_a_job_weighs_what_its_cells_and_unsaved_pictures_take():
    assert kept.weight(job_of(cells=100)) > 50 * kept.weight(job_of())
    assert kept.weight(job_of(prompt="x" * 3000)) - kept.weight(job_of(prompt="x")) == 2999
    pixels = Image.new("RGB", (1024, 512))
    assert kept.weight(job_of(pixels=pixels)) - kept.weight(job_of()) == len(pixels.tobytes())


def test_a_days_work_of_one_visitor_is_kept_beside_anothers_sheet():
    jobs = KeptJobs()
    sheet = add(jobs, "B", cells=100)
    own = [add(jobs) for _ in range(500)]
    assert jobs.drop_old() == []
    assert list(jobs) == [sheet, *own]
