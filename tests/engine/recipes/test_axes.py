from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.recipes.axes import AXES, NOT_HERE, Offer, Replacement, find_axis, write_values
from engine.recipes.catalog import Limits
from engine.recipes.recipe import MAX_SEED, RANDOM_SEEDS, Recipe, make_recipe
from engine.recipes.values import longer_line
from tests.engine.recipes.offer import OFFER, VALUES

RECIPE = make_recipe(prompt="a cat on a mat")
HOSTILE = [
    '"a",' * 4999 + "x", '"a",' * 4999 + "x\ny", '"\n",' * 4999 + "x", '"a\n' * 6666, "\\," * 9999, ",\n" * 9999,
    "a" + " " * 19_990 + "\nb", "", ",", "||", '"', "{", "}{", "{|}", "-,-", "1-", "nan, inf, 1e5", "\ud800", "\0",
    *(mark * 19_999 for mark in '9("{'),
]  # fmt: skip


def read(axis: str, line: str, offer: Offer = OFFER, recipe: Recipe = RECIPE) -> list[Any]:
    return AXES[axis].read(line, offer, recipe)


def refusal(axis: str, line: str, offer: Offer = OFFER, recipe: Recipe = RECIPE) -> str:
    """The sentence that refuses a line, checked to be one that fits on the page."""
    with pytest.raises(InvalidRequest) as caught:
        read(axis, line, offer, recipe)
    message = str(caught.value)
    assert message[-1] in ".?"
    assert len(message) < 320
    return message


# ---- the table


@pytest.mark.parametrize("row", AXES.values(), ids=AXES)
def test_every_axis_changes_real_fields_and_is_found_by_name_and_label(row: Any) -> None:
    assert set(row.fields) <= set(Recipe.model_fields)
    assert row.hint
    assert find_axis(row.name.upper()) is find_axis(f" {row.label.lower()} ") is row


@pytest.mark.parametrize("row", AXES.values(), ids=AXES)
def test_every_axis_refuses_a_hostile_line_with_a_sentence_or_reads_it(row: Any) -> None:
    for line in HOSTILE:
        try:
            values = row.read(line, OFFER, RECIPE)
        except InvalidRequest:
            refusal(row.name, line)
        else:
            assert all(isinstance(row.show(value), str) for value in values)


@pytest.mark.parametrize("row", [row for row in AXES.values() if row.choices(OFFER)], ids=lambda row: row.name)
def test_all_names_on_offer_can_be_written_in_one_line(row: Any) -> None:
    values = row.read(", ".join(row.choices(OFFER)), OFFER, RECIPE)
    assert [row.show(value) for value in values] == row.choices(OFFER)
    assert row.read(write_values(row, values), OFFER, RECIPE) == values


A1111_AXES = {
    "Seed": "seed", "Steps": "steps", "CFG Scale": "cfg", "Prompt S/R": "replace", "Sampler": "scheduler", "Checkpoint name": "model",
    "Clip skip": "clip_skip", "Styles": "style", "Size": "size",
}  # fmt: skip
"""The options of its scripts/xyz_grid.py, release 1.10, that vary what a row varies here."""


@pytest.mark.parametrize(("name", "row"), A1111_AXES.items())
def test_the_names_of_a1111_are_understood(name: str, row: str) -> None:
    assert find_axis(name) is find_axis(name.upper()) is AXES[row]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("guidance_scale", "cfg"), ("negative_prompt", "negative"), ("Negative", "negative"), ("clip-skip", "clip_skip"),
        ("sched", "scheduler"), ("prompt v", "variants"), (" CLIP  Skip ", "clip_skip"), ("num_inference_steps", "steps"),
    ],
)  # fmt: skip
def test_other_spellings_of_an_axis(name: str, row: str) -> None:
    assert find_axis(name) is AXES[row]


def test_an_axis_of_a1111_that_is_not_here_is_said_to_be_that() -> None:
    with pytest.raises(InvalidRequest, match=r"^Hires steps cannot be varied here; there is Seed, CFG scale, .*Prompt variants\.$"):
        find_axis("Hires steps")
    with pytest.raises(InvalidRequest, match=r"^Schedule type cannot be varied here; it is part of a scheduler's name, such as "):
        find_axis("Schedule type")


def test_a_spelling_stands_for_one_axis() -> None:
    spellings = [one.casefold() for row in AXES.values() for one in {row.name, row.label.casefold(), *row.aliases}]
    assert len(set(spellings)) == len(spellings)
    assert not set(spellings) & set(NOT_HERE)


def test_the_beginning_of_several_axes_is_answered_with_them() -> None:
    with pytest.raises(InvalidRequest, match=r"^The axis “pro” may be Prompt, Prompt S/R, Prompt variants: write more of its name\.$"):
        find_axis("pro")


def test_an_unknown_axis_is_answered_with_the_nearest_or_with_all() -> None:
    with pytest.raises(InvalidRequest, match=r"no axis “cgf”; there is CFG scale\."):
        find_axis("cgf")
    with pytest.raises(InvalidRequest, match=r"there is Seed, CFG scale, .*Prompt variants"):
        find_axis("q" * 1000)


# ---- numbers


@pytest.mark.parametrize(
    ("axis", "line", "values"),
    [
        ("cfg", "1, 3, 5-9", [1, 3, 5, 6, 7, 8, 9]),
        ("cfg", "1-9 (+2)", [1, 3, 5, 7, 9]),
        ("cfg", "9-1 (-2)", [9, 7, 5, 3, 1]),
        ("cfg", "9-7", [9, 8, 7]),
        ("cfg", "1-10 [4]", [1, 4, 7, 10]),
        ("cfg", "10 – 1[4]", [10, 7, 4, 1]),
        ("cfg", "1-1.3 (+0.1)", [1, 1.1, 1.2, 1.3]),
        ("cfg", "1-2 [4]", [1, 1.333, 1.667, 2]),
        ("cfg", " 7 ,, 8, ", [7, 8]),
        ("cfg", "7, 8,\n\n 9\r\n10,", [7, 8, 9, 10]),
        ("cfg", "7 || 8\n9", [7, 8, 9]),
        ("cfg", '"7", +7.5, 8.', [7, 7.5, 8]),
        ("steps", "1-10 [3]", [1, 6, 10]),
        ("steps", "10-30 (+10)", [10, 20, 30]),
        ("steps", "8.0", [8]),
        ("width", "64-96", [64, 72, 80, 88, 96]),
        ("width", "64-128 [4]", [64, 88, 104, 128]),
        ("size", "64, 96x64, 64 × 96", [(64, 64), (96, 64), (64, 96)]),
        ("size", "64-128 (+32)", [(64, 64), (96, 96), (128, 128)]),
        ("seed", f"0, {MAX_SEED}", [0, MAX_SEED]),
    ],
)
def test_numbers_are_read(axis: str, line: str, values: list[Any]) -> None:
    assert read(axis, line) == values


def test_a_decimal_step_gives_the_decimals_a_person_would_write() -> None:
    assert read("cfg", "1-2 (+0.1)") == [float(f"1.{i}") for i in range(10)] + [2.0]


def test_whole_numbers_are_ints_and_others_floats() -> None:
    assert {type(value) for axis in ("seed", "steps", "width") for value in read(axis, "64-128 (+64)")} == {int}
    assert {type(value) for value in read("cfg", "1-3")} == {float}


@pytest.mark.parametrize(
    ("axis", "line", "fragments"),
    [
        ("cfg", "3, abc", ("CFG scale", "“abc”", "5-9 (+2)")),
        ("cfg", "45", ("CFG scale", "a number from 1 to 30", "it was 45", "nearest is 30")),
        ("cfg", "-3", ("it was -3", "nearest is 1.")),
        ("cfg", "5-99", ("it was 99", "nearest is 30")),
        ("cfg", "nan", ("“nan”",)),
        ("cfg", "1e3", ("“1e3”",)),
        ("cfg", "7, 7.0", ("“7” is named twice",)),
        ("cfg", "7, 7.00000000000000000001", ("“7” is named twice",)),
        ("seed", "-0, 0", ("“0” is named twice",)),
        ("cfg", "1-9 (-2)", ("step of “1-9 (-2)”", "from 1 to 9")),
        ("cfg", "1-9 (+0)", ("step of “1-9 (+0)”",)),
        ("cfg", "1-30 (+0.01)", ("“1-30 (+0.01)”", "more than the 100")),
        ("cfg", "1-2 [1]", ("from 2 to 100",)),
        ("cfg", "1-2 [101]", ("from 2 to 100",)),
        ("cfg", "", ("needs at least one value", "5-9 (+2)")),
        ("steps", "2.5", ("a whole number from 1 to 150", "it was 2.5", "nearest is 2.")),
        ("steps", "1-3 (+0.5)", ("it was 1.5",)),
        ("steps", "1-2 [4]", ("“1” is named twice",)),
        ("steps", "151", ("from 1 to 150", "nearest is 150")),
        ("steps", "1-60, 61-120", ("120 values", "the 100 allowed")),
        ("width", "510", ("a multiple of 8 from 32 to 4,096", "it was 510", "nearest is 512")),
        ("width", "1", ("nearest is 32",)),
        ("size", "64x60", ("Size", "a multiple of 8", "it was 60")),
        ("size", "64, 64x64", ("“64x64” is named twice",)),
        ("size", "64x", ("“64x”", "96x64")),
        ("seed", "-1", ("Seed", "from 0 to 9,007,199,254,740,991", "nearest is 0")),
        ("seed", "0 random", ("“0 random”", "1 to 100 seeds")),
        ("seed", "99999 random seeds", ("“99999 random seeds”", "1 to 100 seeds")),
        ("seed", "some seeds", ("“some seeds”", "4 random seeds")),
    ],
)
def test_a_wrong_number_is_refused_in_a_sentence(axis: str, line: str, fragments: tuple[str, ...]) -> None:
    message = refusal(axis, line)
    assert [fragment for fragment in fragments if fragment not in message] == []


@pytest.mark.parametrize("line", ["1-1000000000", f"0-{MAX_SEED}", f"{MAX_SEED}-0", f"0-{MAX_SEED} (+0.{'0' * 5000}1)"])
def test_a_range_beyond_the_limit_is_refused_without_being_built(line: str) -> None:
    assert "more than the 100 values allowed here" in refusal("seed", line)


def test_the_limit_of_an_axis_is_the_operators() -> None:
    small = Offer(OFFER.catalog, Limits(max_images=3, max_steps=9), OFFER.styles)
    assert read("cfg", "1-3", small) == [1, 2, 3]
    assert "the 3 values allowed" in refusal("cfg", "1-4", small)
    assert "4 values are more than the 3" in refusal("prompt", "a, b, c, d", small)
    assert "from 1 to 9" in refusal("steps", "10", small)
    assert "the 3 allowed" in refusal("variants", "{a|b|c|d}", small)


@pytest.mark.parametrize(("line", "count"), [("4 random seeds", 4), ("2 Random", 2), ("random", 1), ("1 random seed", 1)])
def test_random_seeds_are_drawn_and_differ(line: str, count: int) -> None:
    seeds = read("seed", line)
    assert len(set(seeds)) == len(seeds) == count
    assert all(0 <= seed < RANDOM_SEEDS for seed in seeds)


def test_random_seeds_stand_where_they_were_written() -> None:
    first, *drawn, last = read("seed", "7, 3 random seeds, 9")
    assert (first, last, len({first, *drawn, last})) == (7, 9, 5)


def test_a_drawn_seed_differs_from_those_written_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([5, 5, 6, 6, 8])
    monkeypatch.setattr("random.SystemRandom.randrange", lambda source, most: next(draws))
    assert read("seed", "2 random, 5") == [6, 8, 5]


# ---- names


@pytest.mark.parametrize(
    ("axis", "typed", "meant"),
    [
        ("scheduler", "euler a", "Euler a"),
        ("scheduler", "EULER", "Euler"),
        ("scheduler", "heun k", "Heun Karras"),
        ("scheduler", "3m sde kar", "DPM++ 3M SDE Karras"),
        ("scheduler", "pn", "PNDM"),
        ("scheduler", "dpmpp_2m_karras", "DPM++ 2M Karras"),
        ("scheduler", "k_euler_a", "Euler a"),
        ("scheduler", "PLMS", "PNDM"),
        ("model", "sd", "sd15"),
        ("style", "ink", "Ink drawing"),
        ("style", "none", "None"),
        ("style", "noir", "Film noir"),
    ],
)
def test_a_name_is_completed(axis: str, typed: str, meant: str) -> None:
    assert [AXES[axis].show(value) for value in read(axis, typed)] == [meant]


@pytest.mark.parametrize(
    ("axis", "typed", "fragments"),
    [
        ("scheduler", "eul", ("Scheduler", "“eul” may be Euler, Euler Karras, Euler a", "write more")),
        ("scheduler", "eulre", ("no “eulre” here", "did you mean Euler")),
        ("scheduler", "Euler, euler", ("“Euler” is named twice",)),
        ("scheduler", "q" * 500, ("qqq...", "there is DPM++ 2M")),
        ("model", "startre", ("Model", "did you mean starter")),
        ("style", "watercolor", ("Style", "did you mean Watercolour")),
    ],
)
def test_an_unclear_name_is_answered_with_candidates(axis: str, typed: str, fragments: tuple[str, ...]) -> None:
    message = refusal(axis, typed)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_a_style_is_put_into_the_recipe_as_text() -> None:
    none, ink = read("style", "None, Ink drawing")
    assert none is None
    assert RECIPE.replace(**AXES["style"].changes(ink)).full_prompt.startswith("ink drawing of a cat on a mat, fine lines")


# ---- texts


@pytest.mark.parametrize(
    ("axis", "line", "texts"),
    [
        ("prompt", '"a cat, sitting", a dog', ["a cat, sitting", "a dog"]),
        ("prompt", "a cat, sitting || a dog", ["a cat, sitting", "a dog"]),
        ("prompt", 'a, b || "c || d" || "e" f', ["a, b", "c || d", '"e" f']),
        ("prompt", "a cat, sitting\na dog, running\na bird\n", ["a cat, sitting", "a dog, running", "a bird"]),
        ("prompt", "a\nb\r\n\n  c,\nd", ["a", "b", "c,", "d"]),
        ("prompt", "a\vb, c\u2028d", ["a", "b, c", "d"]),
        ("prompt", '"a, b", "c"\nd, e', ["a, b", "c", "d, e"]),
        ("prompt", '"a, b",\n"c",\n"d", "e",\nf, "g"', ["a, b", "c", "d", "e", 'f, "g"']),
        ("prompt", '"a", b\nc', ['"a", b', "c"]),
        ("prompt", '"a\nb", c, d', ["a\nb", "c", "d"]),
        ("prompt", "a cat\\, sitting, a dog", ["a cat, sitting", "a dog"]),
        ("prompt", 'a\\(b\\), "c\\, d", e\\', ["a\\(b\\)", "c\\, d", "e\\"]),
        ("prompt", "a\\, b || c", ["a\\, b", "c"]),
        ("negative", "blurry, text\nred", ["blurry, text", "red"]),
        ("prompt", "a cat, sitting || a dog\na fox, red", ["a cat, sitting", "a dog", "a fox, red"]),
        ("prompt", '"say ""hi"", now", "a\nb"', ['say "hi", now', "a\nb"]),
        ("prompt", '12" record, the "big" one', ['12" record', 'the "big" one']),
        ("prompt", "a, , b,", ["a", "b"]),
        ("prompt", '"", a', ["", "a"]),
        ("negative", ", blurry", ["", "blurry"]),
        ("negative", "blurry,", ["blurry", ""]),
        ("negative", "blurry\n\ntext\n", ["blurry", "text"]),
    ],
)
def test_texts_are_read(axis: str, line: str, texts: list[str]) -> None:
    assert read(axis, line) == texts


PASTED = st.text(st.characters(codec="utf-8", exclude_categories=["Zl", "Zp", "Cc"], exclude_characters='"|'), min_size=1)


@given(st.lists(PASTED.map(str.strip).filter(bool), min_size=2, max_size=20, unique=True))
@settings(max_examples=60, deadline=None)
def test_every_line_that_is_pasted_is_a_value(lines: list[str]) -> None:
    assert read("prompt", "\n".join(lines)) == lines


def test_the_values_of_search_and_replace_may_hold_commas() -> None:
    for line in ("cat\\, red, dog", "cat, red\ndog", "cat, red || dog", '"cat, red", dog'):
        assert read("replace", line) == [Replacement("cat, red", "cat, red"), Replacement("cat, red", "dog")]


@pytest.mark.parametrize(("axis", "values"), [("scheduler", ["Euler", "Heun", "DDIM"]), ("seed", [1, 2]), ("model", ["starter", "sd15"])])
def test_of_numbers_and_names_a_line_counts_as_a_comma(axis: str, values: list[Any]) -> None:
    first, *others = map(str, values)
    assert read(axis, f"{first}\n{', '.join(others)}") == read(axis, "\r\n".join(map(str, values))) == values


def test_an_open_quote_and_a_repeated_text_are_refused() -> None:
    assert 'quote in “"a cat” is not closed' in refusal("prompt", '"a cat, sitting')
    assert "“a” is named twice" in refusal("prompt", "a, b, a")
    assert "is named twice" in refusal("negative", ",x,")


def test_search_and_replace_leaves_the_prompt_alone_for_its_first_value() -> None:
    recipe = make_recipe(prompt="a cat and a cat", negative_prompt="cat food")
    prompts = [recipe.replace(**AXES["replace"].rewrite(recipe, [value], ())) for value in read("replace", "cat, dog,")]
    assert [made.prompt for made in prompts] == ["a cat and a cat", "a dog and a dog", "a  and a "]
    assert [made.negative_prompt for made in prompts] == ["cat food", "dog food", " food"]


@pytest.mark.parametrize(("line", "fragment"), [(", dog", "begins with the word to replace"), ("cat, dog, dog", "“dog” is named twice")])
def test_search_and_replace_needs_a_word_and_different_values(line: str, fragment: str) -> None:
    assert fragment in refusal("replace", line)


# ---- variants


def prompts_of(template: str, recipe: Recipe = RECIPE) -> list[str]:
    return [variant.text for variant in read("variants", template, recipe=recipe)]


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("a {red|green} {apple|pear}", ["a red apple", "a red pear", "a green apple", "a green pear"]),
        ("{a|b|a}", ["a", "b"]),
        ("{a|A}", ["a", "A"]),
        ("{{red|green} apple|pear}", ["red apple", "green apple", "pear"]),
        ("{|old }cat", ["cat", "old cat"]),
        ("{2$$ and $$a|b|c}!", ["a and b!", "a and c!", "b and a!", "b and c!", "c and a!", "c and b!"]),
        ("{0.5::a|2::b}", ["a", "b"]),
        ("{~a|@b|!c}", ["~a", "@b", "!c"]),
        ("{$5|#6|__x__|a/b|c//d|100%|(e:1.2)|[f]}", ["$5", "#6", "__x__", "a/b", "c//d", "100%", "(e:1.2)", "[f]"]),
        ("{a\tb|\U000f0000|\U000f0001}", ["a\tb", "\U000f0000", "\U000f0001"]),
        ("{red, round|green} apple", ["red, round apple", "green apple"]),
    ],
)
def test_a_template_gives_all_its_prompts_in_order(template: str, prompts: list[str]) -> None:
    assert prompts_of(template) == prompts


@given(st.text(st.characters(exclude_characters="{}"), max_size=60), st.text(st.characters(exclude_characters="{}"), max_size=60))
@settings(max_examples=60, deadline=None)
def test_text_outside_the_braces_comes_out_unchanged(before: str, after: str) -> None:
    assert prompts_of(before + "{red|green}" + after) == [before + "red" + after, before + "green" + after]


@pytest.mark.parametrize("text", ["(word:1.2), [x]", "costs $5 $", "# no comment", "a // b /* c */", "__x__", "%a$$b", "a\n\tb  ", "| ||"])
def test_ordinary_prompts_are_safe_outside_the_braces(text: str) -> None:
    assert prompts_of(f" {text} {{1|2}} {text} ") == [f" {text} 1 {text} ", f" {text} 2 {text} "]


def test_an_empty_line_takes_the_prompt_for_the_template() -> None:
    assert prompts_of(" ", make_recipe(prompt="{a|b} cat")) == ["a cat", "b cat"]


@pytest.mark.parametrize("template", ["an apple", "red|green apple", "{red} apple", "{} apple", "{a|a}"])
def test_a_template_without_alternatives_is_refused_with_an_example(template: str) -> None:
    assert "{red|green} apple" in refusal("variants", template)


@pytest.mark.parametrize("template", ["{red|green apple", "red|green} apple", "}{", "{a|{b}", "{$$a|b}", "{" * 60 + "a|b" + "}" * 60])
def test_a_malformed_template_is_refused_in_a_sentence(template: str) -> None:
    assert "cannot be read: each { needs its }" in refusal("variants", template)


@pytest.mark.parametrize(
    "template",
    ["{a|b}" * 7, "{a|b}" * 4000, "{a}" * 6000 + "{a|b}", "{" + "a|" * 9000 + "b}", "{" + "{a|}" * 60 + "|b}", "{9$$" + "a|" * 30 + "b}"],
)
def test_too_many_variants_are_refused_before_they_are_made(template: str) -> None:
    assert "more than the 100 allowed here" in refusal("variants", template)


@pytest.mark.parametrize(
    ("template", "chosen"),
    [
        ("a {cat|dog} on a cat", [["cat"], ["dog"]]),
        ("{a|b}{c|d}", [["ac"], ["ad"], ["bc"], ["bd"]]),
        ("{|old }cat {5%|}", [["5%"], [], ["old ", "5%"], ["old "]]),
        ("{{red|green} apple|pear} {x|y}!", [["red apple", "x"], ["red apple", "y"], ["green apple", "x"], ["green apple", "y"],
                                             ["pear", "x"], ["pear", "y"]]),
    ],
)  # fmt: skip
def test_a_variant_knows_what_of_it_stood_in_braces(template: str, chosen: list[list[str]]) -> None:
    variants = read("variants", template)
    assert [[variant.text[begin:end] for begin, end in variant.chosen] for variant in variants] == chosen


# ---- round trips

def test_every_axis_but_the_template_has_a_round_trip() -> None:
    assert set(VALUES) == set(AXES) - {"variants"}
    with pytest.raises(ValueError, match="template"):
        write_values(AXES["variants"], ["a", "b"])


@pytest.mark.parametrize("axis", VALUES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_line_written_reads_back_to_the_same_values(axis: str, data: st.DataObject) -> None:
    values = data.draw(VALUES[axis])
    assert read(axis, write_values(AXES[axis], values)) == values


@given(st.text(st.sampled_from('0123456789.,-+()[]x" |\nrandom{}$:'), max_size=40))
@settings(max_examples=150, deadline=None)
def test_whatever_is_typed_is_read_or_refused(line: str) -> None:
    for row in AXES.values():
        try:
            values = row.read(line, OFFER, RECIPE)
        except InvalidRequest:
            continue
        assert 1 <= len(values) <= OFFER.limits.max_images
        assert len({repr(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("line", "more", "result"),
    [
        ("2, 5", "9, 12", "2, 5, 9, 12"), ("a, b || c", "d", "a, b || c || d"), ("blurry,", "red", "blurry,, red"),
        ('"a || b", c', "d", '"a || b", c, d'), ("a, b\nc", "d, e", "a, b\nc\nd, e"), ("a, b", "c, d\ne", 'a, b, "c, d", e'),
        ("a, , b", "c || d, e", 'a, , b, c, "d, e"'), ("1-3", "7\n8", "1-3, 7, 8"),
        ("a\n", "b", "a, b"), ("a, b\nc\n", "d", "a, b\nc\nd"),
    ],
)  # fmt: skip
def test_more_values_are_separated_as_the_line_is(line: str, more: str, result: str) -> None:
    assert longer_line(line, more) == result


def test_values_that_are_added_come_after_those_there_were() -> None:
    for line in ("a", "a\n", "a, b", "a, b || c", "a, b\nc", '"a, b", c'):
        for more in ("x", "x || y", '"x, y"', "x\ny"):
            assert read("prompt", longer_line(line, more))[: len(read("prompt", line))] == read("prompt", line)


# ---- finer


@pytest.mark.parametrize(
    ("axis", "values", "chosen", "finer"),
    [
        ("cfg", [6, 7, 8], 1, [6.5, 7, 7.5]),
        ("cfg", [8, 7, 6], 1, [7.5, 7, 6.5]),
        ("cfg", [7, 3, 10], 0, [5, 7, 8.5]),
        ("cfg", [6, 7, 8], 2, [7.5, 8, 8.5]),
        ("cfg", [1, 3], 0, [1, 2]),
        ("cfg", [25, 30], 1, [27.5, 30]),
        ("cfg", [7], 0, [7]),
        ("steps", [10, 20, 30], 1, [15, 20, 25]),
        ("steps", [10, 11, 12], 1, [11]),
        ("steps", [10, 13], 0, [9, 10, 11]),
        ("steps", [100, 150], 1, [125, 150]),
        ("width", [64, 96, 128], 1, [80, 96, 112]),
        ("height", [64, 72], 0, [64]),
    ],
)
def test_finer_values_lie_halfway_to_the_neighbours(axis: str, values: list[Any], chosen: int, finer: list[Any]) -> None:
    assert AXES[axis].finer(values, chosen, OFFER) == finer


def test_only_numbers_with_something_between_them_can_be_made_finer() -> None:
    assert {row.name for row in AXES.values() if row.finer} == {"cfg", "steps", "width", "height"}
    assert Decimal(str(AXES["cfg"].finer([7, 7.01], 0, OFFER)[-1])) == Decimal("7.005")
