"""What training never sees: a style of some subjects, and some pairs of subjects, drawn by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from training.settings import HeldOut


def held_out_styles(code: str, styles: Collection[str], rules: HeldOut) -> frozenset[str]:
    """The styles in which a subject is held out: one and those that look alike, or none. It does not depend on other subjects."""
    if len(styles) < rules.min_styles or share_of(rules.seed, "subject", code) >= rules.subject_share:
        return frozenset()
    drawn = min(styles, key=lambda style: share_of(rules.seed, "style", code, style))
    return frozenset(styles) & {drawn, *(style for alike in rules.alike if drawn in alike for style in alike)}


def pair_is_held_out(one: str, other: str, rules: HeldOut) -> bool:
    """Whether two subjects, in either order, are never composed in one training picture."""
    return share_of(rules.seed, "pair", *sorted((one, other))) < rules.pair_share


def share_of(*words: object) -> float:
    """A number in [0, 1) that follows from the words."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
