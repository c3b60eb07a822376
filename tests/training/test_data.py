"""From packages to pictures, subjects, scenes and captions."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from training.captions import captions
from training.data import read_manifest, render_svg
from training.packages import Package
from training.pictures import HUES, colour_names, compose, main_colour, on_white, recoloured
from training.scenes import BACKGROUNDS, PLACES, Scene, Stage, narrowed
from training.settings import HeldOut, Source, load_config, load_sources
from training.split import held_out_styles, pair_is_held_out
from training.words import COLOURS, colour_word, subjects

CONFIG = load_config()


def packed(folder, files: dict[str, object]):
    """A package's file and its hash."""
    file = folder / "some-1.0.0.tgz"
    with tarfile.open(file, "w:gz") as tar:
        for name, content in files.items():
            text = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return file, "sha512-" + base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()


def source(integrity: str, license: str = "MIT") -> Source:
    return Source(package="some", version="1.0.0", integrity=integrity, license=license, attribution="somebody")


def test_a_package_of_another_hash_or_licence_is_refused(tmp_path) -> None:
    file, integrity = packed(tmp_path, {"package.json": {"license": "MIT"}})
    assert Package(source(integrity), file).json("package.json") == {"license": "MIT"}
    with pytest.raises(InvalidRequest, match="hash differs"):
        Package(source("sha512-other"), file)
    with pytest.raises(InvalidRequest, match="states the licence “MIT”"):
        Package(source(integrity, "Apache-2.0"), file)


def test_every_source_has_terms_and_none_is_share_alike() -> None:
    sources = load_sources()
    assert {one.license for one in sources.styles.values()} <= {"MIT", "Apache-2.0", "CC-BY-4.0"}
    assert all(one.attribution and one.wordings for one in sources.styles.values())


def record(code: str, label: str, subgroup: int, **more: object) -> dict:
    return {"hexcode": code, "label": label, "group": 0, "subgroup": subgroup, "order": int(code.split("-")[0], 16), "version": 1, **more}


def test_subjects_leave_out_flags_letters_genders_and_clock_faces() -> None:
    groups = {"groups": {"0": "objects"}, "subgroups": {"0": "time", "1": "country-flag", "2": "keycap", "3": "person-role"}}
    emoji = [
        record("23F0", "alarm clock", 0, tags=["hours", "red", "time"]),
        record("1F550", "one o’clock", 0),
        record("1F1E6-1F1E8", "flag: Ascension Island", 1),
        record("0031-FE0F-20E3", "keycap: 1", 2),
        record("1F9D9", "mage", 3),
        record("1F9D9-200D-2640-FE0F", "woman mage", 3),
        {"hexcode": "1F1E6", "label": "regional indicator A"},
    ]
    found = subjects(emoji, groups, {"23F0": ["alarm_clock", "wake_up", "shit"]}, CONFIG.subjects)
    assert [one.name for one in found] == ["alarm clock", "mage"]
    assert found[0].synonyms == ("wake up", "clock"), "the short names, then config.toml's own"
    assert found[0].keywords == ("hours", "time"), "a colour among the keywords would be wrong of a recoloured picture"


@pytest.mark.parametrize(("rgb", "name"), [
    ((255, 0, 0), "red"), ((255, 150, 40), "orange"), ((250, 220, 60), "yellow"), ((60, 170, 80), "green"), ((60, 110, 220), "blue"),
    ((140, 80, 200), "purple"), ((250, 160, 195), "pink"), ((120, 75, 50), "brown"), ((150, 150, 152), "grey"), ((10, 10, 12), "black"),
    ((250, 250, 250), "white"),
])  # fmt: skip
def test_colours_are_called_what_people_call_them(rgb, name) -> None:
    assert colour_names(np.array([rgb], np.uint8)).tolist() == [name]


def test_every_background_is_recognised_by_its_word() -> None:
    assert {name: colour_names(np.array([rgb], np.uint8))[0] for name, rgb in BACKGROUNDS.items()} == {name: name for name in COLOURS}


@pytest.mark.parametrize("colour", HUES)
def test_a_recoloured_picture_has_its_new_colour(colour) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[4:12, 4:12] = (226, 40, 45, 255)
    assert main_colour(rgba) == "red"
    assert colour in {main_colour(recoloured(rgba, colour)), "yellow", "orange"}, "dark yellow and orange are called brown"
    assert (recoloured(rgba, colour)[..., 3] == rgba[..., 3]).all()


def test_a_subject_is_composed_into_its_square() -> None:
    rgba = np.full((8, 8, 4), 255, np.uint8)
    picture = compose([(rgba, (0.5, 0.0, 0.5))], (10, 20, 30), 16)
    assert (picture[:8, 8:] == 255).all()
    assert (picture[8:] == (10, 20, 30)).all()
    assert (picture[:, :8] == (10, 20, 30)).all()


@given(st.text("0123456789abcdef", min_size=4, max_size=5), st.integers(0, 6), st.integers(0, 99))
def test_a_subject_held_out_is_still_seen_in_two_styles(code, count, seed) -> None:
    rules = HeldOut(seed=seed, subject_share=0.5, pair_share=0.5, min_styles=4, alike=(("fluent", "3d"),))
    styles = ["noto", "twemoji", "fluent", "flat", "outline", "3d"][:count]
    away = held_out_styles(code, styles, rules)
    assert away <= set(styles)
    assert not away or len(set(styles) - away) >= 2
    assert ("fluent" in away) == ("3d" in away) or "3d" not in styles
    assert pair_is_held_out(code, "1f34e", rules) == pair_is_held_out("1f34e", code, rules)


def test_about_the_wanted_share_is_held_out() -> None:
    styles = tuple(load_sources().styles)
    held_out = [held_out_styles(f"{code:x}", styles, CONFIG.held_out) for code in range(2000)]
    assert abs(sum(map(bool, held_out)) / 2000 - CONFIG.held_out.subject_share) < 0.03
    assert {style for away in held_out for style in away} == set(styles)


def test_a_profile_takes_the_subjects_that_it_names(stage) -> None:
    profile = CONFIG.profile("cpu").model_copy(update={"names": ("owl", "red apple")})
    few = narrowed(stage.manifest, profile)
    assert [one.name for one in few.subjects] == ["red apple", "owl"]
    assert len(few.pictures) == 12
    with pytest.raises(InvalidRequest, match="zebra"):
        narrowed(stage.manifest, profile.model_copy(update={"names": ("owl", "zebra")}))


def test_nothing_held_out_is_ever_composed(stage, config) -> None:
    scenes = [stage.scene(index) for index in range(600)]
    shown = [stage.picture(part) for scene in scenes for part in scene.parts]
    assert any(one.held_out for one in stage.manifest.pictures)
    assert not [one for one in shown if one.held_out]
    pairs = [[stage.picture(part) for part in scene.parts] for scene in scenes if len(scene.parts) == 2]
    assert pairs
    assert not [pair for pair in pairs if pair_is_held_out(pair[0].code, pair[1].code, config.held_out)]
    assert all(one.code != other.code and one.style == other.style for one, other in pairs)


def test_every_training_picture_comes_round_once_a_turn(stage) -> None:
    count = len(stage.training)
    assert sorted(stage.scene(index).parts[0].picture for index in range(count)) == stage.training


def test_the_share_of_steady_subjects_fills_the_picture_as_its_art_does(stage, config) -> None:
    for share in (0.0, 1.0):
        one = Stage(stage.manifest, stage.pixels, config.scenes.model_copy(update={"steady": share}), config.held_out)
        alone = [scene.parts[0] for scene in map(one.scene, range(80)) if not scene.place]
        assert {part.box == (0.0, 0.0, 1.0) for part in alone} == {share == 1.0}
    part = next(part for part in alone if not part.colour)
    drawn = one.draw(Scene((part,), "white", BACKGROUNDS["white"], ""))
    assert (drawn == on_white(stage.pixels[[part.picture]])[0]).all(), "pixel for pixel"


def test_scenes_and_captions_follow_from_their_index(stage, config) -> None:
    again = Stage(stage.manifest, stage.pixels, config.scenes, config.held_out)
    for index in (57, 3, 30):
        scene = stage.scene(index)
        assert again.scene(index) == scene
        assert (again.draw(scene) == stage.draw(scene)).all()
        assert captions(again, scene, index, config.scenes) == captions(stage, scene, index, config.scenes)


def test_captions_say_what_is_there_and_nothing_else(stage, config) -> None:
    wordings = {word: style for style, one in stage.manifest.sources.styles.items() for word in one.wordings}
    kinds = set()
    for index in range(400):
        scene = stage.scene(index)
        kinds.add(scene.place)
        nouns = [stage.subject(part).noun.removesuffix(" face") for part in scene.parts]
        mine = {scene.background} | {part.colour or stage.colours[part.picture] or "" for part in scene.parts}
        mine |= {colour_word(stage.subject(part).name) for part in scene.parts if not part.colour}
        for said in captions(stage, scene, index, config.scenes):
            plain = said
            for word in sorted(wordings, key=len, reverse=True):
                if word in plain:
                    assert wordings[word] == stage.picture(scene.parts[0]).style, said
                    plain = plain.replace(word, "")
            assert all(noun in said for noun in nouns), said
            assert scene.background == "white" or scene.background in plain, said
            assert {word.strip(",") for word in plain.split()} & set(COLOURS) <= mine, said
            assert ("corner" not in said) or " " in scene.place, said
    assert kinds == set(PLACES)


def test_no_subject_has_its_backgrounds_colour(stage) -> None:
    for index in range(300):
        scene = stage.scene(index)
        own = {part.colour or stage.colours[part.picture] for part in scene.parts}
        assert scene.background == "white" or scene.background not in own


def test_the_manifest_survives_the_disk_and_its_absence_is_said(data, tmp_path) -> None:
    manifest = read_manifest(data)
    assert len(manifest.pictures) == 72
    with pytest.raises(InvalidRequest, match="training data"):
        read_manifest(tmp_path)


def test_svg_is_drawn_square_and_transparent() -> None:
    pytest.importorskip("resvg_py", reason="training/requirements.txt is not installed")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" width="8" height="8"><rect width="4" height="8" fill="#f00"/></svg>'
    image = render_svg(svg, 32)
    assert image.getpixel((4, 16)) == (255, 0, 0, 255)
    assert image.getpixel((28, 16))[3] == 0
    with pytest.raises(ValueError, match="root node"):
        render_svg("<svg", 32)
