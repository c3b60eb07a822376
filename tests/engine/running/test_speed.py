"""Speed: what was measured, and the straight lines drawn through it."""

from __future__ import annotations

import threading

import pytest

from engine.running.speed import SAMPLES, Speed, seconds_shown
from tests.fake_device import SAFETY

PIXELS = 512 * 512


def measured(*calls: tuple[int, float], pixels: int = PIXELS) -> Speed:
    """A Speed told (width, seconds) of calls of the model "it"."""
    speed = Speed()
    for width, seconds in calls:
        speed.called("it", pixels, width, seconds)
    return speed


def test_a_measured_call_takes_what_it_took() -> None:
    speed = measured((2, 1.0), (8, 2.5))
    assert (speed.of_call("it", PIXELS, 2), speed.of_call("it", PIXELS, 8)) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("width", "seconds"),
    [
        (1, 1.0),  # below the first: rows share much of a call's cost
        (3, 1.25), (4, 1.5), (6, 2.0), (8, 2.5),
        (12, 5.5), (16, 8.5),
        (20, 11.5), (32, 20.5),  # beyond the last: the last piece goes on
    ],
)  # fmt: skip
def test_between_and_beyond_measured_widths_there_is_a_line(width: int, seconds: float) -> None:
    speed = measured((16, 8.5), (2, 1.0), (8, 2.5))  # in no order
    assert speed.of_call("it", PIXELS, width) == pytest.approx(seconds)


@pytest.mark.parametrize(("width", "seconds"), [(1, 3.0), (4, 3.0), (8, 6.0), (2, 3.0)])
def test_one_point_is_a_floor_below_and_grows_in_proportion_above(width: int, seconds: float) -> None:
    assert measured((4, 3.0)).of_call("it", PIXELS, width) == pytest.approx(seconds)


def test_a_wider_call_is_never_foreseen_to_take_less() -> None:
    speed = measured((2, 3.0), (4, 1.0))  # noise of a busy machine
    assert speed.of_call("it", PIXELS, 8) == speed.of_call("it", PIXELS, 4) == 1.0


def test_other_sizes_go_by_their_pixels_from_the_nearest_measured_one() -> None:
    speed = measured((2, 1.0))
    speed.called("it", 4 * PIXELS, 2, 8.0)
    assert speed.of_call("it", PIXELS // 4, 2) == pytest.approx(0.25)
    assert speed.of_call("it", 2 * PIXELS, 2) == pytest.approx(2.0)
    assert speed.of_call("it", 3 * PIXELS, 2) == pytest.approx(6.0)
    assert speed.of_call("it", 8 * PIXELS, 2) == pytest.approx(16.0)


def test_a_model_that_was_not_measured_is_not_guessed() -> None:
    speed = measured((2, 1.0))
    speed.developed("it", PIXELS, 0.5)
    assert speed.of_call("other", PIXELS, 2) is None
    assert speed.of_picture("other", PIXELS) == 0.0


def test_an_outlier_is_outvoted() -> None:
    assert measured((2, 60.0), (2, 1.0), (2, 1.1)).of_call("it", PIXELS, 2) == 1.1


def test_what_is_long_ago_counts_no_more() -> None:
    speed = measured(*[(2, 1.0)] * 100, *[(2, 5.0)] * SAMPLES)
    assert speed.of_call("it", PIXELS, 2) == 5.0


def test_pictures_go_by_their_pixels_too() -> None:
    speed = Speed()
    for seconds in (9.0, 0.5, 0.5):
        speed.developed("it", PIXELS, seconds)
    assert (speed.of_picture("it", PIXELS), speed.of_picture("it", 4 * PIXELS)) == (0.5, 2.0)


def test_calls_together() -> None:
    speed = measured((2, 1.0), (4, 2.0))
    assert speed.total({("it", PIXELS, 2): 1, ("it", PIXELS, 4): 3, ("it", PIXELS, 3): 1}) == pytest.approx(8.5)
    assert speed.total({}) == 0.0
    assert speed.total({("it", PIXELS, 2): 1, ("other", PIXELS, 2): 1}) is None


def test_it_is_told_and_asked_from_many_threads() -> None:
    speed = Speed()

    def tell(model: str) -> None:
        for width in range(1, 200):
            speed.called(model, PIXELS, width, float(width))
            assert speed.of_call(model, PIXELS, 500) >= 1

    threads = [threading.Thread(target=tell, args=(str(place % 2),)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SAFETY)
    assert [speed.of_call(model, PIXELS, 100) for model in "01"] == [100.0, 100.0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (2.41, "2.4 s"), (9.94, "9.9 s"), (12.4, "12 s"), (60, "1 min 0 s"), (200, "3 min 20 s")]
)
def test_a_time_as_a_person_reads_it(seconds: float, text: str) -> None:
    assert seconds_shown(seconds) == text
