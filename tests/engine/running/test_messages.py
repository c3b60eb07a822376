"""What an engine and its worker say to each other: values that pickle, whatever is in them."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, get_args

import numpy
import pytest
from PIL import Image

from engine.errors import InvalidRequest
from engine.pictures.made import DeviceFacts, Made, Provenance
from engine.recipes.plan import Cell
from engine.recipes.recipe import Recipe, Style
from engine.running import messages, questions
from engine.running.device import TokenCount
from engine.running.events import Cancelled, Developing, Event, Failed, Finished, Notice, Preview, Queued
from engine.running.messages import (
    Answered,
    Ask,
    Begin,
    Called,
    CountTokens,
    Developed,
    Forget,
    Resident,
    Stop,
    Told,
    Trouble,
    Warm,
    Withdraw,
)  # fmt: skip
from engine.running.packing import Packer
from engine.running.preview_options import PreviewOptions
from engine.running.questions import LatentsOf, StepOf, StepsOf
from tests.fake_device import FakeDevice

RECIPE = Recipe(prompt="แมว, an owl", seed=7, style=Style(name="flat", prompt="{prompt}, flat"))
PICTURE = Image.new("RGB", (8, 8), (1, 2, 3))
PROVENANCE = Provenance("revision", "cpu", "float32", 2, False, 3, 4, 1.5, {"torch": "2"})
MADE = Made(RECIPE, PROVENANCE, "0" * 64, pixels=PICTURE, unsaved="The disk is full.")

ORDERS = [
    Begin("job", "owner", (Cell(0, RECIPE), Cell(1, RECIPE, (1, 0, 0))), True, PreviewOptions("vae", 3), True, True),
    Stop("job", frozenset({0, 1}), True), Forget("job", (0, 1)), Warm(1, "starter"), Withdraw(2), CountTokens(3, "starter", "an owl"),
    Ask(4, StepOf(("job", 0), 3, "linear")), Ask(5, LatentsOf(("job", 0))),
    Ask(6, StepsOf("job", 0, 4096, {0: ("other", 1)}, {0: 2}, {0: 4096}, ("other",))),
]  # fmt: skip
EVENTS = [
    Queued(0, 3), Notice("Loading ...", progress=0.5), Preview(0, 1, 4, PICTURE, "linear", 0.5), Developing(0, 4, 4),
    Finished(0, MADE, True), Failed(0, "It failed.", "Traceback"), Cancelled(0, 3, 4, MADE),
]  # fmt: skip
RULES = Packer(16, padded=True, native_pixels=4096, narrowed=[(4096, 2)]).rules
MESSAGES = [
    *(Told("job", event) for event in EVENTS), Answered(1, TokenCount(2, 75)), Answered(2, {0: PICTURE}),
    Resident("cpu"), Resident("cuda", "starter", RULES, DeviceFacts("r", "w", "cpu", "float32", 0)),
    Trouble("starter", "It is gone."), Called("starter", 4096, 8, 0.25), Developed("starter", 4096, 0.5),
]  # fmt: skip


@pytest.mark.parametrize("said", [*ORDERS, *MESSAGES], ids=lambda said: type(said).__name__)
def test_what_is_said_pickles_and_cannot_be_changed(said: Any) -> None:
    assert pickle.loads(pickle.dumps(said)) == said
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(said, dataclasses.fields(said)[0].name, None)


def test_every_order_question_event_and_message_has_been_tried() -> None:
    assert {type(order) for order in ORDERS} == set(get_args(messages.Order))
    assert {type(message) for message in MESSAGES} == set(get_args(messages.Message))
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    asked = {type(order.question) for order in ORDERS if isinstance(order, Ask)}
    assert asked == {one for one in vars(questions).values() if dataclasses.is_dataclass(one)}


def test_noise_that_is_handed_in_and_an_error_come_through() -> None:
    noise = numpy.ones((4, 8, 8), numpy.float32)
    begin = pickle.loads(pickle.dumps(Begin("job", "", (Cell(0, RECIPE),), latents={0: noise})))
    assert numpy.array_equal(begin.latents[0], noise)
    error = pickle.loads(pickle.dumps(Answered(1, error=InvalidRequest("Step 3 is not kept.")))).error
    assert (type(error), str(error)) == (InvalidRequest, "Step 3 is not kept.")


def test_a_look_that_waited_until_its_job_was_forgotten_leaves_nothing_behind() -> None:
    device, looks = FakeDevice(), {"kept": {}}
    device.model = RECIPE.model
    device.admit(("maker", 0), RECIPE, owner="", exact=False, latents=None)
    device.tick()
    for job in ("kept", "forgotten"):
        assert StepsOf(job, 0, 4096, {0: ("maker", 0)}, {0: 1}, {0: 4096}, ("maker",)).answer(device, looks).keys() == {0}
    assert looks == {"kept": {0: ("linear", 4096)}}
