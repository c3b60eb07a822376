"""A small classifier that tells the styles apart, trained on real pictures; the judge of whether a style was met."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.split import share_of

SIDE = 32
"""Pixels: gradients, outlines and flat areas still show."""

STEPS, BATCH, LEARNING_RATE = 400, 64, 2e-3
"""Half a minute of one core; its accuracy on other subjects is reported beside every score that rests on it."""

ASIDE = 0.2
"""Of the subjects, by hash: what the classifier is tested on."""


class StyleJudge:
    """Trained when made, always the same on the CPU. `accuracy` is on real pictures of subjects that it did not see."""

    def __init__(self, pictures: np.ndarray, styles: list[str], codes: list[str]):
        self.names = list(dict.fromkeys(styles))
        inputs, labels = _inputs(pictures), torch.tensor([self.names.index(style) for style in styles])
        aside = torch.tensor([share_of("style judge", code) < ASIDE for code in codes])
        draws = torch.Generator().manual_seed(0)
        self._network = _network(len(self.names), draws)
        self._train(inputs[~aside], labels[~aside], draws)
        tested = aside if aside.any() else ~aside
        self.accuracy = float((self._answers(inputs[tested]) == labels[tested]).float().mean())

    def judge(self, pictures: np.ndarray) -> list[str]:
        """The style of each. # (n, h, w, 3) uint8"""
        return [self.names[at] for at in self._answers(_inputs(pictures)).tolist()]

    def _train(self, inputs: torch.Tensor, labels: torch.Tensor, draws: torch.Generator) -> None:
        optimiser = torch.optim.AdamW(self._network.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
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
    """Three convolutions and a mean over the picture: style is everywhere in it. 25 thousand weights."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.SiLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for weights in network.parameters():
        if weights.dim() > 1:
            nn.init.kaiming_normal_(weights, nonlinearity="relu", generator=draws)
    return network


def _inputs(pictures: np.ndarray) -> torch.Tensor:
    """# (n, h, w, 3) uint8 -> (n, 3, SIDE, SIDE)"""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.interpolate(values, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
