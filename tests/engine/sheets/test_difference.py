from __future__ import annotations

import math
import random
import time
from itertools import pairwise

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InvalidRequest
from engine.sheets.difference import compare


def noise(seed: int, size: tuple[int, int] = (17, 11)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


def with_pixel(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    changed = image.copy()
    changed.putpixel(place, colour)
    return changed


def lightness(colour: tuple[int, ...]) -> float:
    """CIE L* of an sRGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > (6 / 29) ** 3 else y * (29 / 3) ** 3


def heat_of_levels() -> list[tuple[int, ...]]:
    """The heat map's colour of each difference from 0 to 255, when 255 is the largest."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    image = compare(ramp, Image.new("L", (256, 1))).image
    return [image.getpixel((x, 0)) for x in range(256)]


def test_equal_pictures_are_the_same_and_black() -> None:
    found = compare(noise(1), noise(1))
    assert (found.same, found.largest, found.mean, found.part) == (True, 0, 0.0, 0.0)
    assert found.image.mode == "RGB"
    assert found.image.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_one_pixel_is_found_where_it_is() -> None:
    plain = Image.new("RGB", (10, 5), (100, 100, 100))
    found = compare(plain, with_pixel(plain, (7, 2), (97, 100, 120)))
    assert (found.same, found.largest, found.part) == (False, 20, 1 / 50)
    assert found.mean == pytest.approx((3 + 0 + 20) / 150)
    assert found.image.getpixel((7, 2)) == (255, 255, 255)
    assert found.image.getbbox() == (7, 2, 8, 3)


def test_the_signal_to_noise_ratio_is_the_formulas() -> None:
    """10 log10(peak² / MSE), in ITU-T J.340's terms; of two pictures that are off by one level everywhere it is 48.13 dB."""
    one, other = noise(1), noise(2)
    error = numpy.mean((numpy.asarray(one, float) - numpy.asarray(other, float)) ** 2)
    assert compare(one, other).psnr == pytest.approx(10 * numpy.log10(255**2 / error))
    assert compare(Image.new("RGB", (3, 3), (1, 1, 1)), Image.new("RGB", (3, 3), (2, 0, 2))).psnr == pytest.approx(48.1308, abs=1e-4)
    assert compare(one, one).psnr == math.inf


def test_the_least_difference_counts() -> None:
    plain = Image.new("RGB", (64, 64))
    found = compare(plain, with_pixel(plain, (0, 0), (0, 0, 1)))
    assert (found.same, found.largest, found.part) == (False, 1, 1 / 4096)


def test_black_and_white_are_as_far_apart_as_can_be() -> None:
    found = compare(Image.new("RGB", (3, 3)), Image.new("RGB", (3, 3), "white"))
    assert (found.largest, found.mean, found.part, found.same) == (255, 255.0, 1.0, False)


@given(st.integers(0, 1000), st.integers(1001, 2000))
def test_the_figures_are_those_of_the_pixels_and_symmetric(seed: int, other_seed: int) -> None:
    one, other = noise(seed), noise(other_seed)
    found, back = compare(one, other), compare(other, one)
    distances = [abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)]
    pixels = [max(distances[i : i + 3]) for i in range(0, len(distances), 3)]
    assert found.largest == max(pixels)
    assert found.mean == pytest.approx(sum(distances) / len(distances), abs=1e-12)
    assert found.part == pytest.approx(sum(map(bool, pixels)) / len(pixels), abs=1e-12)
    assert (back.largest, back.mean, back.part) == (found.largest, found.mean, found.part)
    assert back.image.tobytes() == found.image.tobytes()


def test_the_heat_map_goes_from_black_by_red_and_yellow_to_white_and_gets_lighter_at_each_level() -> None:
    colours = heat_of_levels()
    assert [colours[0], colours[255]] == [(0, 0, 0), (255, 255, 255)]
    assert {(255, 0, 0), (255, 255, 0)} <= set(colours)
    values = [lightness(colour) for colour in colours]
    assert all(before < after for before, after in pairwise(values))


def test_the_heat_map_is_scaled_to_the_largest_difference() -> None:
    plain = Image.new("RGB", (3, 1))
    faint = with_pixel(with_pixel(plain, (1, 0), (2, 0, 0)), (2, 0), (4, 0, 0))
    strong = with_pixel(with_pixel(plain, (1, 0), (100, 0, 0)), (2, 0), (200, 0, 0))
    assert compare(plain, faint).image.tobytes() == compare(plain, strong).image.tobytes()
    assert (compare(plain, faint).largest, compare(plain, strong).largest) == (4, 200)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1"])
def test_other_modes_are_converted_and_nothing_handed_in_is_changed(mode: str) -> None:
    one, other = noise(1).convert(mode), noise(2)
    before = one.tobytes(), other.tobytes()
    found, in_rgb = compare(one, other), compare(one.convert("RGB"), other)
    assert (found.mean, found.image.tobytes()) == (in_rgb.mean, in_rgb.image.tobytes())
    assert (one.tobytes(), other.tobytes()) == before


def test_pictures_of_two_sizes_are_refused_with_both() -> None:
    with pytest.raises(InvalidRequest, match="512 x 512 and 768 x 512"):
        compare(Image.new("RGB", (512, 512)), Image.new("RGB", (768, 512)))


def test_a_large_picture_takes_no_time_worth_waiting_for() -> None:
    one, other = noise(1, (1024, 1024)), noise(2, (1024, 1024))
    started = time.thread_time()
    compare(one, other)
    assert time.thread_time() - started < 1  # some 30 ms
