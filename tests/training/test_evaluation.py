"""Scores of pictures whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from training import scores
from training.evaluate import Judge, to_markdown
from training.pictures import compose, on_white
from training.questions import (
    Question,
    background_questions,
    colourful_questions,
    held_out_questions,
    known_codes,
    known_names,
    known_questions,
    newcomers_prompts,
    pair_questions,
    trained_questions,
)
from training.scenes import BACKGROUNDS
from training.settings import load_config
from training.split import pair_is_held_out
from training.styles import StyleJudge


@pytest.fixture(scope="module")
def judge(stage):
    pictures = stage.manifest.pictures
    styles = StyleJudge(on_white(stage.pixels), [one.style for one in pictures], [one.code for one in pictures], stage.held_out.alike, 40)
    return Judge(stage, styles)


def drawn_rightly(stage, asked: list[Question], box=(0.0, 0.0, 1.0)) -> np.ndarray:
    """The real pictures that were asked for."""
    found = []
    for one in asked:
        at = next(at for at, p in enumerate(stage.manifest.pictures) if (p.code, p.style) == (one.code, one.style))
        found.append(compose([(stage.pixels[at], box)], BACKGROUNDS[one.background or "white"], stage.size))
    return np.stack(found)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_background_is_read_off_the_frame(stage, name) -> None:
    picture = compose([(stage.pixels[0], (0.2, 0.2, 0.6))], BACKGROUNDS[name], 64)
    assert scores.background_name(picture) == name


def test_place_size_and_background_do_not_change_a_likeness(stage) -> None:
    near = scores.likeness(compose([(stage.pixels[0], (0.0, 0.0, 1.0))], (255, 255, 255), 128))
    moved = scores.likeness(compose([(stage.pixels[0], (0.1, 0.3, 0.6))], BACKGROUNDS["grey"], 128))
    other = scores.likeness(compose([(stage.pixels[30], (0.0, 0.0, 1.0))], (255, 255, 255), 128))
    assert scores.distances(near[None], moved[None])[0, 0] < 0.5 * scores.distances(near[None], other[None])[0, 0]
    assert scores.likeness(np.full((32, 32, 3), 90, np.uint8)).min() == 1, "an empty picture is like white paper"


def test_distances_are_root_mean_squares() -> None:
    assert scores.distances(np.array([[0.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])).tolist() == [[1.0, pytest.approx(0.5**0.5)]]


def test_the_first_five_are_five_subjects_not_five_pictures() -> None:
    apart = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    labels = ["cat", "cat", "dog", "owl"]
    assert scores.found_among_first(apart, labels, ["cat", "cat"], 1) == 0.5
    assert scores.found_among_first(apart, labels, ["dog", "dog"], 2) == 1.0
    assert scores.found_among_first(apart, labels, ["dog", "dog"], 1) == 0.0


def test_diversity_is_nothing_among_equal_pictures() -> None:
    assert scores.diversity(np.ones((4, 3))) == 0
    assert scores.diversity(np.array([[0.0], [1.0], [1.0]])) == pytest.approx(2 / 3)


def test_a_colours_share_counts_the_subject_only() -> None:
    picture = np.full((20, 20, 3), BACKGROUNDS["blue"], np.uint8)
    picture[6:14, 6:10] = (226, 40, 45)
    picture[6:14, 10:14] = (60, 170, 80)
    assert scores.colour_share(picture, "red") == 0.5
    assert scores.colour_share(picture, "blue") == 0


def test_real_pictures_are_judged_right(judge) -> None:
    asked = held_out_questions(judge.stage, 10) + trained_questions(judge.stage, 10)
    drawn = drawn_rightly(judge.stage, asked)
    assert judge.subject(asked, drawn) == {"top 1": 1.0, "top 5": 1.0}
    assert judge.style(asked, drawn) > 0.5
    assert 0 <= judge.styles.accuracy <= 1
    grounds = background_questions(judge.stage, 10)
    small = drawn_rightly(judge.stage, grounds, (0.15, 0.15, 0.7))
    assert judge.background(grounds, small) == 1.0
    assert judge.background(grounds, drawn_rightly(judge.stage, held_out_questions(judge.stage, 10))) == 0.0


def test_pictures_of_other_subjects_are_judged_wrong(judge) -> None:
    asked = trained_questions(judge.stage, 12)
    swapped = [Question(one.prompt, one.seed, other.code, other.style) for one, other in zip(asked, asked[1:] + asked[:1], strict=True)]
    different = [one.code == other.code for one, other in zip(asked, swapped, strict=True)]
    assert judge.subject(asked, drawn_rightly(judge.stage, swapped))["top 1"] == pytest.approx(sum(different) / 12)


def test_training_pictures_are_nearer_to_training_than_others(judge) -> None:
    own = judge.likenesses[judge.stage.training[:5]]
    assert judge.to_training(own) < 1e-3
    assert judge.to_training(1 - own) > 0.1


def test_both_halves_of_a_pair_are_looked_for(judge) -> None:
    stage = judge.stage
    at = [stage.training[0], stage.training[-1]]
    code = [stage.manifest.pictures[one].code for one in at]
    picture = compose([(stage.pixels[at[0]], (0.0, 0.25, 0.5)), (stage.pixels[at[1]], (0.5, 0.25, 0.5))], (255, 255, 255), 64)
    for first, second in (code, code[::-1]):
        asked = [Question("", 0, first, other=second)]
        assert judge.halves(asked, picture[None]) == {"one of two": 1.0, "both": 1.0}
    assert judge.halves([Question("", 0, code[0], other="none")], picture[None]) == {"one of two": 1.0, "both": 0.0}


def test_questions_ask_for_what_was_held_out(stage, config) -> None:
    away = {(one.code, one.style) for one in stage.manifest.pictures if one.held_out}
    assert {(one.code, one.style) for one in held_out_questions(stage, 100)} == away
    assert not {(one.code, one.style) for one in trained_questions(stage, 100)} & away
    known = known_codes(stage)
    assert {stage.subjects[code].name for code in known} == set(known_names()) & {one.name for one in stage.manifest.subjects}
    asked = {(one.code, one.style) for one in known_questions(stage, 100)}
    assert {code for code, _ in asked} == known
    assert not asked & away
    pairs = pair_questions(stage, 4)
    assert len(pairs) == 4
    assert all(pair_is_held_out(one.code, one.other, config.held_out) for one in pairs)
    assert held_out_questions(stage, 5) == held_out_questions(stage, 5)
    assert all(one.colour not in one.prompt for one in colourful_questions(stage, 9))
    assert len(set(newcomers_prompts())) == 100


def test_the_cpu_profile_trains_on_all_known_subjects() -> None:
    assert set(known_names()) <= set(load_config().profile("cpu").names)


def test_the_table_puts_models_side_by_side() -> None:
    found = {"old": {"style": 0.5, "subject": {"top 1": 0.25}}, "new": {"style": 0.75, "distance to training": 0.1234}}
    table = to_markdown({"questions": 3}, found)
    assert "| style | 50.0 % | 75.0 % |" in table
    assert "| subject, top 1 | 25.0 % | – |" in table
    assert "| distance to training | – | 0.123 |" in table
    assert "questions 3" in table
