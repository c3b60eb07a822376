"""The time that may be spent on previews, and whose it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from engine.running.preview_options import BEST_FIRST

PATIENCE = 5
"""Steps: `auto` takes the truest previewer that it can afford at least this often."""

SHARE = {"cpu": 0.10, "cuda": 0.03}
"""The part of the time worked that previews may add, by kind of device."""

NAMED_SHARE = 1.0
"""The same for a previewer that was asked for by name, while nobody else waits: it may double the time of its owner's run."""


class Account(NamedTuple):
    """Who pays for a preview: an owner, for what was left to `auto` and for what was asked for by name apart."""

    owner: str
    named: bool


class PreviewBudget:
    """Decides which previews are made now, so that they stay within `share` of the time worked.

    Earned as work is done, spent as previews are made: a preview that cannot be paid for is skipped.
    """

    def __init__(self, share: float):
        self.share = share
        self._credit = 0.0
        self._tick = 0.0  # seconds of an average tick
        self._wanted = 0.0  # seconds of the preview that is saved up for

    def worked(self, seconds: float) -> None:
        """A tick took so long."""
        self._tick = seconds if not self._tick else 0.8 * self._tick + 0.2 * seconds
        # What is saved up is bounded: a long pause must not pay for a burst.
        most = max(self.share * self._tick * PATIENCE * 4, self._wanted)
        self._credit = min(self._credit + self.share * seconds, most)

    def spent(self, seconds: float) -> None:
        self._credit -= seconds

    def choose(self, costs: Mapping[str, float], images: int, seen: Collection[str] = ()) -> str | None:
        """The previewer `auto` uses for all `images` pictures of this tick, or None to show nothing new.

        `costs` is seconds a picture of each previewer at hand. The truest that can be afforded every PATIENCE
        steps is used when its credit is there. Until then the cheapest fills in, but only while nothing
        truer has been `seen`: falling back would look like a flicker, so the truer one is waited for.
        """
        offered = [name for name in BEST_FIRST if name in costs]
        if not offered:
            return None
        earned = self.share * self._tick * PATIENCE
        cheapest = offered[-1]
        target = next((name for name in offered if name in seen or costs[name] * images <= earned), cheapest)
        if self._affordable(costs[target] * images):
            return target
        better_seen = any(name in seen for name in offered[:-1])
        # What the filling-in spends must not starve the true one for ever: it may take a fifth of a step's earnings.
        cheap = costs[cheapest] * images <= self.share * self._tick / 5
        return cheapest if cheap and not better_seen and self._affordable(costs[cheapest] * images) else None

    def afford(self, costs: Sequence[float]) -> int:
        """How many previews asked for by name, of so many seconds each, are made now: the first ones that can be paid for.

        The next one is saved up for, however dear it is.
        """
        paid = sum(total <= self._credit for total in accumulate(costs))
        self._wanted = costs[paid] if paid < len(costs) and math.isfinite(costs[paid]) else 0.0
        return paid

    def _affordable(self, seconds: float) -> bool:
        return seconds <= self._credit


class PreviewBudgets:
    """A budget for each account: what one visitor looks at costs no other a preview.

    Each earns by its own part of the work, `share` of it; a previewer asked for by name earns NAMED_SHARE while nobody else waits.
    """

    def __init__(self, share: float):
        self.share = share
        self._budgets: dict[Account, PreviewBudget] = {}

    def __len__(self) -> int:
        return len(self._budgets)

    def __getitem__(self, account: Account) -> PreviewBudget:
        """The budget of an account that has worked."""
        return self._budgets[account]

    def worked(self, seconds: float, advanced: Collection[Account], present: Collection[str]) -> None:
        """A tick of `seconds` advanced an image of each account in `advanced`, which may be named several times.

        `present` are the owners that have an image under way or waiting; others are forgotten.
        """
        self._budgets = {account: budget for account, budget in self._budgets.items() if account.owner in present}
        for account, images in Counter(advanced).items():
            budget = self._budgets.setdefault(account, PreviewBudget(self.share))
            budget.share = NAMED_SHARE if account.named and set(present) <= {account.owner} else self.share
            budget.worked(seconds * images / len(advanced))
