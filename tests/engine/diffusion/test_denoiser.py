"""Denoiser: who is in a call, and what one image's trouble does to the others: nothing."""

from __future__ import annotations

import traceback
import weakref
from collections import Counter
from itertools import groupby

import numpy
import pytest
import torch

from engine.diffusion.denoiser import Denoiser, stack
from engine.errors import InvalidRequest, OutOfMemory, SpoiltPicture
from engine.recipes.recipe import Recipe
from engine.running.packing import PROBED_AFTER
from tests.tiny import SIZE, family_of, make_pipeline

POISON = "poison"
"""The prompt of the one image that makes trouble."""


class Watched:
    """A family whose network calls are recorded, and can be made to fail."""

    def __init__(self, family):
        self._family = family
        self.shapes: list[tuple[int, ...]] = []
        self.fault = lambda model_input, conditioning: None
        self.change = lambda output, conditioning: output

    def __getattr__(self, name):
        return getattr(self._family, name)

    def predict(self, model_input, timesteps, conditioning):
        self.fault(model_input, conditioning)
        self.shapes.append(tuple(model_input.shape))
        return self.change(self._family.predict(model_input, timesteps, conditioning), conditioning)

    def poisoned(self, conditioning) -> list[bool]:
        """Which rows belong to the prompt POISON."""
        poison = self._family.encode(POISON)["encoder_hidden_states"][0]
        return [torch.equal(row, poison) for row in conditioning["encoder_hidden_states"]]


@pytest.fixture(scope="module")
def tiny():
    return family_of(make_pipeline())


@pytest.fixture
def family(tiny):
    return Watched(tiny)


def image(seed: int = 0, **changes) -> Recipe:
    return Recipe(**{"seed": seed, "steps": 3, "scheduler": "Euler", "guidance_scale": 5, "width": SIZE, "height": SIZE, **changes})


def finish(denoiser: Denoiser) -> dict:
    """The error, or None, of each image that ended."""
    ends = {}
    while advances := denoiser.tick():
        for advance in advances:
            assert advance.key not in ends, "an image that has ended took part in a tick"
            if advance.done or advance.error:
                ends[advance.key] = advance.error
    return ends


def run(family, recipes: dict, *, exact: bool = False, **options) -> dict:
    denoiser = Denoiser(family, **options)
    trajectories = {key: denoiser.admit(key, recipe, exact=exact) for key, recipe in recipes.items()}
    assert set(finish(denoiser).values()) == {None}
    return {key: one.latents for key, one in trajectories.items()}


def test_nothing_to_do_is_no_call(family):
    assert Denoiser(family).tick() == []
    assert family.shapes == []


def test_a_dropped_image_is_not_part_of_the_next_tick(family):
    denoiser = Denoiser(family)
    for seed in range(3):
        denoiser.admit(seed, image(seed))
    denoiser.tick()
    dropped = denoiser.drop(1)
    assert [advance.key for advance in denoiser.tick()] == [0, 2]
    assert (dropped.step, len(dropped.x0), len(denoiser)) == (1, 1, 2)
    assert denoiser.drop(1) is None


def test_an_admitted_image_is_part_of_the_next_tick(family):
    denoiser = Denoiser(family)
    denoiser.admit("early", image(0))
    denoiser.tick()
    denoiser.admit("late", image(1))
    assert [(advance.key, advance.step) for advance in denoiser.tick()] == [("early", 2), ("late", 1)]


def test_advances_count_network_calls(family):
    denoiser = Denoiser(family)
    denoiser.admit("heun", image(scheduler="Heun", steps=3))
    seen = []
    while advances := denoiser.tick():
        seen += [(advance.step, advance.total, advance.done) for advance in advances]
    assert seen == [(step, 5, step == 5) for step in range(1, 6)]


def test_a_failing_scheduler_fails_its_image_only(family, monkeypatch):
    recipes = {seed: image(seed) for seed in range(4)}
    without = run(family, {key: recipe for key, recipe in recipes.items() if key != 2}, exact=True)
    denoiser = Denoiser(family)
    trajectories = {key: denoiser.admit(key, recipe, exact=True) for key, recipe in recipes.items()}
    denoiser.tick()

    def step(*args, **kwargs):
        raise ZeroDivisionError("a scheduler's bug")

    monkeypatch.setattr(trajectories[2].scheduler, "step", step)
    ends = finish(denoiser)
    assert {key for key, error in ends.items() if error} == {2}
    assert isinstance(ends[2], ZeroDivisionError)
    assert trajectories[2].step == 1
    assert all(torch.equal(trajectories[key].latents, latents) for key, latents in without.items())


def test_conditioning_that_breaks_the_network_fails_its_image_only(family):
    recipes = {seed: image(seed, prompt=POISON if seed == 2 else "a cat") for seed in range(4)}
    without = run(family, {key: recipe for key, recipe in recipes.items() if key != 2}, exact=True)

    def fault(model_input, conditioning):
        if any(family.poisoned(conditioning)):
            raise ValueError("the network chokes")

    family.fault = fault
    denoiser = Denoiser(family)
    trajectories = {key: denoiser.admit(key, recipe, exact=True) for key, recipe in recipes.items()}
    ends = finish(denoiser)
    assert {key for key, error in ends.items() if error} == {2}
    assert all(torch.equal(trajectories[key].latents, latents) for key, latents in without.items())


def test_nan_spoils_its_image_only(family):
    def change(output, conditioning):
        for i, bad in enumerate(family.poisoned(conditioning)):
            if bad:
                output[i] = float("nan")
        return output

    family.change = change
    denoiser = Denoiser(family)
    for seed, prompt in enumerate(("a cat", POISON, "an owl")):
        denoiser.admit(seed, image(seed, prompt=prompt))
    ends = finish(denoiser)
    assert (ends[0], ends[2]) == (None, None)
    assert isinstance(ends[1], SpoiltPicture)
    assert "NaN" in str(ends[1])


def out_of_memory(kind: str) -> Exception:
    if kind == "cuda":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ...")


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@pytest.mark.parametrize("padded", [False, True])
def test_out_of_memory_halves_the_batch_and_loses_nothing(family, kind, padded):
    recipes = {seed: image(seed, guidance_scale=1 if seed == 3 else 5, steps=2 + seed % 3) for seed in range(8)}
    unfaulted = run(family, recipes)

    def fault(model_input, conditioning):
        if len(model_input) > 4 and len(family.shapes) > 1:
            raise out_of_memory(kind)

    family.fault, family.shapes = fault, []
    denoiser = Denoiser(family, max_rows=16, padded=padded)
    trajectories = {key: denoiser.admit(key, recipe) for key, recipe in recipes.items()}
    ends = finish(denoiser)
    assert set(ends.values()) == {None}
    assert ends.keys() == recipes.keys()
    assert denoiser.packer.most_rows(SIZE * SIZE) <= 5  # half of some call's rows; a fifth row is of no use to guided images
    assert family.shapes[0][0] > 8
    assert max(shape[0] for shape in family.shapes[2:]) <= 4
    assert max(float((trajectories[key].latents - unfaulted[key]).abs().max()) for key in recipes) < 1e-3


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_out_of_memory_at_the_smallest_call_fails_that_image(family, kind):
    def fault(model_input, conditioning):
        if model_input.shape[-1] > SIZE // 2:
            raise out_of_memory(kind)

    family.fault = fault
    denoiser = Denoiser(family)
    denoiser.admit("large", image(width=2 * SIZE), owner="A")
    denoiser.admit("small", image(), owner="B")
    ends = finish(denoiser)
    assert ends["small"] is None
    assert isinstance(ends["large"], OutOfMemory)
    assert "64 x 32 does not fit into this device's memory: choose a smaller size." in str(ends["large"])


def test_out_of_memory_at_one_size_narrows_no_other(family):
    def fault(model_input, conditioning):
        if model_input.shape[-1] > SIZE // 2 and len(model_input) > 2:
            raise out_of_memory("cuda")

    family.fault = fault
    denoiser = Denoiser(family)
    for seed in range(4):
        denoiser.admit(("large", seed), image(seed, width=2 * SIZE, steps=2))
        denoiser.admit(("small", seed), image(seed, steps=2), owner="another")
    assert set(finish(denoiser).values()) == {None}
    widths = {side: {shape[0] for shape in family.shapes if shape[-1] == side} for side in (SIZE // 2, SIZE)}
    assert widths == {SIZE // 2: {8}, SIZE: {2}}


@pytest.mark.parametrize("padded", [False, True])
def test_calls_are_as_wide_again_once_there_is_memory_again(family, padded):
    """Somebody else's program held it for a moment."""
    full = True

    def fault(model_input, conditioning):
        if full and len(model_input) > 2:
            raise out_of_memory("cuda")

    family.fault = fault
    denoiser = Denoiser(family, max_rows=8, padded=padded)
    for seed in range(8):
        denoiser.admit(seed, image(seed, steps=2 * PROBED_AFTER))
    for _ in range(3):
        denoiser.tick()
    assert {shape[0] for shape in family.shapes} == {2}
    full = False
    assert set(finish(denoiser).values()) == {None}
    runs = [(width, len(list(calls))) for width, calls in groupby(shape[0] for shape in family.shapes)]
    assert runs[:2] == [(2, PROBED_AFTER), (4, PROBED_AFTER)]
    assert runs[2][0] == 8


def test_exact_that_does_not_fit_names_exact(family):
    def fault(model_input, conditioning):
        if len(model_input) > 4:
            raise out_of_memory("cuda")

    family.fault = fault
    denoiser = Denoiser(family)
    denoiser.admit("exact", image(), exact=True)
    denoiser.admit("fast", image(), owner="another")
    ends = finish(denoiser)
    assert ends["fast"] is None
    assert isinstance(ends["exact"], OutOfMemory)
    assert str(ends["exact"]) == (
        "Exact always computes 8 rows at a time, and at 32 x 32 they do not fit into this device's memory:"
        " switch Exact off, or choose a smaller size."
    )


def test_an_image_alone_after_a_fault_of_its_company_that_does_not_fit_is_told_so(family):
    def fault(model_input, conditioning):
        if len(model_input) > 2:
            raise ValueError("the network chokes")
        if any(family.poisoned(conditioning)):
            raise out_of_memory("cpu")

    family.fault = fault
    denoiser = Denoiser(family)
    for seed in range(2):
        denoiser.admit(seed, image(seed, prompt=POISON if seed else "a cat"))
    ends = finish(denoiser)
    assert ends[0] is None
    assert isinstance(ends[1], OutOfMemory)


def test_a_bug_keeps_its_traceback(family):
    def fault(model_input, conditioning):
        raise ValueError("the network chokes")

    family.fault = fault
    denoiser = Denoiser(family)
    for seed in range(3):
        denoiser.admit(seed, image(seed))
    for error in finish(denoiser).values():
        assert "in fault" in "".join(traceback.format_exception(error))


def test_a_failed_call_pins_no_tensor(family):
    """Out of memory helps only if the failed call's tensors are free when it is tried again."""
    scratches, pinned = [], []

    def fault(model_input, conditioning):
        if len(model_input) > 2:
            scratch = torch.zeros(3)
            scratches.append(weakref.ref(scratch))
            raise out_of_memory("cuda")
        pinned.append(scratches[0]())

    family.fault = fault
    denoiser = Denoiser(family)
    for seed in range(2):
        denoiser.admit(seed, image(seed, steps=1))
    denoiser.tick()
    assert pinned == [None]


def test_owners_take_turns(family):
    denoiser = Denoiser(family, max_rows=2)
    for seed in range(20):
        denoiser.admit(("A", seed), image(seed), owner="A")
    denoiser.tick()
    denoiser.admit(("B", 0), image(99), owner="B")
    order = [denoiser.tick()[0].key[0] for _ in range(6)]
    assert "".join(order).count("B") == 3
    assert "AA" not in "".join(order)


def test_owners_share_a_call_evenly(family):
    denoiser = Denoiser(family, max_rows=8)
    for owner, first_seed in (("A", 0), ("B", 100)):
        for seed in range(6):
            denoiser.admit((owner, seed), image(first_seed + seed), owner=owner)
    assert Counter(advance.key[0] for advance in denoiser.tick()) == {"A": 2, "B": 2}


def test_an_owners_early_images_are_finished_before_late_ones_are_begun(family):
    denoiser = Denoiser(family, max_rows=4)
    for seed in range(4):
        denoiser.admit(seed, image(seed, steps=2))
    assert [[advance.key for advance in denoiser.tick()] for _ in range(4)] == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_images_of_different_sizes_do_not_share_a_call(family):
    denoiser = Denoiser(family)
    for seed in range(4):
        denoiser.admit(seed, image(seed, width=SIZE + 8 * (seed % 2)), owner=str(seed % 2))
    assert set(finish(denoiser).values()) == {None}
    assert Counter(family.shapes) == {(4, 4, 16, 16): 3, (4, 4, 16, 20): 3}


def test_exact_and_fast_images_do_not_share_a_call(family):
    denoiser = Denoiser(family)
    denoiser.admit("exact", image(0), exact=True, owner="A")
    denoiser.admit("fast", image(1), owner="B")
    denoiser.admit("fast too", image(2), owner="B")
    assert [advance.key for advance in denoiser.tick()] == ["exact", "fast", "fast too"]  # they fill what would be padding
    assert [advance.key for advance in denoiser.tick()] == ["fast", "fast too"]


def test_a_guided_exact_image_needs_two_rows(family):
    with pytest.raises(ValueError, match="exact_rows=1 is too small"):
        Denoiser(family, exact_rows=1).admit("it", image(), exact=True)


def test_stack_makes_one_batch_of_one_row_parts():
    parts = [{"a": torch.full((1, 2), float(i))} for i in (3, 4)]
    assert stack(parts)["a"][:, 0].tolist() == [3, 4]


@pytest.mark.parametrize("shape", [(4, 16, 20), (1, 3, 16, 16), (2, 4, 16, 16), (16, 16), (4,)])
def test_latents_of_a_wrong_shape_are_refused(family, shape):
    denoiser = Denoiser(family)
    with pytest.raises(InvalidRequest, match=r"Latents for 32 x 32 must be \(4, 16, 16\); they were "):
        denoiser.admit("it", image(), latents=torch.zeros(shape))
    assert len(denoiser) == 0


@pytest.mark.parametrize("shape", [(4, 16, 16), (1, 4, 16, 16)])
def test_latents_handed_in_stand_in_for_the_seeds_own(family, shape):
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(7))
    denoiser = Denoiser(family)
    given = denoiser.admit("given", image(seed=0), latents=noise.reshape(shape))
    drawn = denoiser.admit("drawn", image(seed=7))
    assert torch.equal(given.latents, drawn.latents)


def test_latents_handed_in_are_not_changed(family):
    noise = torch.from_numpy(numpy.ones((4, 16, 16)))
    denoiser = Denoiser(family)
    denoiser.admit("it", image(scheduler="DDIM"), latents=noise)
    finish(denoiser)
    assert torch.equal(noise, torch.ones_like(noise))
