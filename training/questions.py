"""What an evaluation asks: prompts with what a right picture would show, drawn by seed from the manifest."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from training.captions import with_article
from training.pictures import HUES, main_colour
from training.scenes import BACKGROUNDS, Stage
from training.split import pair_is_held_out
from training.words import Subject

HERE = Path(__file__).resolve().parent
PROMPTS, KNOWN = HERE / "prompts.txt", HERE / "known.txt"
KNOWN_STYLES = ("noto", "twemoji", "fluent")
FIRST_SEED = 1_000_000
"""Of the pictures' seeds; training's noise comes from other generators altogether."""


@dataclass(frozen=True)
class Question:
    """A prompt, its seed and what is wanted; "" where nothing is."""

    prompt: str
    seed: int
    code: str = ""
    style: str = ""
    background: str = ""
    other: str = ""
    """The second subject's code, of a pair."""
    colour: str = ""
    """The subject's own main colour."""


def said(subject: Subject) -> str:
    """A subject's name with its article, as most captions say it."""
    return with_article(subject.name)


def held_out_questions(stage: Stage, count: int) -> list[Question]:
    """Subjects in styles in which training never showed them."""
    return _pictured(stage, [at for at, one in enumerate(stage.manifest.pictures) if one.held_out], count, "held out")


def trained_questions(stage: Stage, count: int) -> list[Question]:
    """Subjects in styles in which training showed them, with new seeds."""
    return _pictured(stage, stage.training, count, "trained")


def known_questions(stage: Stage, count: int) -> list[Question]:
    """Known subjects in the styles of the first starter model."""
    known, pictures = known_codes(stage), stage.manifest.pictures
    return _pictured(
        stage, [at for at in stage.training if pictures[at].code in known and pictures[at].style in KNOWN_STYLES], count, "known"
    )


def background_questions(stage: Stage, count: int) -> list[Question]:
    """Held-out combinations on a coloured background."""
    rng = random.Random("backgrounds")
    colours = [colour for colour in BACKGROUNDS if colour != "white"]
    asked = []
    for number, one in enumerate(held_out_questions(stage, count)):
        colour = rng.choice(colours)
        subject, _, style = one.prompt.rpartition(", ")
        asked.append(Question(f"{subject} on a {colour} background, {style}", FIRST_SEED + number, one.code, one.style, colour))
    return asked


def pair_questions(stage: Stage, count: int) -> list[Question]:
    """Pairs of subjects that training never composed."""
    rng, subjects = random.Random("pairs"), list(stage.manifest.subjects)
    asked: list[Question] = []
    for _ in range(200 * count):
        one, other = rng.sample(subjects, 2)
        if len(asked) == count:
            break
        if pair_is_held_out(one.code, other.code, stage.held_out):
            asked.append(Question(f"{said(one)} and {said(other)}", FIRST_SEED + len(asked), one.code, other=other.code))
    return asked


def colourful_questions(stage: Stage, count: int) -> list[Question]:
    """Subjects of one clear hue, asked for by their noun alone: what a negative prompt can take the colour from."""
    found: dict[str, set[str]] = defaultdict(set)
    for at in stage.training:
        found[stage.manifest.pictures[at].code].add(main_colour(stage.pixels[at]))
    clear = {code: colours - {"black", ""} for code, colours in found.items()}
    named = [(stage.subjects[code], next(iter(colours))) for code, colours in clear.items() if len(colours) == 1 and colours <= set(HUES)]
    drawn = random.Random("colours").sample(named, min(count, len(named)))
    return [Question(subject.noun, FIRST_SEED + number, subject.code, colour=colour) for number, (subject, colour) in enumerate(drawn)]


def known_names() -> list[str]:
    """known.txt: subjects that the first starter model drew rightly, which no successor should lose."""
    return _lines(KNOWN)


def known_codes(stage: Stage) -> set[str]:
    """Of the stage's subjects, the known ones."""
    names = set(known_names())
    return {one.code for one in stage.manifest.subjects if one.name in names}


def newcomers_prompts() -> list[str]:
    """prompts.txt: what people type first."""
    return _lines(PROMPTS)


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _pictured(stage: Stage, indexes: list[int], count: int, seed: str) -> list[Question]:
    pictures = [stage.manifest.pictures[at] for at in random.Random(seed).sample(indexes, min(count, len(indexes)))]
    wording = {style: source.wordings[0] for style, source in stage.manifest.sources.styles.items()}
    return [
        Question(f"{said(stage.subjects[one.code])}, {wording[one.style]}", FIRST_SEED + number, one.code, one.style)
        for number, one in enumerate(pictures)
    ]
