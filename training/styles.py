"""A small classifier that tells the styles apart, trained on real pictures; the judge of whether a style was met."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.split import share_of

SIDE = 64
"""Pixels: gradients, outlines and flat areas still show."""

STEPS, BATCH, LEARNING_RATE = 2_000, 64, 4e-3
"""About three minutes of one core; its accuracy on other subjects is reported beside every score that rests on it."""

ASIDE = 0.2
"""Of the subjects, by hash: what the classifier is tested on."""


class StyleJudge:
    """Trained when made, from a fixed seed; rounding still moves it by a few answers in a hundred from process to process.

    `accuracy` is on real pictures of subjects that it did not see. Styles of nearly the same pictures (`alike`) are one to it.
    """

    def __init__(
        self, pictures: np.ndarray, styles: Sequence[str], codes: Sequence[str], alike: Sequence[tuple[str, str]], steps: int = STEPS
    ):
        self._kin = {other: first for first, other in alike}
        self.names = list(dict.fromkeys(map(self.kind, styles)))
        inputs, labels = _inputs(pictures), torch.tensor([self.names.index(self.kind(style)) for style in styles])
        aside = torch.tensor([share_of("style judge", code) < ASIDE for code in codes])
        draws = torch.Generator().manual_seed(0)
        self._network = _network(len(self.names), draws)
        self._train(inputs[~aside], labels[~aside], steps, draws)
        tested = aside if aside.any() else ~aside
        self.accuracy = float((self._answers(inputs[tested]) == labels[tested]).float().mean())

    def kind(self, style: str) -> str:
        """The name under which a style and those like it go."""
        return self._kin.get(style, style)

    def judge(self, pictures: np.ndarray) -> list[str]:
        """The kind of style of each. # (n, h, w, 3) uint8"""
        return [self.names[at] for at in self._answers(_inputs(pictures)).tolist()]

    def _train(self, inputs: torch.Tensor, labels: torch.Tensor, steps: int, draws: torch.Generator) -> None:
        optimiser = torch.optim.AdamW(self._network.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            rows = torch.randint(len(inputs), (BATCH,), generator=draws)
            shift = torch.randint(-2, 3, (2,), generator=draws).tolist()
            loss = functional.cross_entropy(self._network(inputs[rows].roll(shift, (2, 3))), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rates.step()
        self._network.eval()

    @torch.inference_mode()
    def _answers(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._network(part).argmax(1) for part in inputs.split(256)])


def _network(classes: int, draws: torch.Generator) -> nn.Module:
    """Three convolutions, then mean and maximum over the picture: style is everywhere in it. 60 thousand weights."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 2), (32, 48, 2), (48, 96, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, _MeanAndMaximum(), nn.Linear(2 * 96, classes))
    for weights in network.parameters():
        if weights.dim() > 1:
            nn.init.kaiming_normal_(weights, nonlinearity="relu", generator=draws)
    return network


class _MeanAndMaximum(nn.Module):
    """Over the picture, side by side. # (n, c, h, w) -> (n, 2 c)"""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)


def _inputs(pictures: np.ndarray) -> torch.Tensor:
    """# (n, h, w, 3) uint8 -> (n, 3, SIDE, SIDE)"""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.interpolate(values, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
