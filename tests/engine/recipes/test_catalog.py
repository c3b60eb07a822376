from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest, ModelUnavailable
from engine.recipes.catalog import Catalog, Limits, ModelSpec, load_styles, local_model
from engine.recipes.recipe import Recipe, make_recipe
from engine.recipes.schedulers import DEFAULT_SCHEDULER, SCHEDULERS
from tests.conftest import ROOT, STARTER

GOOD = {
    "model_index.json": {"_class_name": "StableDiffusionPipeline"},
    "unet/config.json": {"sample_size": 64},
    "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
    "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
}


def model_folder(folder: Path, **files: Any) -> Path:
    """A diffusers folder of configs only. `index`, `unet`, `vae`, `scheduler`: another content (text is written as it is),
    None for no file."""
    for (name, content), word in zip(GOOD.items(), ("index", "unet", "vae", "scheduler"), strict=True):
        content = files.get(word, content)
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def spec(name: str) -> ModelSpec:
    return ModelSpec(name=name, title=name.title(), source="owner/" + name)


def test_the_starter_is_the_default_and_lies_beside_the_catalog(catalog: Catalog) -> None:
    assert catalog.default.name == "starter"
    assert catalog.default.is_local
    assert Path(catalog.default.source) == STARTER
    assert Path(catalog.default.tiny_decoder).is_dir()  # else it would be looked for on the hub


def test_folders_beside_a_catalog_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "tiny").mkdir(parents=True)
    (tmp_path / "models.toml").write_text('[mine]\ntitle = "Mine"\nsource = "mine"\ntiny_decoder = "mine/tiny"\n', encoding="utf-8")
    monkeypatch.chdir("/")
    model = Catalog.load(tmp_path / "models.toml").default
    assert (model.source, model.tiny_decoder) == (str(tmp_path / "mine"), str(tmp_path / "mine" / "tiny"))


def test_a_hub_id_stays_a_hub_id(catalog: Catalog) -> None:
    assert not catalog.find("sd15").is_local
    assert catalog.find("sd15").tiny_decoder == "madebyollin/taesd"
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", catalog.find("sd15").source)


def test_the_defaults_of_every_entry_are_a_recipe_within_its_own_ranges(catalog: Catalog) -> None:
    for model in catalog:
        recipe = model.recipe(prompt="a fox", seed=3)
        assert make_recipe(**dict(recipe)) == recipe
        assert (recipe.model, recipe.prompt, recipe.seed) == (model.name, "a fox", 3)
        assert recipe.width == recipe.height == model.native_size
        assert model.scheduler in SCHEDULERS
        assert recipe.scheduler == model.scheduler
        Limits().check(recipe)


def test_the_guidance_ranges_of_every_entry_are_nested(catalog: Catalog) -> None:
    for model in catalog:
        (useful_low, useful_high), (low, high) = model.useful_guidance, model.guidance_limits
        assert 1 <= low <= useful_low <= model.guidance_scale <= useful_high <= high <= 30


def test_every_entry_is_told_apart_and_has_examples(catalog: Catalog) -> None:
    models = list(catalog)
    assert len({model.title for model in models}) == len(models)
    assert all(model.examples and model.license and model.note for model in models)
    assert all(set(model.max_rows) == {"cpu", "cuda"} and min(model.max_rows.values()) >= 1 for model in models)


def test_an_unknown_model_is_answered_with_the_nearest_name(catalog: Catalog) -> None:
    with pytest.raises(InvalidRequest, match=r"no model “startre” here; there is starter\."):
        catalog.find("startre")


def test_a_family_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="there is no model family “sdx” here; there is sd"):
        ModelSpec(name="it", title="It", source="somebody/it", family="sdx")


def test_a_model_like_no_other_is_answered_with_all_names(catalog: Catalog) -> None:
    with pytest.raises(InvalidRequest) as caught:
        catalog.find("q" * 1000)
    assert all(model.name in str(caught.value) for model in catalog)
    assert len(str(caught.value)) < 300


def test_an_added_model_comes_first_and_the_rest_keep_their_order() -> None:
    catalog = Catalog([spec("one"), spec("two")])
    more = catalog.with_model(spec("three"))
    assert [model.name for model in more] == ["three", "one", "two"]
    assert more.default.name == "three"
    assert [model.name for model in catalog] == ["one", "two"]


def test_an_added_model_replaces_the_one_of_its_name() -> None:
    newer = spec("two").model_copy(update={"title": "Newer"})
    catalog = Catalog([spec("one"), spec("two")]).with_model(newer)
    assert [model.title for model in catalog] == ["Newer", "One"]
    assert catalog.find("two") is newer


def test_a_folder_called_like_a_model_on_offer_gets_another_name(tmp_path: Path, catalog: Catalog) -> None:
    for place in ("a", "b"):
        model_folder(tmp_path / place / "starter")
    once = catalog.with_folder(tmp_path / "a" / "starter")
    assert [model.name for model in once] == ["starter-2", *(model.name for model in catalog)]
    assert (once.default.title, once.default.source) == ("starter-2", str(tmp_path / "a" / "starter"))
    assert once.find("starter") is catalog.find("starter")
    twice = once.with_folder(tmp_path / "b" / "starter")
    assert twice.default.name == "starter-3"
    assert [model.name for model in twice.with_folder(tmp_path / "a" / "starter")][:2] == ["starter-2", "starter-3"]


def test_the_folder_of_a_model_on_offer_is_that_model(catalog: Catalog) -> None:
    assert [model.name for model in catalog.with_folder(STARTER)] == [model.name for model in catalog]
    assert catalog.with_folder(STARTER).default is catalog.default


def test_a_catalog_without_models_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        Catalog([])


def test_a_misspelt_key_in_a_catalog_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[a]\ntitle = "A"\nsource = "b/a"\nstpes = 3\n', encoding="utf-8")
    with pytest.raises(ValueError, match="stpes"):
        Catalog.load(file)


def test_the_embedded_model_is_read_as_64_pixels() -> None:
    model = local_model(STARTER)
    assert (model.family, model.native_size, model.name) == ("sd", 64, "starter")
    assert model.is_local
    assert isinstance(model.recipe(), Recipe)


@pytest.mark.parametrize(
    ("sample_size", "blocks", "pixels"),
    [(64, [1] * 4, 512), (96, [1] * 4, 768), ([32, 64], [1] * 4, 512), (32, [1] * 2, 64)],
)
def test_the_native_size_follows_from_the_configs(tmp_path: Path, sample_size: Any, blocks: list[int], pixels: int) -> None:
    folder = model_folder(tmp_path / "m", unet={"sample_size": sample_size}, vae={"block_out_channels": blocks})
    assert local_model(folder).native_size == pixels


@pytest.mark.parametrize(("sample_size", "blocks"), [(10**12, 4), (0, 4), (-64, 4), (1, 2), (64, 5000), ([64, 4096], 4)])
def test_a_size_that_nobody_draws_is_refused(tmp_path: Path, sample_size: Any, blocks: int) -> None:
    folder = model_folder(tmp_path / "m", unet={"sample_size": sample_size}, vae={"block_out_channels": [1] * blocks})
    with pytest.raises(ModelUnavailable, match=r"it is for pictures of [-\d,]+ pixels a side, and 32 to 4,096 can be drawn\.$"):
        local_model(folder)


@pytest.mark.parametrize(
    ("index", "scheduler", "name"),
    [
        (None, {"_class_name": "DEISMultistepScheduler"}, "DEIS"),
        (None, {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, "DPM++ 2M Karras"),
        (["diffusers", "EulerDiscreteScheduler"], {"_class_name": "DDIMScheduler", "use_karras_sigmas": True}, "Euler Karras"),
        (None, {"_class_name": "EDMEulerScheduler"}, DEFAULT_SCHEDULER),
        (None, {}, DEFAULT_SCHEDULER),
    ],
)
def test_a_folder_starts_on_the_scheduler_it_was_saved_with(tmp_path: Path, index: Any, scheduler: dict, name: str) -> None:
    """Where the two files differ, on the one that diffusers loads."""
    folder = model_folder(tmp_path / "m", index={**GOOD["model_index.json"], "scheduler": index}, scheduler=scheduler)
    assert local_model(folder).recipe().scheduler == name


def test_a_relative_folder_becomes_an_absolute_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    model = local_model(Path("mine"))
    assert (model.name, model.source) == ("mine", str((tmp_path / "mine").resolve()))


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=rf"^There is no folder {re.escape(str(tmp_path / 'no'))}: .*\.$"):
        local_model(tmp_path / "no")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.ckpt", "old model.bin"])
def test_a_single_file_is_not_opened_yet_and_it_is_said_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelUnavailable, match=r"is a single file, which cannot be opened yet: .*from_single_file\('.*'\)\."):
        local_model(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"index": None}, "model_index.json"), ({"unet": None}, "unet/config.json"), ({"vae": None}, "vae/config.json"),
        ({"scheduler": None}, "scheduler/scheduler_config.json"),
    ],
    ids=["index", "unet", "vae", "scheduler"],
)
def test_a_missing_file_is_named(tmp_path: Path, files: dict[str, None], missing: str) -> None:
    folder = model_folder(tmp_path / "m", **files)
    folder.mkdir(exist_ok=True)
    with pytest.raises(ModelUnavailable, match=rf"is no diffusers model folder: it has no {missing}\.$"):
        local_model(folder)


def test_another_pipeline_class_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", index={"_class_name": "StableDiffusionXLPipeline"})
    with pytest.raises(ModelUnavailable, match=r"holds a StableDiffusionXLPipeline; only StableDiffusionPipeline can be run"):
        local_model(folder)


def test_another_pipeline_class_without_a_unet_is_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", index={"_class_name": "FluxPipeline"}, unet=None)
    with pytest.raises(ModelUnavailable, match="holds a FluxPipeline"):
        local_model(folder)


@pytest.mark.parametrize("garbage", ["", "{", "not json", "\x00\x01", '{"_class_name": }'])
@pytest.mark.parametrize("file", ["index", "unet", "vae", "scheduler"])
def test_garbage_where_a_config_should_be_is_refused(tmp_path: Path, file: str, garbage: str) -> None:
    folder = model_folder(tmp_path / "m", **{file: garbage})
    with pytest.raises(ModelUnavailable, match="cannot be read as a diffusers model folder"):
        local_model(folder)


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model_index.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        local_model(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"index": [1]},
        {"index": "null"},
        {"index": "[" * 50_000},
        {"index": {"_class_name": ["StableDiffusionPipeline"]}},
        {"unet": [1]},
        {"unet": {"sample_size": None}},
        {"unet": {"sample_size": []}},
        {"unet": {"sample_size": "64"}},
        {"unet": {"sample_size": True}},
        {"unet": {"sample_size": 1.5}},
        {"unet": {"sample_size": {"height": 64}}},
        {"vae": {"block_out_channels": 4}},
        {"scheduler": [1]},
        {"index": {"_class_name": "StableDiffusionPipeline", "scheduler": "PNDMScheduler"}},
    ],
    ids=[
        "index-list", "index-null", "index-nested", "class-list", "unet-list", "size-null", "size-empty", "size-text",
        "size-true", "size-part", "size-table", "blocks-number",
        "scheduler-list", "scheduler-text",
    ],
)
def test_json_of_another_shape_is_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    with pytest.raises(ModelUnavailable):
        local_model(model_folder(tmp_path / "m", **files))


def test_limits_let_pass_what_is_just_allowed() -> None:
    Limits(max_steps=20, max_pixels=64 * 64).check(make_recipe(steps=20, width=32, height=128))


def test_too_many_steps_are_refused_with_the_limit() -> None:
    with pytest.raises(InvalidRequest, match=r"^Steps must be at most 150 here; it was 1,000\.$"):
        Limits().check(make_recipe(steps=1000))


def test_too_many_pixels_are_refused_with_a_size_that_fits() -> None:
    with pytest.raises(InvalidRequest, match=r"^1024 x 512 is too large here: at most 262,144 pixels, such as 512 x 512\.$"):
        Limits(max_pixels=512 * 512).check(make_recipe(width=1024, height=512))


def test_the_suggested_size_is_itself_accepted() -> None:
    limits = Limits(max_pixels=500_000)
    with pytest.raises(InvalidRequest) as caught:
        limits.check(make_recipe(width=1024, height=1024))
    width, height = map(int, re.search(r"such as (\d+) x (\d+)", str(caught.value)).groups())
    limits.check(make_recipe(width=width, height=height))


def test_the_style_presets_are_styles_with_unique_names_that_do_something() -> None:
    styles = load_styles(ROOT / "presets" / "styles.toml")
    assert len({style.name for style in styles}) == len(styles) >= 5
    assert all("a fox" in style.apply("a fox") for style in styles)
    assert all(style.apply("a fox") != "a fox" or style.negative_prompt for style in styles)


def test_a_misspelt_key_in_a_style_is_refused(tmp_path: Path) -> None:
    (tmp_path / "styles.toml").write_text('["Ink"]\npromt = "ink"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="promt"):
        load_styles(tmp_path / "styles.toml")


# ---- settings from elsewhere


@pytest.mark.parametrize(
    ("given", "near", "note"),
    [
        ({"steps": 200}, {"steps": 150}, "Steps 200 became 150, the most here."),
        ({"steps": 10**30}, {"steps": 150}, "Steps 1e+30 became 150, the most here."),
        ({"steps": -5}, {"steps": 1}, "Steps -5 became 1, the least here."),
        ({"guidance_scale": 0.0}, {"guidance_scale": 1.0}, "CFG scale 0 became 1, the least here."),
        ({"guidance_scale": 99.5}, {"guidance_scale": 30.0}, "CFG scale 99.5 became 30, the most here."),
        ({"clip_skip": 0}, {"clip_skip": 1}, "CLIP skip 0 became 1, the least here."),
        ({"clip_skip": 13}, {"clip_skip": 12}, "CLIP skip 13 became 12, the most here."),
        ({"seed": -1}, {}, "Seed -1 is not from 0 to 9,007,199,254,740,991: it was not taken over."),
        ({"seed": 2**53}, {}, "Seed 9007199254740992 is not from 0 to 9,007,199,254,740,991: it was not taken over."),
        # A1111 floors: opt_f = 8, and latents of height // opt_f in its modules/processing.py
        ({"width": 500, "height": 518}, {"width": 496, "height": 512}, "Size 500 x 518 became 496 x 512, the nearest here."),
        ({"width": 8, "height": 64}, {"width": 32, "height": 64}, "Size 8 x 64 became 32 x 64, the nearest here."),
        ({"width": 4096, "height": 4096}, {"width": 2048, "height": 2048}, "Size 4096 x 4096 became 2048 x 2048, the nearest here."),
    ],
)  # fmt: skip
def test_numbers_from_elsewhere_come_within_the_limits_with_a_note(given: dict, near: dict, note: str) -> None:
    assert Limits().fit({"prompt": "a fox", **given}) == ({"prompt": "a fox", **near}, [note])


def test_settings_within_the_limits_stay_as_they_are() -> None:
    recipe = make_recipe(steps=150, guidance_scale=6.55, clip_skip=12, seed=5, width=2048, height=2048)
    assert Limits().fit(dict(recipe)) == (dict(recipe), [])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    whole=st.dictionaries(st.sampled_from(["steps", "clip_skip", "seed", "width", "height"]), st.integers(-(10**30), 10**30)),
    scale=st.floats(allow_nan=False, allow_infinity=False),
    pixels=st.integers(32 * 4096, 2**24),  # below, the narrowest shapes do not fit
)
def test_whatever_was_fitted_can_be_planned(whole: dict[str, int], scale: float, pixels: int) -> None:
    limits = Limits(max_pixels=pixels)
    near, _ = limits.fit({**whole, "guidance_scale": scale})
    recipe = make_recipe(**{"width": 32, "height": 32, **near})
    if {"width", "height"} <= whole.keys():
        limits.check(recipe)
