"""Guidance: one prediction of several rows of a network call."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def classifier_free(output: torch.Tensor, scales: torch.Tensor, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Classifier-free guidance (arXiv:2207.12598, in diffusers' form u + w (c - u)) of each image's rows of one call.

    `rows` are each image's places in `output` (B, C, h, w): (unconditional, conditional), or (conditional) alone; `scales`
    those of the images that have both, in order. # (1, C, h, w) an image
    """
    pairs = [i for i, places in enumerate(rows) if len(places) == 2]
    results = [output[places[0] : places[0] + 1] for places in rows]
    if pairs:
        unconditional, conditional = (torch.cat([output[rows[i][part], None] for i in pairs]) for part in (0, 1))
        guided = unconditional + scales.view(-1, 1, 1, 1) * (conditional - unconditional)  # (pairs, C, h, w)
        for place, i in enumerate(pairs):
            results[i] = guided[place : place + 1]
    return results
