from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sd_parsers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.errors import InvalidRequest, UnreadablePicture
from engine.pictures.infotext import MAX_RECORD, infotext, parse_infotext
from engine.pictures.metadata import Found, export_bytes, grid_texts, png_bytes, read_picture, read_record, record
from engine.recipes.axes import AXES, Offer, write_values
from engine.recipes.catalog import Limits
from engine.recipes.plan import MAX_LINE, AxisLine, Grid, Plan, plan_grid, plan_images
from engine.recipes.recipe import MAX_PROMPT, Recipe, Style, make_recipe
from engine.sheets.takeaway import sheet_png
from tests.engine.pictures.pngs import IMAGE, SIGNATURE, check_clean, chunks, png_of, png_with
from tests.engine.pictures.texts import NEW_A1111, OLD_A1111, PROVENANCE, examples, recipes
from tests.engine.recipes.offer import OFFER, VALUES


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "picture.png"


def read_bytes(content: bytes, file: Path) -> Found:
    file.write_bytes(content)
    return read_picture(file)


@examples
@given(recipe=recipes)
def test_a_recipe_comes_back_from_its_picture_exactly(recipe: Recipe, file: Path) -> None:
    found = read_bytes(png_bytes(IMAGE, recipe, PROVENANCE), file)
    assert (found.source, found.notes) == ("Darkroom", ())
    assert make_recipe(**found.settings) == recipe


@examples
@given(recipe=recipes)
def test_pillow_reads_our_text_and_our_pixels_back(recipe: Recipe) -> None:
    with Image.open(io.BytesIO(png_bytes(IMAGE, recipe, PROVENANCE))) as image:
        assert image.tobytes() == IMAGE.tobytes()
        assert image.text == {"parameters": infotext(recipe, PROVENANCE), "darkroom": record(recipe, PROVENANCE)}


OPENED: list[Image.Image] = []
"""sd-parsers remembers an image's text by `id`: none may come to stand where another stood."""


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("prompt", ["an owl, (red:1.2)", "eine Eule, 梟 🦉", "two\nlines, \"quoted\": yes"])
def test_another_tool_reads_the_text_of_an_exported_picture(kind: str, prompt: str, file: Path) -> None:
    recipe = Recipe(prompt=prompt, negative_prompt="blurry", seed=7, steps=9, guidance_scale=4.5, width=64, height=64)
    file.write_bytes(export_bytes(IMAGE, recipe, PROVENANCE, kind))
    with Image.open(file) as image:
        assert (image.format, image.size) == (kind, IMAGE.size)
        comment = image.getexif().get_ifd(0x8769)[0x9286]  # as Pillow finds it
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be").startswith(f"{prompt}\nNegative prompt: blurry\nSteps: 9, ")
    OPENED.append(Image.open(file))
    OPENED[-1].load()  # which closes the file
    [sampler] = sd_parsers.ParserManager().parse(OPENED[-1]).samplers
    assert [[one.value for one in words] for words in (sampler.prompts, sampler.negative_prompts)] == [[prompt], ["blurry"]]
    assert (int(sampler.parameters["seed"]), float(sampler.parameters["cfg_scale"])) == (7, 4.5)
    read = read_picture(file).settings
    assert {name: read[name] for name in ("prompt", "seed", "steps", "scheduler")} == {
        "prompt": prompt, "seed": 7, "steps": 9, "scheduler": recipe.scheduler,
    }  # fmt: skip


def test_settings_that_are_too_long_for_a_jpeg_are_said_to_be_and_a_webp_holds_them(file: Path) -> None:
    words = "🦉" * (MAX_PROMPT - 10)
    style = Style(name="Long", prompt="{prompt} {prompt} {prompt}", negative_prompt=words)
    recipe = Recipe(prompt=words, negative_prompt=words, style=style)
    with pytest.raises(InvalidRequest, match="too long for a JPEG"):
        export_bytes(IMAGE, recipe, PROVENANCE, "JPEG")
    file.write_bytes(export_bytes(IMAGE, recipe, PROVENANCE, "WEBP"))
    with Image.open(file) as image:
        assert len(image.getexif().get_ifd(0x8769)[0x9286]) > 65_535


def test_the_longest_record_comes_back_too(file: Path) -> None:
    full = "\x01" * 4000
    recipe = make_recipe(prompt=full, negative_prompt=full, style=Style(name="s", prompt=full, negative_prompt=full))
    found = read_bytes(png_bytes(IMAGE, recipe, PROVENANCE), file)
    assert make_recipe(**found.settings) == recipe


def test_the_record_is_canonical_json_with_the_provenance() -> None:
    content = json.loads(record(make_recipe(prompt="é 🦊"), PROVENANCE))
    assert content["schema"] == 1
    assert content["provenance"]["model_revision"] == PROVENANCE.model_revision
    assert content["provenance"]["versions"] == {"torch": "2"}
    assert record(make_recipe(seed=1, steps=2), PROVENANCE) == record(make_recipe(steps=2, seed=1), PROVENANCE)
    assert "é 🦊" in record(make_recipe(prompt="é 🦊"), PROVENANCE)


def test_a_record_from_before_clip_skip_is_read(file: Path) -> None:
    content = json.loads(record(make_recipe(prompt="a fox", seed=5), PROVENANCE))
    del content["recipe"]["clip_skip"]
    found = read_picture(png_with(file, darkroom=json.dumps(content)))
    assert (found.source, make_recipe(**found.settings)) == ("Darkroom", make_recipe(prompt="a fox", seed=5))


def test_a_picture_of_a1111_is_read(file: Path) -> None:
    text = parse_infotext(NEW_A1111)
    assert read_picture(png_with(file, parameters=NEW_A1111)) == Found(text.settings, "A1111", text.notes, model_hash="45dee52b")


def test_html_in_an_infotext_stays_the_text_it_is(file: Path) -> None:
    html = "<script>alert(1)</script>"
    found = read_picture(png_with(file, parameters=f"{html}\nNegative prompt: {html}\nSteps: 20, Model: {html}"))
    assert (found.settings["prompt"], found.settings["negative_prompt"], found.settings["model"]) == (html,) * 3
    check_clean(found)


DAMAGED = {
    "empty": "",
    "no-json": "not json",
    "cut": '{"recipe": {"prompt": "a',
    "list": "[]",
    "null": "null",
    "number": "5",
    "recipe-missing": "{}",
    "recipe-null": '{"recipe": null}',
    "recipe-list": '{"recipe": [1]}',
    "nan": '{"recipe": {"guidance_scale": NaN}}',
    "infinity": '{"recipe": {"guidance_scale": Infinity, "steps": -Infinity}}',
    "huge-float": '{"recipe": {"steps": 1e999}}',
    "huge-integer": '{"recipe": {"seed": ' + "9" * 6000 + "}}",
    "surrogate": '{"recipe": {"prompt": "\\ud800"}}',
    "unknown-field": '{"recipe": {"from_later": 2}}',
    "unknown-scheduler": '{"recipe": {"scheduler": "x"}}',
    "deep": "[" * 60_000,
    "deep-recipe": '{"recipe": ' + '{"style": ' * 5_000 + "1" + "}" * 5_001,
    "grid-null": '{"grid": null}',
    "grid-list": '{"grid": [1]}',
    "grid-empty": '{"grid": {}}',
    "grid-number": '{"grid": 5, "recipe": {}}',
    "grid-recipe-missing": '{"grid": {"x": {"axis": "cfg", "values": "3"}}}',
    "grid-unknown-field": '{"grid": {"recipe": {}, "w": null}}',
    "grid-axis-text": '{"grid": {"recipe": {}, "x": "cfg: 3"}}',
    "grid-axis-types": '{"grid": {"recipe": {}, "x": {"axis": 1, "values": [3, 5]}}}',
    "grid-axis-surrogate": '{"grid": {"recipe": {}, "x": {"axis": "\\ud800", "values": "3"}}}',
    "grid-line-too-long": '{"grid": {"recipe": {}, "x": {"axis": "cfg", "values": "' + "1" * 20_001 + '"}}}',
    "grid-deep": '{"grid": ' + '{"x": ' * 60_000,
    "too-long": '{"recipe": {"prompt": "' + "a" * 70_000 + '"}}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_falls_back_to_the_infotext(text: str, file: Path) -> None:
    found = read_picture(png_with(file, darkroom=text, parameters=OLD_A1111))
    assert (found.source, found.settings["seed"]) == ("A1111", 965400086)
    check_clean(found)


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_alone_is_no_settings(text: str, file: Path) -> None:
    with pytest.raises(UnreadablePicture, match="carries no settings"):
        read_picture(png_with(file, darkroom=text))


def test_html_in_a_record_stays_the_text_it_is(file: Path) -> None:
    found = read_picture(png_with(file, darkroom='{"recipe": {"prompt": "<img src=x onerror=alert(1)>"}}'))
    assert found.settings["prompt"] == "<img src=x onerror=alert(1)>"
    check_clean(found)


def test_a_png_without_settings_is_said_to_have_none(file: Path) -> None:
    with pytest.raises(UnreadablePicture, match="carries no settings"):
        read_picture(png_with(file, Software="GIMP"))


def test_a_compressed_text_chunk_is_read(file: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", NEW_A1111, zip=True)
    IMAGE.save(file, "PNG", pnginfo=info)
    assert read_picture(file).settings == parse_infotext(NEW_A1111).settings


def test_a_text_chunk_that_unpacks_to_gigabytes_is_too_long_and_the_others_are_read(file: Path) -> None:
    bomb = b"parameters\0\0" + zlib.compress(bytes(20_000_000), 9)
    head, *rest = chunks(png_bytes(IMAGE, make_recipe(seed=5), PROVENANCE))
    assert read_bytes(png_of(head, (b"zTXt", bomb), *rest), file).settings["seed"] == 5
    with pytest.raises(UnreadablePicture, match="too long"):
        read_bytes(png_of(head, (b"zTXt", bomb), rest[-1]), file)


def test_text_that_is_neither_utf8_nor_ours_is_survived(file: Path) -> None:
    head, *rest = [part for part in chunks(png_bytes(IMAGE, Recipe(), PROVENANCE)) if part[0] != b"tEXt"]
    with pytest.raises(UnreadablePicture):
        read_bytes(png_of(head, (b"iTXt", b"parameters\0\0\0\0\0\xff\xfe"), (b"tEXt", b"darkroom\0\xff\xfe"), *rest), file)


def test_a_picture_cut_short_anywhere_is_refused_or_read_exactly(file: Path) -> None:
    recipe = make_recipe(prompt="a fox", seed=5)
    whole = png_bytes(IMAGE, recipe, PROVENANCE)
    texts_end = whole.index(b"IDAT") - 4
    for length in [*range(60), *range(60, texts_end, 23), *range(texts_end, len(whole), 41)]:
        if length < 12:
            with pytest.raises(UnreadablePicture, match="no PNG" if length < 8 else "damaged"):
                read_bytes(whole[:length], file)
        elif length >= texts_end:
            assert make_recipe(**read_bytes(whole[:length], file).settings) == recipe
        else:
            with suppress(UnreadablePicture):  # the infotext stands before the record
                assert make_recipe(**read_bytes(whole[:length], file).settings) == recipe


def test_flipped_bytes_are_refused_or_change_nothing(file: Path) -> None:
    recipe = make_recipe(prompt="a fox", seed=5)
    whole, dice = png_bytes(IMAGE, recipe, PROVENANCE), random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(dice.choice([1, 1, 4])):
            damaged[dice.randrange(len(whole))] = dice.randrange(256)
        try:
            assert make_recipe(**read_bytes(bytes(damaged), file).settings) == recipe
        except UnreadablePicture:
            refused += 1
    assert 0 < refused < 400


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"gAMA", b""),
        (b"tRNS", b""),
        (b"iCCP", b"x\0"),
        (b"cHRM", b"12345678"),
        (b"pHYs", b"1"),
        (b"acTL", b"1"),
        (b"fcTL", b"1"),
        (b"sRGB", b""),
        (b"zTXt", b"x"),
        (b"iTXt", b"parameters\0\1"),
    ],
    ids=lambda value: value.decode("ascii") if len(value) == 4 else "",
)
def test_a_chunk_that_is_too_short_is_refused_or_ignored(kind: bytes, content: bytes, file: Path) -> None:
    *parts, end = chunks(png_bytes(IMAGE, Recipe(), PROVENANCE))
    with suppress(UnreadablePicture):
        check_clean(read_bytes(png_of(*parts, (kind, content), end), file))


@pytest.mark.parametrize("side", [10_000, 60_000, 2**31 - 1])
def test_the_settings_of_a_picture_too_large_to_decode_are_read(side: int, file: Path) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = png_of((b"IHDR", header), (b"tEXt", b"parameters\0Steps: 20"), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    assert read_bytes(content, file).settings["steps"] == 20


def saved_as(kind: str) -> bytes:
    buffer = io.BytesIO()
    IMAGE.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"just text", b"\0" * 100, saved_as("GIF"), b"<svg/>", SIGNATURE[:5]],
    ids=["empty", "text", "zeros", "gif", "svg", "half-a-signature"],
)
def test_another_file_named_png_is_refused_as_no_picture(content: bytes, file: Path) -> None:
    with pytest.raises(UnreadablePicture, match=r"^This file is no PNG, JPEG, WebP or AVIF picture, whatever its name says"):
        read_bytes(content, file)


def test_nothing_but_a_signature_is_a_damaged_png(file: Path) -> None:
    with pytest.raises(UnreadablePicture, match="damaged"):
        read_bytes(SIGNATURE, file)


def test_reading_touches_no_filter_of_warnings_which_all_threads_share(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(prompt="a fox", seed=5)
    file.write_bytes(png_bytes(IMAGE, recipe, PROVENANCE))
    monkeypatch.setattr(warnings, "catch_warnings", None)
    assert make_recipe(**read_picture(file).settings) == recipe
    found, image = read_record(file)
    assert (found.recipe, found.provenance, image.tobytes()) == (recipe, PROVENANCE, IMAGE.tobytes())


@pytest.mark.parametrize("damage", ["cut", "no-record", "another's"])
def test_a_picture_with_damaged_pixels_or_without_record_gives_no_record(damage: str, file: Path) -> None:
    whole = png_bytes(IMAGE, Recipe(), PROVENANCE)
    parts = [part for part in chunks(whole) if not part[1].startswith(b"darkroom")]
    file.write_bytes({"cut": whole[:-200], "no-record": png_of(*parts), "another's": b"GIF89a"}[damage])
    with pytest.raises(UnreadablePicture):
        read_record(file)


# ---- records of later versions


def later(file: Path, parameters: str = "", **content: Any) -> Path:
    return png_with(file, darkroom=json.dumps({"schema": 2, **content}), **({"parameters": parameters} if parameters else {}))


def test_what_is_known_of_a_later_versions_record_is_taken_and_the_rest_named(file: Path) -> None:
    recipe = {"prompt": "a fox", "seed": 5, "scheduler": "from later", "loras": [{"name": "x"}], "style": {"words": 1}}
    found = read_picture(later(file, OLD_A1111, recipe=recipe))
    assert (found.source, found.settings) == ("Darkroom", {"prompt": "a fox", "seed": 5})
    assert found.notes[0].startswith("It was made by a newer Darkroom: update")
    assert found.notes[1] == "Not taken over: “scheduler”, “loras”, “style”."


def test_no_half_of_a_surrogate_gets_into_a_note(file: Path) -> None:
    check_clean(read_picture(later(file, recipe={"seed": 5, "\ud800": 1})))
    stopped = {**asdict(PROVENANCE), "step": "\ud800", "total": "\ue000"}
    check_clean(read_picture(png_with(file, darkroom=json.dumps({"recipe": {"seed": 5}, "provenance": stopped}))))


def test_a_later_versions_record_that_is_all_known_is_read_whole(file: Path) -> None:
    recipe = make_recipe(prompt="a fox", seed=5)
    found = read_picture(later(file, recipe=recipe.model_dump(mode="json"), other=[1]))
    assert (found.source, make_recipe(**found.settings), len(found.notes)) == ("Darkroom", recipe, 1)


def test_a_later_versions_style_without_its_words_is_named(file: Path) -> None:
    style = {"name": "Elsewhere", "prompt": "{prompt}, ink"}
    found = read_picture(later(file, recipe={"seed": 5, "style": style, "new": 1}))
    assert found.settings == {"seed": 5}
    assert found.notes[1] == "Not taken over: “new”, “style”."
    assert set(read_picture(later(file, recipe={"prompt": "a fox", "style": style, "new": 1})).settings) == {"prompt", "style"}


def test_of_a_later_versions_sheet_the_recipe_is_taken(file: Path) -> None:
    found = read_picture(later(file, OLD_A1111, grid={"recipe": {"prompt": "a fox"}, "axes": ["cfg"]}))
    assert (found.source, found.settings, found.grid) == ("Darkroom", {"prompt": "a fox"}, None)
    assert found.notes[1] == "Not taken over: the grid."


def test_a_later_version_that_changed_everything_is_read_by_its_infotext_and_not_taken_for_a1111(file: Path) -> None:
    found = read_picture(later(file, OLD_A1111, image={"words": "a fox"}))
    assert (found.source, found.settings["seed"]) == ("Darkroom", 965400086)
    assert found.notes[1:] == parse_infotext(OLD_A1111).notes


@pytest.mark.parametrize("content", [{}, {"recipe": 5}, {"grid": [1], "recipe": {"seed": -1}}, {"recipe": {"x" * 9999: None}}])
def test_a_later_version_of_which_nothing_is_known_is_refused_by_its_name(content: dict[str, Any], file: Path) -> None:
    with pytest.raises(UnreadablePicture, match="made by a newer Darkroom"):
        read_picture(later(file, **content))


# ---- contact sheets


ALL_SIZES = Offer(OFFER.catalog, Limits(max_pixels=4096**2), OFFER.styles)
FREE_AXES = sorted(set(VALUES) - {"model", "width", "height", "replace"})
"""Those that get on with each other and with any recipe."""


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of grids with up to three axes of few values."""
    names = draw(st.lists(st.sampled_from(FREE_AXES), max_size=3, unique=True))
    values = {name: write_values(AXES[name], draw(VALUES[name])[:3]) for name in names}
    lines = {at: AxisLine(axis=name, values=line) for at, (name, line) in zip("xyz", values.items(), strict=False)}
    recipe = draw(recipes).replace(model="starter", steps=20)
    return plan_grid(Grid(recipe=recipe, **lines, exact=draw(st.booleans())), ALL_SIZES)


def sheet_of(plan: Plan, file: Path) -> Path:
    file.write_bytes(sheet_png(IMAGE, grid_texts(plan)))
    return file


@examples
@given(plan=plans())
def test_a_sheet_gives_its_whole_plan_back(plan: Plan, file: Path) -> None:
    found = read_picture(sheet_of(plan, file))
    assert (found.source, found.notes, found.grid) == ("Darkroom", (), plan.grid)
    assert make_recipe(**found.settings) == plan.grid.recipe
    assert plan_grid(found.grid, ALL_SIZES) == plan
    check_clean(found)


@examples
@given(plan=plans())
def test_no_axis_can_spoil_the_settings_of_a_sheets_infotext(plan: Plan) -> None:
    found = parse_infotext(grid_texts(plan)["parameters"])
    taken = {name: found.settings[name] for name in ("seed", "steps", "scheduler", "width", "height", "model", "clip_skip")}
    assert taken == {name: getattr(plan.grid.recipe, name) for name in taken}


def test_the_longest_sheet_comes_back_too(file: Path) -> None:
    full = "\x01" * 4000
    style = Style(name="\x01" * 80, prompt=full, negative_prompt=full)
    recipe = make_recipe(model="\x01" * 500, prompt=full, negative_prompt=full, style=style)
    line = AxisLine(axis="\x01" * 80, values="\x01" * MAX_LINE)
    plan = Plan((), grid=Grid(recipe=recipe, x=line, y=line, z=line))
    assert 460_000 < len(grid_texts(plan)["darkroom"]) < MAX_RECORD
    assert read_picture(sheet_of(plan, file)).grid == plan.grid


def test_a_sheet_tells_a1111_of_its_axes() -> None:
    def plot(**axes: str) -> str:
        lines = {at: AxisLine(axis=text.partition(": ")[0], values=text.partition(": ")[2]) for at, text in axes.items()}
        return grid_texts(plan_grid(Grid(recipe=make_recipe(prompt="a cat"), **lines), OFFER))["parameters"].partition("RNG: CPU, ")[2]

    text = plot(x="cfg: 3, 5-7 (+2)", y="scheduler: euler", z="replace: cat, dog")
    kinds = 'X Type: CFG Scale, X Values: "3, 5, 7", Y Type: Sampler, Y Values: Euler, Z Type: Prompt S/R, Z Values: "cat, dog"'
    assert text.rpartition(", ")[0] == f"Script: X/Y/Z plot, {kinds}"
    assert text.rpartition(", ")[2].startswith("Version: Darkroom")
    assert plot(x="width: 64, 96", y="seed: 4").rpartition(", ")[0] == "Script: X/Y/Z plot, Y Type: Seed, Y Values: 4"


def test_a_plan_of_no_grid_has_none_to_write() -> None:
    with pytest.raises(ValueError, match="only the plan of a grid"):
        grid_texts(plan_images(make_recipe(), OFFER.catalog, OFFER.limits))


def test_a_sheet_without_its_record_is_read_by_its_text(file: Path) -> None:
    texts = grid_texts(plan_grid(Grid(recipe=make_recipe(prompt="a cat", seed=5), x=AxisLine(axis="cfg", values="3, 5")), OFFER))
    found = read_picture(png_with(file, darkroom="{", parameters=texts["parameters"]))
    assert (found.source, found.grid, found.settings["seed"]) == ("Darkroom", None, 5)
    assert found.notes == ("Not taken over: X/Y/Z plot (CFG Scale: 3, 5).",)


def test_a_picture_that_was_stopped_says_so(file: Path) -> None:
    recipe, unfinished = make_recipe(steps=60, seed=5), replace(PROVENANCE, step=16, total=60)
    found = read_bytes(png_bytes(IMAGE, recipe, unfinished), file)
    assert (found.settings["steps"], found.notes) == (60, parse_infotext(infotext(recipe, unfinished)).notes)
    assert found.notes == ("That picture was stopped at 16 of 60: made to its end, it looks different.",)
