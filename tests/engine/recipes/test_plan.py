from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import InvalidRequest
from engine.recipes.axes import Offer
from engine.recipes.catalog import Catalog, Limits, ModelSpec
from engine.recipes.plan import AxisLine, Cell, Grid, GridPreset, Plan, differences, load_grids, plan_grid, plan_images, refine
from engine.recipes.recipe import MAX_SEED, RANDOM_SEEDS, Style, make_recipe, random_seed
from engine.recipes.values import write_line
from tests.conftest import ROOT
from tests.engine.recipes.replacing_rule import stated

CATALOG = Catalog([ModelSpec(name="starter", title="Starter", source="owner/starter")])


def plan(count: int = 1, exact: bool = False, limits: Limits | None = None, **recipe: object) -> Plan:
    return plan_images(make_recipe(**recipe), CATALOG, limits or Limits(), count=count, exact=exact)


def test_one_picture_is_a_plan_of_one_cell_with_the_recipe_as_it_is() -> None:
    (cell,) = plan(seed=7, prompt="a fox").cells
    assert cell.index == 0
    assert cell.recipe == make_recipe(seed=7, prompt="a fox")


def test_several_images_differ_in_nothing_but_their_seeds() -> None:
    cells = plan(count=4, seed=10, prompt="a fox", steps=9).cells
    assert [cell.index for cell in cells] == [0, 1, 2, 3]
    assert [cell.recipe.seed for cell in cells] == [10, 11, 12, 13]
    assert {cell.recipe.replace(seed=0) for cell in cells} == {make_recipe(prompt="a fox", steps=9)}


@pytest.mark.parametrize("exact", [False, True])
def test_exact_is_handed_on(exact: bool) -> None:
    assert plan(exact=exact).exact is exact


@pytest.mark.parametrize(("count", "shown"), [(0, "0"), (-3, "-3"), (101, "101"), (10**6, "1,000,000")])
def test_a_number_of_images_out_of_range_is_refused_with_the_range(count: int, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Number of images must be from 1 to 100; it was {shown}\.$"):
        plan(count=count)


def test_the_largest_allowed_number_of_images_is_planned() -> None:
    assert len(plan(count=5, limits=Limits(max_images=5)).cells) == 5


def test_seeds_may_go_up_to_the_last_one() -> None:
    assert plan(count=3, seed=MAX_SEED - 2).cells[-1].recipe.seed == MAX_SEED


def test_seeds_past_the_last_one_are_refused_with_it() -> None:
    with pytest.raises(InvalidRequest, match=r"^The last seed would be above 9,007,199,254,740,991: start lower"):
        plan(count=3, seed=MAX_SEED - 1)


def test_a_model_that_is_not_on_offer_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="There is no model “other” here"):
        plan(model="other")


def test_what_the_operator_forbids_is_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidRequest, match="Steps must be at most 10 here"):
        plan(steps=11, limits=Limits(max_steps=10))


def test_random_seeds_are_short_and_differ() -> None:
    seeds = {random_seed() for _ in range(50)}
    assert len(seeds) > 40
    assert all(0 <= seed < RANDOM_SEEDS for seed in seeds)


# ---- grids


STYLES = (Style(name="Ink", prompt="ink drawing of {prompt}"), Style(name="Oil", prompt="oil painting of {prompt}"))
OFFER = Offer(Catalog([*CATALOG, ModelSpec(name="sd15", title="SD 1.5", source="owner/sd15")]), Limits(), STYLES)


def grid(x: str = "", y: str = "", z: str = "", exact: bool = False, **recipe: object) -> Grid:
    """A grid with axes written as "cfg: 3, 5"."""
    parts = {name: text.split(": ", 1) for name, text in {"x": x, "y": y, "z": z}.items() if text}
    axes = {name: AxisLine(axis=axis, values=values) for name, (axis, values) in parts.items()}
    return Grid(recipe=make_recipe(**{"prompt": "a red cat", **recipe}), **axes, exact=exact)


def planned(*args: str, **kwargs: object) -> Plan:
    return plan_grid(grid(*args, **kwargs), OFFER)


def lines(of: Grid) -> list[tuple[str, str] | None]:
    return [line and (line.axis, line.values) for line in (of.x, of.y, of.z)]


def test_a_grid_is_planned_x_fastest_then_y_then_z() -> None:
    made = planned("cfg: 3, 5", "steps: 10, 20", "scheduler: Euler, Heun")
    assert [cell.index for cell in made.cells] == list(range(8))
    assert [cell.place for cell in made.cells] == [(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    settings = [(cell.recipe.guidance_scale, cell.recipe.steps, cell.recipe.scheduler) for cell in made.cells]
    assert settings[:5] == [(3, 10, "Euler"), (5, 10, "Euler"), (3, 20, "Euler"), (5, 20, "Euler"), (3, 10, "Heun")]
    assert (made.shape, made.titles) == ((2, 2, 2), ("CFG scale", "Steps", "Scheduler"))
    assert made.labels == (("3", "5"), ("10", "20"), ("Euler", "Heun"))
    assert made.at((1, 0, 1)) == made.cells[5]


def test_a_grid_without_axes_is_one_picture() -> None:
    made = planned(seed=7, exact=True)
    assert [cell.recipe for cell in made.cells] == [make_recipe(prompt="a red cat", seed=7)]
    assert (made.shape, made.labels, made.titles, made.exact) == ((1, 1, 1), (("",),) * 3, ("",) * 3, True)


def test_an_axis_may_stand_anywhere_and_goes_by_its_label_too() -> None:
    made = planned(z="CFG SCALE: 3, 5")
    assert (made.shape, made.titles) == ((1, 1, 2), ("", "", "CFG scale"))
    assert lines(made.grid) == [None, None, ("cfg", "3, 5")]


def test_the_planned_grid_is_resolved_and_gives_an_equal_plan() -> None:
    made = planned("seed: 7, 3 random seeds", "cfg: 3-5", "scheduler: heun k, EULER")
    seeds = [cell.recipe.seed for cell in made.cells[:4]]
    assert lines(made.grid) == [("seed", ", ".join(map(str, seeds))), ("cfg", "3, 4, 5"), ("scheduler", "Heun Karras, Euler")]
    assert plan_grid(made.grid, OFFER) == made


@pytest.mark.parametrize(
    ("x", "y", "recipe"),
    [
        ("variants: ", "replace: cat, dog", {"prompt": "a {red|blue} cat"}),
        ("style: None, ink", "size: 64, 96x64", {}),
        ("model: sd, starter", "negative: ,blurry", {}),
        ("prompt: a cat, sitting\na dog, running\na bird", "negative: blurry\\, text, red", {}),
        ("prompt: " + '"' + '""' * 3000 + '", a', "", {}),
    ],
)
def test_every_kind_of_axis_is_planned_again_alike_also_from_json(x: str, y: str, recipe: dict) -> None:
    made = planned(x, y, **recipe)
    again = Grid.model_validate(json.loads(json.dumps(made.grid.model_dump(mode="json"))))
    assert again == made.grid
    assert plan_grid(again, OFFER) == made


def test_a_grid_refuses_keys_and_lines_that_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        Grid.model_validate({"recipe": {}, "w": None})
    with pytest.raises(ValidationError):
        AxisLine(axis="prompt", values="a" * 20_001)


def test_the_product_is_refused_before_any_recipe_is_made() -> None:
    with pytest.raises(InvalidRequest, match=r"^10 x 10 x 10 = 1,000 cells are more than the 100 allowed here: shorten an axis\.$"):
        planned("cfg: 1-10", "steps: 1-10", "replace: no such word, 1, 2, 3, 4, 5, 6, 7, 8, 9")
    assert len(planned("cfg: 1-10", "steps: 1-10").cells) == 100
    with pytest.raises(InvalidRequest, match=r"^51 x 2 = 102 cells"):
        planned("steps: 50-100", z="cfg: 1, 2")


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        ("cfg: 3", "CFG scale: 5", "CFG scale is on two axes: keep one of them."),
        ("size: 64", "width: 96", "Size and Width both change the width: keep one of them."),
        ("height: 64", "size: 96", "Height and Size both change the height: keep one of them."),
        ("prompt: a, b", "variants: {c|d}", "Prompt and Prompt variants both change the prompt: keep one of them."),
    ],
)
def test_two_axes_over_one_field_are_refused(x: str, y: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        planned(x, y)
    assert str(caught.value) == sentence


def test_search_and_replace_may_be_on_two_axes_and_works_on_the_prompts_of_a_third() -> None:
    made = planned("replace: cat, dog", "replace: red, blue", "prompt: a red cat, red cats")
    assert [cell.recipe.prompt for cell in made.cells] == [
        "a red cat", "a red dog", "a blue cat", "a blue dog", "red cats", "red dogs", "blue cats", "blue dogs",
    ]  # fmt: skip
    assert planned("replace: cat, dog", "variants: {big|small} cat").at((1, 1, 0)).recipe.prompt == "small dog"


def prompts(made: Plan) -> dict[tuple[str, ...], str]:
    """The cells' prompts by the labels of their places."""
    return {tuple(made.values_at(cell.place).values()): cell.recipe.prompt for cell in made.cells}


def test_two_axes_that_exchange_words_do_not_find_what_the_other_has_put_there() -> None:
    """shared/cases, section axes."""
    assert prompts(planned("replace: cat, dog, bird", "replace: dog, cat, bird", prompt="a cat, standing on top of a dog")) == {
        (one, other): f"a {one}, standing on top of a {other}" for one in ("cat", "dog", "bird") for other in ("dog", "cat", "bird")
    }


def test_three_axes_replace_their_words_at_once_also_in_the_negative_prompt() -> None:
    made = planned("replace: red, blue", "replace: blue, green", "replace: green, red", prompt="red, blue", negative_prompt="green red")
    assert [(cell.recipe.prompt, cell.recipe.negative_prompt) for cell in made.cells] == [
        (f"{x}, {y}", f"{z} {x}") for z in ("green", "red") for y in ("blue", "green") for x in ("red", "blue")
    ]


WORDS = st.text(st.sampled_from("ab\\.*($é🦊\u200dש"), min_size=1, max_size=3)


@given(st.lists(st.lists(WORDS, min_size=2, max_size=3, unique=True), min_size=1, max_size=3), st.lists(WORDS, max_size=12))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_every_cell_of_several_axes_is_the_prompt_with_its_words_in_their_places(axes: list[list[str]], between: list[str]) -> None:
    prompt = " ".join([*between, *(axis[0] for axis in axes)])
    lines = ["replace: " + write_line(axis) for axis in axes]
    marks = {axis[0]: chr(0xE000 + at) for at, axis in enumerate(axes)}
    if len(marks) < len(axes) or not set(marks.values()) <= set(stated(prompt, marks)):
        with pytest.raises(InvalidRequest, match=r"same word on two axes|stands only where another axis replaces"):
            planned(*lines, prompt=prompt)
        return
    for cell in planned(*lines, prompt=prompt).cells:
        by = {axis[0]: axis[at] for axis, at in zip(axes, cell.place, strict=False)}
        assert cell.recipe.prompt == stated(prompt, by)


def test_of_a_word_within_another_axiss_word_only_its_own_places_are_replaced() -> None:
    made = planned("replace: cat, dog", "replace: category, kind", prompt="a cat of its category")
    assert list(prompts(made).values()) == ["a cat of its category", "a dog of its category", "a cat of its kind", "a dog of its kind"]
    assert prompts(planned("replace: cat, dog", prompt="a cat of its category"))["dog",] == "a dog of its dogegory", "as before, and A1111"


def test_search_and_replace_leaves_alone_what_a_variant_chose() -> None:
    made = planned("variants: a {cat|dog} on top of a cat", "replace: cat, dog, bird")
    assert prompts(made) == {
        (f"a {chosen} on top of a cat", word): f"a {chosen} on top of a {word}"
        for chosen in ("cat", "dog")
        for word in ("cat", "dog", "bird")
    }


def test_a_word_that_only_the_alternatives_have_is_replaced_there() -> None:
    made = planned("variants: {a red cat|the blue cat} sits", "replace: cat, dog")
    assert [cell.recipe.prompt for cell in made.cells] == ["a red cat sits", "the blue cat sits", "a red dog sits", "the blue dog sits"]


def test_axes_that_search_the_same_word_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^Prompt S/R begins with the same word on two axes: write all its values on one of them\.$"):
        planned("replace: cat, dog", "replace: cat, bird")


def test_a_word_that_only_the_style_has_is_said_to_be_that() -> None:
    with pytest.raises(InvalidRequest, match=r"^Prompt S/R: “drawing” stands only in the style “Ink”, whose words are not searched: "):
        planned("replace: drawing, painting", style=STYLES[0])


def test_a_word_that_stands_only_within_another_axiss_word_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^Prompt S/R: “red” stands only where another axis replaces “red cat”: begin with words "):
        planned("replace: red, blue", "replace: red cat, dog")


@pytest.mark.parametrize(("x", "y"), [("replace: Cat, dog", ""), ("replace: cat, x", "prompt: a cat, a dog")])
def test_a_word_that_a_prompt_lacks_is_refused_with_the_prompt(x: str, y: str) -> None:
    with pytest.raises(InvalidRequest, match=r"stands neither in the prompt “a .*” nor in the negative prompt “”"):
        planned(x, y)


def test_a_long_prompt_may_be_exchanged_together_with_a_long_style() -> None:
    long = Style(name="Long", prompt="{prompt}, {prompt}, {prompt}, {prompt}")
    made = plan_grid(grid("style: None", "prompt: " + "a" * 3500, style=long), OFFER)
    assert len(made.cells[0].recipe.full_prompt) == 3500


def test_limits_and_models_are_checked_in_every_cell() -> None:
    with pytest.raises(InvalidRequest, match="too large here"):
        planned("width: 512, 4096", height=2048)
    with pytest.raises(InvalidRequest, match="no model “other”"):
        planned(model="other")
    assert planned("model: starter", model="other").cells[0].recipe.model == "starter"


def test_a_place_outside_the_grid_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no cell 2 x 0 x 0 in this grid of 2 x 1 x 1"):
        planned("cfg: 3, 5").at((2, 0, 0))


# ---- growing


def test_a_grown_plan_keeps_the_index_of_every_picture_it_had() -> None:
    old, new = planned("cfg: 3, 5", "steps: 10, 20"), planned("cfg: 4, 3, 5", "steps: 20, 10, 30")
    grown = old.grown_to(new)
    kept = {cell.recipe: cell.index for cell in old.cells}
    assert [(cell.place, cell.recipe) for cell in grown.cells] == [(cell.place, cell.recipe) for cell in new.cells]
    assert all(kept[cell.recipe] == cell.index for cell in grown.cells if cell.recipe in kept)
    assert sorted(cell.index for cell in grown.cells) == list(range(9))
    assert (grown.labels, grown.titles, grown.grid) == (new.labels, new.titles, new.grid)
    assert grown.at((1, 1, 0)).index == old.at((0, 0, 0)).index == 0
    assert grown.grown_to(new) == grown


def test_a_plan_does_not_grow_into_one_that_lacks_a_picture_or_is_not_as_exact() -> None:
    old = planned("cfg: 3, 5")
    assert old.grown_to(planned("cfg: 3, 6, 7")) is None
    assert old.grown_to(planned("cfg: 3, 5, 7", exact=True)) is None
    assert old.grown_to(planned("cfg: 3, 5", seed=1)) is None
    assert old.grown_to(old) == old


def test_equal_recipes_in_one_plan_keep_indexes_of_their_own() -> None:
    twice, thrice = (Plan(tuple(Cell(i, make_recipe()) for i in range(count))) for count in (2, 3))
    assert [cell.index for cell in twice.grown_to(thrice).cells] == [0, 1, 2]
    assert thrice.grown_to(twice) is None


# ---- refining


def test_refining_goes_halfway_to_the_neighbours_and_keeps_the_rest() -> None:
    finer = refine(planned("cfg: 6, 7, 8", "seed: 5, 6", "steps: 10, 20, 30", exact=True).grid, (1, 1, 1), OFFER)
    assert lines(finer) == [("cfg", "6.5, 7, 7.5"), None, ("steps", "15, 20, 25")]
    assert (finer.recipe.seed, finer.recipe.guidance_scale, finer.recipe.steps, finer.exact) == (6, 7, 20, True)
    assert plan_grid(finer, OFFER).at((1, 0, 1)).recipe == finer.recipe


def test_texts_fold_into_the_recipe_when_a_grid_is_refined() -> None:
    finer = refine(grid("width: 64, 96", "replace: cat, dog", "prompt: a cat, the cat"), (0, 1, 1), OFFER)
    assert lines(finer) == [("width", "48, 64, 80"), None, None]
    assert finer.recipe.prompt == "the dog"


@pytest.mark.parametrize("x", ["", "seed: 1, 2", "cfg: 7", "steps: 10, 11"])
def test_what_cannot_be_refined_is_refused_with_what_can(x: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^Nothing here can be made finer: that takes an axis of CFG scale, Steps, Width, Height "):
        refine(grid(x), (0, 0, 0), OFFER)


def test_a_cell_that_is_not_there_cannot_be_refined() -> None:
    with pytest.raises(InvalidRequest, match="no cell"):
        refine(grid("cfg: 6, 7"), (-1, 0, 0), OFFER)


# ---- differences and presets


def test_differences_are_read_out_as_a_person_reads_them() -> None:
    one, other = make_recipe(seed=1, guidance_scale=7), make_recipe(seed=2, guidance_scale=7.5, style=STYLES[0])
    assert differences(one, other) == [("Style", "None", "Ink"), ("Seed", "1", "2"), ("CFG scale", "7", "7.5")]
    assert differences(one, one) == []


PRESETS = load_grids(ROOT / "presets" / "grids")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_every_preset_is_planned_with_the_embedded_model(preset: GridPreset, catalog: Catalog) -> None:
    offer = Offer(catalog, Limits())
    made = plan_grid(preset.grid(catalog.find("starter").recipe(prompt="an owl, noto style")), offer)
    assert len(made.cells) > 1
    assert plan_grid(made.grid, offer) == made
    assert made.cells[0].recipe.prompt == (preset.prompt or "an owl, noto style")


def test_presets_are_told_apart_and_explain_themselves() -> None:
    assert len({preset.title for preset in PRESETS}) == len(PRESETS) >= 5
    assert all(preset.note for preset in PRESETS)


def test_a_misspelt_key_in_a_preset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('title = "A"\n[x]\naxis = "cfg"\nvaluse = "1"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="valuse"):
        load_grids(tmp_path)


# ---- what a plan is called by


def test_a_cell_is_named_by_its_values() -> None:
    made = planned("cfg: 3, 5", "seed: 2")
    assert (made.name_of(made.cells[1]), made.values_at((1, 0, 0))) == ("CFG scale 5, Seed 2", {"CFG scale": "5", "Seed": "2"})
    assert planned(seed=9).name_of(planned(seed=9).cells[0]) == "Seed 9"
    assert planned().values_at((0, 0, 0)) == plan().values_at((0, 0, 0)) == {}


def test_two_axes_of_one_title_are_told_apart() -> None:
    made = planned("replace: red, blue", "replace: cat, dog", "cfg: 3")
    assert made.values_at((1, 0, 0)) == {"Prompt S/R (X)": "blue", "Prompt S/R (Y)": "cat", "CFG scale": "3"}
    assert made.name_of(made.cells[1]) == "Prompt S/R (X) blue, Prompt S/R (Y) cat, CFG scale 3"


@pytest.mark.parametrize(
    ("axis", "heading"),
    [
        ("cfg: 3, 5", "ink drawing of a red cat"),
        ("replace: red, blue", "ink drawing of a red cat"),
        ("negative: dog, bird", "ink drawing of a red cat"),
        ("style: Ink, Oil", "a red cat"),
        ("prompt: a dog, a bird", ""),
        ("variants: a {dog|bird}", ""),
    ],
)
def test_a_plan_is_headed_by_the_prompt_that_its_cells_share(axis: str, heading: str) -> None:
    assert planned(axis, style=STYLES[0]).heading == heading


@pytest.mark.parametrize(
    ("axis", "negative"),
    [
        ("cfg: 3, 5", "blurry, ink blots"), ("replace: red, blue", "blurry, ink blots"), ("style: Ink, Oil", "blurry"),
        ("negative: a, b", ""),
    ],
)  # fmt: skip
def test_the_heading_has_the_negative_prompt_that_the_cells_share(axis: str, negative: str) -> None:
    style = STYLES[0].model_copy(update={"negative_prompt": "ink blots"})
    assert planned(axis, style=style, negative_prompt="blurry").negative_heading == negative
    assert planned(axis).negative_heading == ""


def test_without_words_the_heading_says_so() -> None:
    assert planned("cfg: 3, 5", prompt="").heading == "no prompt"
    assert plan(prompt="a fox").heading == "a fox"
