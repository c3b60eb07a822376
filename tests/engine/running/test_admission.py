"""Admission: who is let in, and when. Expected values follow from the rule as it is stated, worked out by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.recipes.plan import Cell
from engine.recipes.recipe import Recipe
from engine.running.admission import UNDER_WAY, Admission
from engine.running.messages import Begin
from engine.running.packing import ADMITTED_A_TICK
from engine.running.task import Task

ROOM = 1 << 40
NUMBERS = itertools.count()


def tasks_of(owner: str, count: int, model: str = "m", **changes) -> list[Task]:
    """The tasks of one new job."""
    recipes = [Recipe(model=model, seed=seed, **changes) for seed in range(count)]
    order = Begin(f"job {next(NUMBERS)}", owner, tuple(Cell(i, recipe) for i, recipe in enumerate(recipes)))
    return [Task(order, cell, lambda message: None) for cell in order.cells]


def a_byte(task: Task) -> int:
    return 1


def owners(tasks: list[Task]) -> list[str]:
    return [task.owner for task in tasks]


@pytest.fixture
def line() -> Admission:
    return Admission()


def let_in(line: Admission, rounds: int, room: int = ROOM, cost=a_byte) -> list[Task]:
    return [task for _ in range(rounds) for task in line.admit("m", room, cost)]


def test_a_newcomer_is_let_in_at_once_whatever_waits_and_is_under_way(line) -> None:
    for owner in range(32):
        line.join(tasks_of(f"owner {owner}", 100))
    let_in(line, 40)
    line.join(tasks_of("a newcomer", 1))
    assert "a newcomer" in owners(line.admit("m", ROOM, a_byte))


def test_owners_take_turns_and_so_do_an_owners_jobs(line) -> None:
    first, second = tasks_of("A", 3), tasks_of("A", 3)
    line.join(first)
    line.join(second)
    line.join(tasks_of("B", 3))
    admitted = line.admit("m", ROOM, a_byte)
    assert sorted(owners(admitted[:2])) == ["A", "B"]
    assert owners(admitted).count("B") == 3
    assert {task.job for task in admitted if task.owner == "A"} == {first[0].job, second[0].job}
    assert [task.cell.index for task in admitted if task.job == first[0].job] == [0, 1, 2]


def test_no_more_are_begun_a_tick_than_leave_time_for_the_network(line) -> None:
    line.join(tasks_of("A", 40))
    assert len(line.admit("m", ROOM, a_byte)) == ADMITTED_A_TICK


def test_what_is_under_way_is_bounded_in_images(line) -> None:
    line.join(tasks_of("A", 1000))
    assert len(let_in(line, 100)) == UNDER_WAY
    assert len(line) == 1000 - UNDER_WAY


def test_what_is_under_way_is_bounded_in_bytes_and_goes_on_as_room_comes_free(line) -> None:
    line.join(tasks_of("A", 10))
    admitted = let_in(line, 5, room=30, cost=lambda task: 10)
    assert len(admitted) == 3
    line.release(admitted[0])
    line.release(admitted[0])  # twice does no harm
    assert len(let_in(line, 5, room=30, cost=lambda task: 10)) == 1


def test_an_image_larger_than_all_room_is_let_in_alone(line) -> None:
    line.join(tasks_of("A", 2))
    assert len(let_in(line, 3, room=5, cost=lambda task: 10)) == 1


def test_names_alone_get_nobody_more_than_twice_the_room(line) -> None:
    """Whoever makes up a new name for each large picture fills no memory with them."""
    for name in range(20):
        line.join(tasks_of(f"name {name}", 1))
    assert len(let_in(line, 5, room=50, cost=lambda task: 10)) == 10


def test_what_comes_free_is_saved_up_for_a_newcomers_larger_image(line) -> None:
    """Twice the room is held by small ones; each that ends would make way for the next small one for ever."""
    sizes = {"small": 10, "large": 40}

    def cost(task: Task) -> int:
        return sizes[task.owner.split()[0]]

    for name in range(30):
        line.join(tasks_of(f"small {name}", 1))
    under_way = let_in(line, 5, room=50, cost=cost)
    line.join(tasks_of("large one", 1))
    for ended in under_way[:4]:
        assert owners(line.admit("m", 50, cost)) == []
        line.release(ended)
    assert owners(line.admit("m", 50, cost)) == ["large one"]


def test_whoever_came_first_leaves_the_others_their_part(line) -> None:
    """A holds all there is; B comes and gets half as much, not only the one that everybody may have."""
    line.join(tasks_of("A", 1000))
    let_in(line, 100)
    line.join(tasks_of("B", 1000))
    assert owners(let_in(line, 100)).count("B") == UNDER_WAY // 2


def test_only_images_of_the_resident_model_are_let_in(line) -> None:
    line.join([*tasks_of("A", 2, "other"), *tasks_of("B", 2)])
    assert owners(line.admit("m", ROOM, a_byte)) == ["B", "B"]
    assert line.waits_for("other")
    assert not line.waits_for("m")


def test_the_model_wanted_is_that_of_the_job_that_waits_longest_for_another(line) -> None:
    assert line.wanted("m") is None
    line.join([*tasks_of("A", 2), *tasks_of("B", 1, "later"), *tasks_of("C", 1, "latest")])
    assert line.wanted("m") == "later"
    assert line.wanted(None) == "m"


def test_a_jobs_second_model_is_not_wanted_before_all_of_its_first_were_let_in(line) -> None:
    mixed = tasks_of("A", 2)
    order = mixed[0].order
    other = Task(order, Cell(2, Recipe(model="other")), lambda message: None)
    line.join([*mixed, other])
    assert line.wanted("m") is None
    line.admit("m", ROOM, a_byte)
    assert line.wanted("m") == "other"


def test_what_leaves_the_line_leaves_in_the_order_in_which_it_came(line) -> None:
    one, two = tasks_of("A", 3), tasks_of("B", 3)
    line.join([*one, *two])
    assert line.leave(lambda task: task.cell.index != 1) == [one[0], one[2], two[0], two[2]]
    assert len(line) == 2


def test_places_count_what_is_under_way_and_the_turns_before(line) -> None:
    line.join(tasks_of("A", 1))
    line.admit("m", ROOM, a_byte)
    line.join(tasks_of("B", 5))
    line.admit("m", 1, a_byte)  # B is let in once; four of B's wait
    line.join(tasks_of("C", 3))
    places = {task.owner: ahead for task, ahead in line.places()}
    assert places == {"C": 2, "B": 3}  # two are under way, and C, who has had nothing yet, comes before B


def test_a_line_that_is_empty_remembers_nobody(line) -> None:
    line.join(tasks_of("A", 3))
    for task in line.admit("m", ROOM, a_byte):
        line.release(task)
    assert (len(line), line.owners, line.jobs()) == (0, set(), [])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 3), st.integers(1, 20), st.sampled_from("mn")),
        st.tuples(st.just("admit"), st.sampled_from("mn"), st.integers(0, 60)),
        st.tuples(st.just("release"), st.integers(0, 30)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
    ),
    max_size=30,
)


@given(steps=STEPS)
def test_no_image_is_lost_or_let_in_twice(steps) -> None:
    line, joined, under_way, gone = Admission(), [], [], []
    for kind, *what in steps:
        if kind == "join":
            tasks = tasks_of(f"owner {what[0]}", what[1], what[2])
            joined += tasks
            line.join(tasks)
        elif kind == "admit":
            admitted = line.admit(what[0], what[1], lambda task: 7)
            assert all(task.model == what[0] for task in admitted)
            under_way += admitted
        elif kind == "release" and under_way:
            task = under_way.pop(what[0] % len(under_way))
            line.release(task)
            gone.append(task)
        elif kind == "leave":
            gone += line.leave(lambda task, wanted=what[0]: task.cell.index == wanted)
        waiting = [task for task in joined if task not in under_way and task not in gone]
        assert len(line) == len(waiting)
        assert line.owners == {task.owner for task in [*waiting, *under_way]}
        assert len(line) == len(joined) - len(under_way) - len(gone)
    rest = line.leave(lambda task: True)
    assert sorted(map(id, [*rest, *under_way, *gone])) == sorted(map(id, joined))
