"""FAMILIES: kinds of models, by what is known of them without their networks: which pipelines are of it, and what an image asks for.

engine.diffusion.loading.FAMILIES has what reads and draws them; a row here lets a plan be counted before torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from engine.recipes.recipe import Recipe

Told = TypeVar("Told", bound=Hashable, covariant=True)


@dataclass(frozen=True)
class Needs(Generic[Told]):
    """What an image needs of each of its network calls."""

    rows: tuple[Told, ...]
    """A row of the network's batch each, by all that the network is told in it beside latents and timestep: rows of one name are told
    the same. No two of an image's own are of one name."""
    group: Hashable
    """What images must agree in to share a call, a picture's pixels at least."""


@dataclass(frozen=True)
class FamilyRow:
    """One kind of model."""

    name: str
    pipeline: str
    """diffusers' class for it, as a folder's model_index.json names it."""
    needs: Callable[[Recipe], Needs[Hashable]]


class Text(NamedTuple):
    """A row that is told one text, as layer `clip_skip` of the text encoder reads it, counted from its last. `part` tells equal texts of
    one image apart."""

    part: str
    text: str
    clip_skip: int = 1


def classifier_free(recipe: Recipe) -> Needs[Text]:
    """(unconditional, conditional) where guided, (conditional,) where not; images of one size share a call.

    CLIP skip is for the prompt alone, as in diffusers' pipelines.
    """
    conditional = Text("conditional", recipe.full_prompt, recipe.clip_skip)
    rows = (Text("unconditional", recipe.full_negative_prompt), conditional) if recipe.guided else (conditional,)
    return Needs(rows, (recipe.width, recipe.height))


_ROWS = (FamilyRow("sd", "StableDiffusionPipeline", classifier_free),)

FAMILIES: Mapping[str, FamilyRow] = {row.name: row for row in _ROWS}
FAMILY_OF_PIPELINE: Mapping[str, str] = {row.pipeline: row.name for row in _ROWS}
