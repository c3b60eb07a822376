"""Captions: what a person might type to get a scene, in many wordings, drawn by seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.scenes import Part, Scene, Stage
from training.settings import SceneRules
from training.words import colour_word, without_colour

FORMS = ("{0}", "{0}", "{0}", "{0} emoji", "an emoji of {0}", "a picture of {0}", "an icon of {0}")
SMALL_WORDS = ("small", "tiny", "little")


def captions(stage: Stage, scene: Scene, index: int, rules: SceneRules) -> list[str]:
    """`rules.wordings` captions of a scene, the same for an index each time."""
    rng = random.Random(f"{rules.seed}/{index}/words")
    return [caption(stage, scene, rng, rules) for _ in range(rules.wordings)]


def caption(stage: Stage, scene: Scene, rng: random.Random, rules: SceneRules) -> str:
    """One wording: what is shown, where, on what, in which style. It never says what the scene does not hold."""
    phrases = [subject_phrase(stage, part, rng, rules, small=len(scene.parts) == 1 and bool(scene.place)) for part in scene.parts]
    if scene.place == "beside":
        said = f"{phrases[0]} {rng.choice(['and', 'and', 'next to', 'beside', 'with'])} {phrases[1]}"
    elif scene.place == "above":
        said = rng.choice([f"{phrases[0]} above {phrases[1]}", f"{phrases[1]} below {phrases[0]}", f"{phrases[0]} and {phrases[1]}"])
    else:
        said = rng.choice(FORMS).format(phrases[0]) + (rng.choice(list(_where(scene.place))) if scene.place else "")
    tail: list[str] = []
    if scene.background != "white" or rng.random() < rules.say_white:
        ground = scene.background
        said += rng.choice(
            [f" on {with_article(ground)} background", f" on {ground} background", f" on {ground}", f", {ground} background"]
        )
    if rng.random() < rules.say_style:
        tail.append(_style(stage, scene.parts[0], rng))
    keywords = stage.subject(scene.parts[0]).keywords
    if tail and len(scene.parts) == 1 and keywords and rng.random() < rules.say_keywords:
        tail += rng.sample(keywords, min(2, len(keywords)))
    if tail and rng.random() < 0.15:
        return ", ".join([f"{tail[0]} {_bare(said)}", *tail[1:]])
    return ", ".join([said if not tail or rng.random() < 0.8 else f"{said} in {tail.pop(0)}", *tail])


def subject_phrase(stage: Stage, part: Part, rng: random.Random, rules: SceneRules, small: bool = False) -> str:
    """A name, a synonym or the bare noun of a subject, with its colour where that is known, and mostly an article.

    A subject that was turned to another colour is always called by it, and never by its own.
    """
    subject = stage.subject(part)
    noun = subject.name
    if subject.synonyms and rng.random() < rules.say_synonym:
        noun = rng.choice(subject.synonyms)
    if part.colour:
        noun = f"{part.colour} {without_colour(noun)}"
    elif colour_word(noun):
        noun = noun if rng.random() < 0.7 else without_colour(noun)
    elif (colour := stage.colours[part.picture]) and rng.random() < rules.say_colour:
        noun = f"{colour} {noun}"
    if small:
        noun = f"{rng.choice(SMALL_WORDS)} {noun}"
    return with_article(noun) if rng.random() < 0.7 else noun


def all_words(stage: Stage) -> Iterator[str]:
    """Every name, synonym and keyword, so that the tokenizer knows words that no caption happened to say."""
    for subject in stage.subjects.values():
        yield from (subject.name, *subject.synonyms, *subject.keywords)


def _where(place: str) -> Iterator[str]:
    """Ways to say where a small subject is."""
    if place == "centre":
        yield from ("", " in the centre", " in the middle")
        return
    yield from (f" in the {place} corner", f" in the {place}", f", {place} corner")


def _style(stage: Stage, part: Part, rng: random.Random) -> str:
    """The style's usual wording in half of the captions, else any of them."""
    wordings = stage.manifest.sources.styles[stage.picture(part).style].wordings
    return wordings[0] if rng.random() < 0.5 else rng.choice(wordings)


def with_article(noun: str) -> str:
    """The noun with "a" or "an", or as it is where it looks like a plural."""
    last = noun.split()[-1]
    if last.endswith("s") and not last.endswith(("ss", "us", "is")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _bare(phrase: str) -> str:
    for article in ("a ", "an "):
        if phrase.startswith(article):
            return phrase.removeprefix(article)
    return phrase
