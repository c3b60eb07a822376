"""The evaluation: what a model draws when asked for what it never saw, in figures, tables and pages to look at.

It asks diffusers' own pipeline, with the engine's schedulers, so that any Stable Diffusion folder can be put beside another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from engine.diffusion.schedule import build
from engine.recipes.schedulers import DEFAULT_SCHEDULER, available_schedulers
from engine.sheets.drawing import draw_sheet
from engine.sheets.layout import Page, Tile
from training import questions, scores
from training.data import read_manifest
from training.files import write_json, write_whole
from training.pictures import load_pictures, on_white
from training.questions import Question
from training.scenes import Stage
from training.styles import StyleJudge
from training.work import Work

GUIDANCE, STEPS, DRAWN_AT_ONCE = 5.0, 20, 8
SCALES, STEP_COUNTS = (1, 2, 4, 7, 12), (4, 8, 20, 50)
SEEDS = 6
"""Pictures of one prompt, whose differences are the diversity."""

SHOWN = 30
"""Of each kind of question, on the sample pages."""

Scores = dict[str, float | dict[str, float]]


@dataclass(frozen=True)
class Painter:
    """A model folder that draws prompts; each picture's noise follows from its own seed."""

    pipeline: StableDiffusionPipeline
    scheduler_config: Mapping[str, Any]
    """The model's own, before any scheduler of ours took its place."""

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Painter:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, safety_checker=None, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), dict(pipeline.scheduler.config))

    def draw(
        self, asked: Sequence[Question], *, guidance: float = GUIDANCE, steps: int = STEPS, scheduler: str = DEFAULT_SCHEDULER,
        negative: Sequence[str] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """One picture a question. # (n, h, w, 3) uint8"""
        drawn: list[np.ndarray] = []
        for start in range(0, len(asked), DRAWN_AT_ONCE):
            part = asked[start : start + DRAWN_AT_ONCE]
            self.pipeline.scheduler = build(scheduler, self.scheduler_config, steps, part[0].seed)
            images = self.pipeline(
                [one.prompt for one in part],
                negative_prompt=None if negative is None else list(negative[start : start + len(part)]),
                guidance_scale=guidance,
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(one.seed) for one in part],
                return_dict=False,
            )[0]
            drawn += [np.asarray(image.convert("RGB")) for image in images]
        return np.stack(drawn)


class Judge:
    """Real pictures, to compare with: every one of the profile's on white, and its subject's likeness; and a judge of styles."""

    def __init__(self, stage: Stage, styles: StyleJudge):
        self.stage, self.styles = stage, styles
        self.pictures = on_white(stage.pixels)
        self.codes = [one.code for one in stage.manifest.pictures]
        self.likenesses = scores.likenesses(self.pictures)
        self._trained = self.likenesses[np.array(stage.training)]

    def nearest(self, drawn: np.ndarray) -> np.ndarray:
        """Index of the real picture that each is most like."""
        return scores.distances(scores.likenesses(drawn), self.likenesses).argmin(1)

    def subject(self, asked: Sequence[Question], drawn: np.ndarray) -> dict[str, float]:
        apart = scores.distances(scores.likenesses(drawn), self.likenesses)
        wanted = [one.code for one in asked]
        return {f"top {count}": scores.found_among_first(apart, self.codes, wanted, count) for count in (1, 5)}

    def style(self, asked: Sequence[Question], drawn: np.ndarray) -> float:
        return _share(self.styles.kind(one.style) == found for one, found in zip(asked, self.styles.judge(drawn), strict=True))

    def background(self, asked: Sequence[Question], drawn: np.ndarray) -> float:
        return _share(one.background == scores.background_name(picture) for one, picture in zip(asked, drawn, strict=True))

    def to_training(self, features: np.ndarray) -> float:
        """Mean distance to the nearest training picture."""
        return float(scores.distances(features, self._trained).min(1).mean())

    def halves(self, asked: Sequence[Question], drawn: np.ndarray) -> dict[str, float]:
        """Of pairs: how often the first five likenesses of the left or right half hold one of the two subjects, and of each half both."""
        middle = drawn.shape[2] // 2
        sides = [drawn[:, :, :middle], drawn[:, :, middle:]]
        first, second = [one.code for one in asked], [one.other for one in asked]
        apart = [scores.distances(scores.likenesses(side), self.likenesses) for side in sides]
        hits = [[_row_hits(part, self.codes, wanted) for wanted in (first, second)] for part in apart]
        straight = hits[0][0] & hits[1][1]
        crossed = hits[0][1] & hits[1][0]
        return {"one of two": _share(np.any([hit for side in hits for hit in side], axis=0)), "both": _share(straight | crossed)}


def style_judge(work: Work) -> StyleJudge:
    """Trained on the art of all subjects, whatever the profile's: there is more to learn a style from."""
    manifest = read_manifest(work.data)
    pictures = on_white(load_pictures(work.data, manifest, work.profile.size))
    styles, codes = zip(*((one.style, one.code) for one in manifest.pictures), strict=True)
    return StyleJudge(pictures, styles, codes, work.config.held_out.alike)


def measure(painter: Painter, judge: Judge, count: int, say: Callable[[str], None]) -> Scores:
    """All figures of one model; shares from 0 to 1, distances from 0 to 1."""
    stage = judge.stage
    found: Scores = {}
    few = max(1, count // 3)  # for what is drawn many times over
    held_out = questions.held_out_questions(stage, count)
    kinds = {"held out": held_out, "trained": questions.trained_questions(stage, count), "known": questions.known_questions(stage, count)}
    for name, asked in ((name, asked) for name, asked in kinds.items() if asked):
        drawn = painter.draw(asked)
        found[f"{name}: subject"] = judge.subject(asked, drawn)
        found[f"{name}: style"] = judge.style(asked, drawn)
        found[f"{name}: distance to training"] = judge.to_training(scores.likenesses(drawn))
        say(f"{name}: {found[f'{name}: subject']}, style {found[f'{name}: style']:.2f}")
    grounds = questions.background_questions(stage, count)
    drawn = painter.draw(grounds)
    found["held out on a background: background"] = judge.background(grounds, drawn)
    found["held out on a background: subject"] = judge.subject(grounds, drawn)
    pairs = questions.pair_questions(stage, few)
    if pairs:
        found["pairs never composed"] = judge.halves(pairs, painter.draw(pairs))
    asked = held_out[:few]
    found["CFG scale: subject, top 5"] = {
        str(scale): judge.subject(asked, painter.draw(asked, guidance=scale))["top 5"] for scale in SCALES
    }
    found["steps: subject, top 5"] = {str(steps): judge.subject(asked, painter.draw(asked, steps=steps))["top 5"] for steps in STEP_COUNTS}
    found["scheduler: subject, top 5"] = {
        name: judge.subject(asked, painter.draw(asked, scheduler=name))["top 5"] for name in available_schedulers()
    }
    found["negative colour: its share"] = _negatives(painter, judge, few)
    found["diversity over seeds"] = _diversity(painter, judge, max(1, count // 10))
    return found


def evaluate(work: Work, models: Sequence[Path], out: Path, count: int) -> None:
    """Writes evaluation.json, evaluation.md and sample pages of all models to `out`."""
    judge = Judge(work.stage(), style_judge(work))
    references = {
        "style classifier on real pictures": judge.styles.accuracy,
        "held-out pictures' own distance to training": judge.to_training(_held_out_likenesses(judge)),
        "questions": count, "subjects": len(judge.stage.subjects), "chance of a subject": 1 / len(judge.stage.subjects),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Scores] = {}
    for number, folder in enumerate(models):
        name = f"{number + 1} {folder.resolve().name}"
        painter = Painter.load(folder, work.device)
        results[name] = measure(painter, judge, count, work.say)
        _draw_pages(painter, judge, count, out / name.replace(" ", "-"))
    write_json(out / "evaluation.json", {"references": references, "models": results})
    table = to_markdown(references, results)
    write_whole(out / "evaluation.md", lambda beside: beside.write_text(table, encoding="utf-8"))
    work.say(f"written: {out}")


def to_markdown(references: dict[str, Any], results: dict[str, Scores]) -> str:
    """One line a figure, one column a model; shares in per cent, distances with three decimals."""
    lines = ["| measured | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    flat = {model: dict(_flat(found)) for model, found in results.items()}
    names = dict.fromkeys(name for found in flat.values() for name in found)
    for name in names:
        lines.append(f"| {name} | " + " | ".join(_shown(name, found.get(name)) for found in flat.values()) + " |")
    lines += ["", "References: " + "; ".join(f"{name} {_shown(name, value)}" for name, value in references.items()) + ".", ""]
    return "\n".join(lines)


def _negatives(painter: Painter, judge: Judge, count: int) -> dict[str, float]:
    """How much of a subject has its own colour, and has it still where the negative prompt names that colour."""
    asked = questions.colourful_questions(judge.stage, count)
    if not asked:
        return {}
    drawn = {"without": painter.draw(asked), "with": painter.draw(asked, negative=[one.colour for one in asked])}
    return {
        name: float(np.mean([scores.colour_share(picture, one.colour) for one, picture in zip(asked, pictures, strict=True)]))
        for name, pictures in drawn.items()
    }


def _diversity(painter: Painter, judge: Judge, count: int) -> dict[str, float]:
    """Of SEEDS pictures of a subject's bare name, beside that of its training pictures, which are of several styles."""
    drawn, real = [], []
    for subject in [judge.stage.subjects[one.code] for one in questions.trained_questions(judge.stage, count)]:
        asked = [Question(questions.said(subject), questions.FIRST_SEED + seed) for seed in range(SEEDS)]
        drawn.append(scores.diversity(scores.likenesses(painter.draw(asked))))
        real.append(scores.diversity(judge.likenesses[[at for at in judge.stage.training if judge.codes[at] == subject.code]]))
    return {"drawn": float(np.mean(drawn)), "training pictures": float(np.mean(real))}


def _held_out_likenesses(judge: Judge) -> np.ndarray:
    away = [at for at, one in enumerate(judge.stage.manifest.pictures) if one.held_out]
    return judge.likenesses[away] if away else judge.likenesses


def _draw_pages(painter: Painter, judge: Judge, count: int, stem: Path) -> None:
    """Three pages: held-out and trained questions (drawn, wanted, nearest), and the newcomers' prompts."""
    shown = min(SHOWN, count)
    pages = {"held-out": questions.held_out_questions(judge.stage, shown), "trained": questions.trained_questions(judge.stage, shown)}
    for kind, asked in pages.items():
        drawn = painter.draw(asked)
        tiles: dict[tuple[int, int], Tile] = {}
        for number, (one, picture, near) in enumerate(zip(asked, drawn, judge.nearest(drawn), strict=True)):
            wanted = next(at for at, p in enumerate(judge.stage.manifest.pictures) if (p.code, p.style) == (one.code, one.style))
            row, column = divmod(number, 5)
            tile = ((picture, one.prompt), (judge.pictures[wanted], "wanted"), (judge.pictures[near], "nearest"))
            tiles |= {(3 * column + at, row): Tile(Image.fromarray(pixels), note) for at, (pixels, note) in enumerate(tile)}
        rows = -(-len(asked) // 5)
        draw_sheet([""] * 15, [""] * rows, [Page("", tiles)], heading=kind, tile=128).save(f"{stem}-{kind}.png")
    prompts = questions.newcomers_prompts()[:count]
    drawn = painter.draw([Question(prompt, questions.FIRST_SEED) for prompt in prompts])
    tiles = {(at % 10, at // 10): Tile(Image.fromarray(drawn[at]), prompt) for at, prompt in enumerate(prompts)}
    draw_sheet([""] * 10, [""] * -(-len(prompts) // 10), [Page("", tiles)], heading="prompts.txt", tile=128).save(f"{stem}-prompts.png")


def _row_hits(apart: np.ndarray, codes: Sequence[str], wanted: Sequence[str], count: int = 5) -> np.ndarray:
    """Whether each row's wanted code is among its `count` nearest. # (n, m) -> (n,) bool"""
    return np.array([scores.found_among_first(row[None], codes, [code], count) == 1 for row, code in zip(apart, wanted, strict=True)])


def _share(hits: Iterable[Any]) -> float:
    found = list(hits)
    return sum(map(bool, found)) / max(1, len(found))


def _flat(found: Scores):
    for name, value in found.items():
        if isinstance(value, dict):
            yield from ((f"{name}, {key}", one) for key, one in value.items())
        else:
            yield name, value


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if "distance" in name or "diversity" in name else f"{100 * value:.1f} %"
