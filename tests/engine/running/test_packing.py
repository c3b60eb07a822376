"""Packing: who shares a call."""

from __future__ import annotations

import math

import pytest

from engine.recipes.families import classifier_free
from engine.recipes.recipe import Recipe, Style
from engine.running.forecast import count_calls
from engine.running.packing import PROBED_AFTER, Load, Packer, choose_bucket, first_origin, load_of, row_names


def image(seed: int = 0, **changes) -> Recipe:
    return Recipe(**{"seed": seed, "steps": 3, "scheduler": "Euler", "guidance_scale": 5, "width": 64, "height": 64, **changes})


@pytest.mark.parametrize(
    ("rows", "least", "bucket"),
    [
        (1, 1, 1), (2, 1, 2), (3, 1, 4), (4, 1, 4), (5, 1, 4), (6, 1, 8), (7, 1, 8), (8, 1, 8),
        (9, 1, 8), (11, 1, 8), (12, 1, 16), (16, 1, 16), (17, 1, 16), (24, 1, 32), (1, 2, 2), (2, 2, 2),
    ],
)  # fmt: skip
def test_choose_bucket(rows, least, bucket):
    assert choose_bucket(rows, least) == bucket


def test_an_origin_that_is_given_counts_whatever_it_is() -> None:
    needs = classifier_free(image())
    assert load_of(image(), needs, 0, 0, origin=0).rows == row_names(needs.rows, 0)
    assert load_of(image(), needs, 0, 0).rows == row_names(needs.rows, first_origin(image()))
    assert load_of(image(), needs, 5, 1, origin=0).rows == row_names(needs.rows, 5)


def test_nothing_waits_and_there_is_no_call() -> None:
    assert Packer().pick({}) is None


def test_rows_of_one_name_are_computed_once() -> None:
    waiting = {i: Load(("same", ("own", i)), (8, 8), 64) for i in range(3)}
    call = Packer(max_rows=4).pick(waiting)
    assert (call.images, call.rows, call.width) == ((0, 1, 2), ("same", ("own", 0), ("own", 1), ("own", 2)), 4)


def test_an_owners_jobs_take_turns_whatever_their_images_have_come_to() -> None:
    early = {("early", i): Load((("early", i),), (8, 8), 64, job="early", behind=5) for i in range(4)}
    late = {("late", i): Load((("late", i),), (8, 8), 64, job="late") for i in range(4)}
    packer = Packer(max_rows=2)
    assert {job for job, _ in packer.pick({**early, **late}).images} == {"early", "late"}
    one_by_one = Packer(max_rows=1)
    assert [one_by_one.pick({**early, **late}).images[0][0] for _ in range(4)] == ["early", "late", "early", "late"]


def test_a_visitor_with_many_jobs_gets_no_more_than_one_with_one() -> None:
    many = {("many", i): Load((("many", i),), (8, 8), 64, owner="many", job=str(i)) for i in range(6)}
    one = {("one", i): Load((("one", i),), (8, 8), 64, owner="one", job="its own") for i in range(6)}
    picked = Packer(max_rows=6).pick({**many, **one}).images
    assert sorted(owner for owner, _ in picked) == ["many"] * 3 + ["one"] * 3


def owners_served(packer: Packer, waiting: dict, ticks: int) -> list[set[str]]:
    """Whose images took part in each of so many calls, when nobody's are ever done."""
    return [{waiting[key].owner for key in packer.pick(waiting).images} for _ in range(ticks)]


def test_whoever_comes_new_is_served_in_the_next_call_whatever_waits() -> None:
    crowd = {(owner, i): Load(((owner, i),), (8, 8), 64, owner=f"owner {owner}", job="j") for owner in range(32) for i in range(100)}
    packer = Packer(max_rows=4)
    owners_served(packer, crowd, 3)
    crowd["new"] = Load(("new",), (8, 8), 64, owner="a newcomer", job="j")
    assert "a newcomer" in owners_served(packer, crowd, 1)[0]


def test_whoever_was_served_is_served_again_when_all_others_were() -> None:
    """33 owners, four images a call: each is in one call of any nine that follow each other."""
    crowd = {(owner, i): Load(((owner, i),), (8, 8), 64, owner=f"owner {owner}", job="j") for owner in range(33) for i in range(9)}
    served = owners_served(Packer(max_rows=4), crowd, 27)
    for start in range(19):
        assert set.union(*served[start : start + 9]) == {f"owner {owner}" for owner in range(33)}


def test_an_image_that_does_not_fit_leaves_room_for_a_smaller_one() -> None:
    waiting = {"two": Load((1, 2), (8, 8), 64), "two more": Load((3, 4), (8, 8), 64), "one": Load((5,), (8, 8), 64)}
    assert Packer(max_rows=3).pick(waiting).images == ("two", "one")


# How wide calls are.

NATIVE = 512 * 512


def widths(packer: Packer, pixels: int, rows: int = 100, times: int = 1, fits: int = 1000) -> list[int]:
    """The widths of calls one after the other, on a device where calls of more than `fits` rows run out of memory."""
    found = []
    while len(found) < times:
        width = packer.width(pixels, rows, 2, exact=False)
        if width > fits:
            packer.ran_out(pixels, width)
        else:
            packer.went_well(pixels, width)
            found.append(width)
    return found


@pytest.mark.parametrize(
    ("size", "padded", "most"),
    [
        ((512, 512), True, 16), ((256, 256), True, 16), ((1024, 1024), True, 4), ((768, 768), True, 4), ((768, 768), False, 7),
        ((512, 768), True, 8), ((2048, 2048), True, 2), ((2048, 2048), False, 2),
    ],
)  # fmt: skip
def test_the_rows_of_a_call_follow_the_pixels(size, padded, most) -> None:
    """16 rows of 512 x 512 are as many pixels as four of 1024 x 1024; but one image's rows are always run."""
    assert widths(Packer(16, padded=padded, native_pixels=NATIVE), math.prod(size)) == [most]


def test_what_a_plan_costs_follows_the_pixels_as_its_calls_do() -> None:
    packer = Packer(16, native_pixels=64 * 64)
    recipes = [image(seed, width=128) for seed in range(8)]
    assert count_calls(recipes, classifier_free, packer) == {(128 * 64, 8): 6}
    packer.ran_out(128 * 64, 8)
    for alike in (packer, Packer(*packer.rules)):
        assert count_calls(recipes, classifier_free, alike) == {(128 * 64, 4): 12}


def test_running_out_of_memory_narrows_calls_of_that_size_only() -> None:
    packer = Packer(16, native_pixels=NATIVE)
    assert widths(packer, NATIVE, fits=5, times=2) == [4, 4]
    assert widths(packer, NATIVE // 4) == [16]
    assert packer.most_rows(NATIVE) == 4


def test_calls_are_widened_again_after_some_that_went_well() -> None:
    packer = Packer(16, native_pixels=NATIVE)
    assert widths(packer, NATIVE, fits=5, times=PROBED_AFTER) == [4] * PROBED_AFTER
    assert widths(packer, NATIVE, times=3 * PROBED_AFTER) == [8] * PROBED_AFTER + [16] * 2 * PROBED_AFTER
    assert packer.rules == Packer(16, native_pixels=NATIVE).rules


def test_what_never_fits_is_tried_ever_more_seldom() -> None:
    packer, tries = Packer(16, native_pixels=NATIVE), []
    for call in range(30 * PROBED_AFTER):
        while (width := packer.width(NATIVE, 100, 2, exact=False)) > 8:
            packer.ran_out(NATIVE, width)
            tries.append(call)
        packer.went_well(NATIVE, width)
    assert tries == [(2**n - 1) * PROBED_AFTER for n in range(5)]


def test_calls_of_few_images_do_not_show_that_many_fit() -> None:
    packer = Packer(16)
    packer.ran_out(NATIVE, 16)
    assert widths(packer, NATIVE, rows=2, times=10 * PROBED_AFTER) == [2] * 10 * PROBED_AFTER
    assert packer.most_rows(NATIVE) == 8


def test_a_row_is_what_is_told_in_it_and_what_is_shown() -> None:
    assert row_names(("a", "b"), "o") == (("o", "a"), ("o", "b"))


@pytest.mark.parametrize("changes", [{"prompt": "a cat"}, {"negative_prompt": "red"}, {"guidance_scale": 1}, {"style": Style(name="Ink")}])
def test_images_begin_alike_whatever_their_words_and_guidance(changes) -> None:
    assert first_origin(image()) == first_origin(image(**changes))


@pytest.mark.parametrize("changes", [{"seed": 1}, {"scheduler": "DDIM"}, {"steps": 4}, {"width": 72}, {"model": "other"}])
def test_images_begin_differently(changes) -> None:
    assert first_origin(image()) != first_origin(image(**changes))


def test_images_of_different_groups_share_no_call_though_they_have_equally_many_pixels() -> None:
    waiting = {i: Load((i,), ("short", "long")[i % 2], 64) for i in range(4)}
    packer = Packer()
    assert [packer.pick(waiting).images for _ in range(2)] == [(0, 2), (0, 2)]
    del waiting[0], waiting[2]
    assert packer.pick(waiting).images == (1, 3)


def test_an_image_that_is_alone_shares_no_call() -> None:
    needs = classifier_free(image())
    waiting = {key: load_of(image(), needs, key, 0, alone=3 if key == "alone" else 0) for key in ("one", "alone", "other")}
    packer = Packer(max_rows=16)
    assert [packer.pick(waiting).images, packer.pick({"alone": waiting["alone"]}).images] == [("one", "other"), ("alone",)]
    assert packer.pick({"alone": waiting["alone"]}).width == 3
    assert Packer(max_rows=2).pick({"alone": waiting["alone"]}).width == 2, "what does not fit is not tried"
