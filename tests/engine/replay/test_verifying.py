"""Verifying: identical where nothing changed, and what is told where something did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from engine.__main__ import main
from engine.errors import InvalidRequest, UnreadablePicture
from engine.local import open_engine
from engine.pictures.made import Made, Provenance
from engine.pictures.metadata import png_bytes, read_record
from engine.pictures.outputs import open_picture
from engine.recipes.axes import Offer
from engine.recipes.plan import AxisLine, Grid, plan_grid, plan_images
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import available_schedulers
from engine.replay.verifying import Original, changes_between, judge, read_original, replay, verdict_of
from engine.running.events import Finished
from engine.sheets.takeaway import sheet_file
from tests.fake_device import FakeDevice, fake_engine

THEN = Provenance("aaaa", "cpu", "float32", 2, False, 4, 4, 0.5, {"darkroom": "1", "torch": "2.12"}, weights="w1")
RECIPE = Recipe(prompt="an owl", width=64, height=64, steps=4)


def picture(colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def again(image: Image.Image, now: Provenance = THEN) -> Made:
    return Made(RECIPE, now, "0" * 64, pixels=image)


# Made by the embedded model, and verified by the command.


@pytest.fixture(scope="module")
def of_every_scheduler(tmp_path_factory) -> list[Path]:
    """A lone picture by each scheduler, fast; of the first one more that is exact."""
    folder = tmp_path_factory.mktemp("pictures")
    with open_engine(device="cpu", data_dir=folder) as engine:
        files = []
        for number, name in enumerate([available_schedulers()[0], *available_schedulers()]):
            recipe = engine.catalog.default.recipe(prompt="a red apple, flat", negative_prompt="blue", seed=number, steps=4, scheduler=name)
            [end] = engine.submit(plan_images(recipe, engine.catalog, engine.limits, exact=number == 0)).wait().values()
            assert isinstance(end, Finished), end
            files.append(end.made.path)
    return files


def verify(*files: Path, folder: Path) -> int:
    return main(["verify", *map(str, files), "--device", "cpu", "--data-dir", str(folder)])


def test_pictures_of_every_scheduler_are_made_again_bit_for_bit(of_every_scheduler, tmp_path, capsys):
    assert len(of_every_scheduler) > 20
    assert verify(*of_every_scheduler, folder=tmp_path) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"path": str(file), "identical": True, "changed": []} for file in of_every_scheduler]
    assert list(tmp_path.rglob("*.png")) == [], "what was made again is not kept"


def test_pictures_made_among_others_are_made_again_in_calls_as_wide(tmp_path, capsys):
    with open_engine(device="cpu", data_dir=tmp_path) as engine:
        recipe = engine.catalog.default.recipe(prompt="a sunflower, noto style", seed=42)
        ends = engine.submit(plan_images(recipe, engine.catalog, engine.limits, count=4)).wait().values()
    assert [end.made.provenance.bucket for end in ends] == [8] * 4
    assert verify(*(end.made.path for end in ends), folder=tmp_path) == 0


def test_one_changed_pixel_is_found_and_shown(of_every_scheduler, tmp_path, capsys):
    record, image = read_record(of_every_scheduler[1])
    red, green, blue = image.getpixel((5, 6))
    image.putpixel((5, 6), (red ^ 4, green, blue))
    (edited := tmp_path / "edited.png").write_bytes(png_bytes(image, record.recipe, record.provenance))
    assert verify(of_every_scheduler[1], edited, folder=tmp_path) == 1
    same, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert (same["identical"], other["identical"], other["largest"], other["changed"]) == (True, False, 4, [])
    with Image.open(other["difference"]) as map_of_it:
        assert map_of_it.convert("L").getbbox() == (5, 6, 6, 7)


def test_another_seed_in_the_record_is_another_picture(of_every_scheduler, tmp_path, capsys):
    record, image = read_record(of_every_scheduler[1])
    (edited := tmp_path / "edited.png").write_bytes(png_bytes(image, record.recipe.replace(seed=999), record.provenance))
    assert verify(edited, folder=tmp_path) == 1
    [told] = map(json.loads, capsys.readouterr().out.splitlines())
    assert told["identical"] is False
    assert told["part"] > 0.1


def test_what_cannot_be_verified_is_not_identical(of_every_scheduler, tmp_path, capsys):
    (text := tmp_path / "words.png").write_text("no picture", encoding="utf-8")
    assert verify(text, of_every_scheduler[1], tmp_path / "gone.png", folder=tmp_path) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["identical"] for line in captured.out.splitlines()] == [None, True, None]
    assert "words.png: Not verified. This file is no PNG" in captured.err
    assert "gone.png: Not verified. It cannot be read: No such file" in captured.err


# A replay, over a device without a network.


def test_a_replay_is_drawn_while_others_draw_and_leaves_no_file(tmp_path):
    with fake_engine(tmp_path, device=FakeDevice()) as engine:
        recipe = engine.catalog.default.recipe(prompt="an owl", seed=3, steps=3)
        plan = plan_images(recipe, engine.catalog, engine.limits)
        [first] = engine.submit(plan, "Ann").wait().values()
        original = read_original(first.made.path)
        engine.submit(plan_images(recipe, engine.catalog, engine.limits, count=5), "Ben")
        job = replay(engine, original, "Ann")
        assert verdict_of(original, job).identical
        [made] = job.made().values()
        assert (made.path, made.unsaved) == (None, "")
        assert open_picture(made).tobytes() == original.image.tobytes()


def test_a_replay_that_fails_says_why(tmp_path):
    device = FakeDevice()
    with fake_engine(tmp_path, device=device) as engine:
        recipe = engine.catalog.default.recipe(prompt="an owl", seed=3, steps=3)
        [first] = engine.submit(plan_images(recipe, engine.catalog, engine.limits)).wait().values()
        original = read_original(first.made.path)
        device.step_errors[3] = (2, InvalidRequest("No room."))
        with pytest.raises(InvalidRequest, match=r"It could not be made again: No room\."):
            verdict_of(original, replay(engine, original))
        with pytest.raises(InvalidRequest, match="There is no model “gone” here"):
            replay(engine, replace(original, recipe=recipe.replace(model="gone")))


def test_a_sheet_and_a_stopped_picture_are_refused_with_what_to_do(tmp_path):
    with fake_engine(tmp_path) as engine:
        grid = Grid(recipe=engine.catalog.default.recipe(prompt="an owl", steps=2), x=AxisLine(axis="seed", values="1, 2"))
        plan = plan_grid(grid, Offer(engine.catalog, engine.limits))
        job = engine.submit(plan)
        job.wait()
        (sheet := tmp_path / "sheet.png").write_bytes(sheet_file(plan, job.made()))
    with pytest.raises(UnreadablePicture, match="verify the pictures of its cells"):
        read_original(sheet)
    (stopped := tmp_path / "stopped.png").write_bytes(png_bytes(picture(), RECIPE, replace(THEN, step=2)))
    with pytest.raises(UnreadablePicture, match="stopped at step 2 of 4"):
        read_original(stopped)
    (foreign := tmp_path / "foreign.png").write_bytes((Path(__file__).parents[2] / "data/metadata/05-lora.png").read_bytes())
    with pytest.raises(UnreadablePicture, match=r"made by A1111.*only Darkroom's own"):
        read_original(foreign)


@pytest.mark.parametrize("value", [{"versions": "many"}, {"bucket": "wide"}, {"dtype": 32}], ids=str)
def test_a_record_with_nonsense_in_it_is_refused(tmp_path, value):
    (file := tmp_path / "odd.png").write_bytes(png_bytes(picture(), RECIPE, replace(THEN, **value)))
    with pytest.raises(UnreadablePicture):
        read_original(file)


# The verdict.


def test_equal_pixels_are_identical_whatever_has_changed():
    verdict = judge(Original(RECIPE, THEN, picture()), again(picture(), replace(THEN, versions={"darkroom": "1", "torch": "2.13"})))
    assert verdict.identical
    assert "This although PyTorch was 2.12 and is 2.13." in verdict.sentences


def test_the_figures_of_a_difference():
    """All channels off by one level: 20 log10(255) dB, which is 48.13."""
    verdict = judge(Original(RECIPE, THEN, picture()), again(picture((10, 8, 10))))
    assert not verdict.identical
    assert (verdict.difference.largest, verdict.difference.mean) == (1, 1)
    assert verdict.sentences[0] == "Different: in 100.00% of the pixels, by at most 1 of 255 and 1 on average (PSNR 48.1 dB)."
    assert "its pixels or its settings were probably edited" in verdict.sentences[1]


def test_another_size_and_transparency_are_different_too():
    assert "holds 32 x 64 pixels, and its recipe makes 64 x 64" in judge(
        Original(RECIPE, THEN, picture(size=(32, 64))), again(picture())
    ).sentences[0]  # fmt: skip
    see_through = picture().convert("RGBA")
    see_through.putalpha(254)
    verdict = judge(Original(RECIPE, THEN, see_through), again(picture()))
    assert not verdict.identical
    assert "transparent" in verdict.sentences[0]


@pytest.mark.parametrize(
    ("now", "name", "reason"),
    [
        ({"versions": {"darkroom": "1", "torch": "2.13"}}, "PyTorch", "PyTorch was 2.12 and is 2.13"),
        ({"versions": {"darkroom": "1"}}, "PyTorch", "PyTorch was 2.12 and is unknown"),
        ({"device": "NVIDIA H100"}, "the device", "Nothing is promised from one device or number format to another"),
        ({"dtype": "float16"}, "the number format", "Nothing is promised from one device or number format to another"),
        ({"weights": "w2"}, "the model", "the model was w1 and is w2"),
        ({"model_revision": "bbbb", "weights": "w2"}, "the model", "the model was aaaa and is bbbb"),
        ({"bucket": 16}, "the widest network call", "the widest network call was 2 rows and is 16 rows"),
        ({"tiled": True}, "the decoding", "the decoding was of the whole and is in tiles"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_part_of_the_environment_is_named_when_it_changed(now, name, reason):
    verdict = judge(Original(RECIPE, THEN, picture()), again(picture((0, 0, 0)), replace(THEN, **now)))
    assert [change.name for change in verdict.changes] == [name]
    assert reason in " ".join(verdict.sentences)


def test_of_one_drawn_among_others_it_is_said_what_helps():
    before = replace(THEN, bucket=16)
    sentences = judge(Original(RECIPE, before, picture()), again(picture((0, 0, 0)), before)).sentences
    assert "those made with Exact are the same in any company" in " ".join(sentences)
    assert "edited" not in " ".join(sentences)


def test_of_an_older_record_the_models_revision_is_compared():
    old = replace(THEN, weights="")
    assert changes_between(old, THEN) == []
    assert [change.name for change in changes_between(old, replace(THEN, model_revision="bbbb"))] == ["the model"]
