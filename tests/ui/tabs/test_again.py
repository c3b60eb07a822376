"""A picture made again: the handlers below its settings, over a device without a model."""

from __future__ import annotations

from typing import Any

import pytest

from engine.pictures import metadata
from engine.recipes.link import read_query
from engine.recipes.recipe import make_recipe
from engine.running.job import Job
from tests.jobs import ends
from tests.ui.conftest import ANN, BOB, pictures
from ui.tabs.again import NO_PICTURE, Again


@pytest.fixture
def again(tab) -> Again:
    return tab.again


@pytest.fixture
def shown(engine, press) -> str:
    """The pick of a picture of Ann's."""
    list(press())
    [(pick, _)] = pictures(engine, ANN)
    return pick


def newest(engine) -> Job:
    return engine.jobs(ANN)[-1]


def sentences(again: Again, page: dict[Any, Any]) -> list[str]:
    return page[again.verdict]["sentences"]


def verified(again: Again, engine, pick: str) -> dict[Any, Any]:
    begun = again._begin(ANN, pick)
    assert begun[again.clock].active
    ends(newest(engine))
    return again._look(ANN, pick, begun[again.key])


def test_a_picture_that_is_the_same_is_said_to_be(again, engine, shown):
    told = verified(again, engine, shown)
    assert sentences(again, told) == ["Identical: its recipe gives the same bits here and now."]
    assert (told[again.verdict]["kind"], told[again.verdict]["src"], told[again.clock].active) == ("same", "", False)


def test_a_file_that_was_changed_is_found_and_the_difference_shown(again, engine, shown):
    [(_, made)] = pictures(engine, ANN)
    record, image = metadata.read_record(made.path)
    image.putpixel((0, 0), (1, 2, 3))
    made.path.write_bytes(metadata.png_bytes(image, record.recipe, record.provenance))
    told = verified(again, engine, shown)
    assert sentences(again, told)[0].startswith("Different: in 0.02% of the pixels")
    assert told[again.verdict]["kind"] == "different"
    assert told[again.verdict]["src"].startswith("data:image/png;base64,")


def test_while_it_is_made_nothing_changes_and_nobody_waits(again, engine, device, shown):
    device.hold()
    begun = again._begin(ANN, shown)
    assert sentences(again, begun) == ["Making it again ..."]
    assert again.verdict not in again._look(ANN, shown, begun[again.key])
    device.let_go()
    ends(newest(engine))
    assert again._look(ANN, shown, begun[again.key])[again.verdict]["kind"] == "same"


def test_what_is_made_again_is_neither_in_the_strip_nor_on_the_stage(tab, again, engine, device, shown):
    device.hold()
    again._begin(ANN, shown)
    assert tab._running(ANN) == []
    device.let_go()
    ends(newest(engine))
    assert [pick for pick, _ in tab._pictures(ANN)] == [shown]


def test_another_picture_stops_it_and_takes_the_verdict_away(again, engine, device, shown):
    device.hold()
    begun = again._begin(ANN, shown)
    cleared = again._clear(ANN, begun[again.key])
    device.let_go()
    assert type(next(iter(ends(newest(engine)).values()))).__name__ == "Cancelled"
    assert (sentences(again, cleared), cleared[again.key], cleared[again.copied].visible) == ([], "", False)


@pytest.mark.parametrize("pick", ["", "nobody:0"])
def test_without_a_picture_it_is_said_what_to_do(again, pick):
    for press in (again._begin, again._as_python, again._as_command):
        assert sentences(again, press(ANN, pick)) == [NO_PICTURE]
    assert sentences(again, again._as_link(ANN, pick, "http://here/")) == [NO_PICTURE]


def test_anothers_picture_is_nobodys_business(again, shown):
    assert sentences(again, again._begin(BOB, shown)) == [NO_PICTURE]
    assert sentences(again, again._as_python(BOB, shown)) == [NO_PICTURE]


def test_a_file_that_is_gone_is_said_to_be(again, engine, shown):
    [(_, made)] = pictures(engine, ANN)
    made.path.unlink()
    assert sentences(again, again._begin(ANN, shown)) == [f"The file {made.path.name} is not there any more."]


def test_a_run_that_is_forgotten_is_said_to_be(again, shown):
    assert "press Verify again" in sentences(again, again._look(ANN, shown, "forgotten"))[0]


def test_it_is_copied_as_python_and_as_a_command(again, shown):
    script, command = again._as_python(ANN, shown)[again.copied], again._as_command(ANN, shown)[again.copied]
    assert script.visible
    assert "manual_seed(100)" in script.value
    assert "prompt='an owl'" in script.value
    assert command.value.startswith("python -m engine generate --prompt='an owl' ")


def test_a_link_opens_the_page_with_the_settings_of_the_picture(again, engine, shown):
    copied = again._as_link(ANN, shown, "http://here/")[again.copied]
    address, _, query = copied.value.partition("?")
    [(_, made)] = pictures(engine, ANN)
    link = read_query(query)
    assert address == "http://here/"
    assert link is not None
    assert make_recipe(**link.settings) == made.recipe
