"""What this repository's presets put on offer, and values of every axis out of it."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.recipes.axes import AXES, Offer, Replacement
from engine.recipes.catalog import Catalog, Limits, load_styles
from engine.recipes.recipe import MAX_SEED
from tests.conftest import ROOT

OFFER = Offer(Catalog.load(ROOT / "presets" / "models.toml"), Limits(), tuple(load_styles(ROOT / "presets" / "styles.toml")))
SHORT = {"max_size": 6, "unique": True, "min_size": 1}
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('",|\n\r\t\v\u2028\\ '), max_size=12)
SIDES = st.integers(4, 512).map(lambda n: n * 8)
VALUES = {
    "seed": st.lists(st.integers(0, MAX_SEED), **SHORT),
    "cfg": st.lists(st.floats(1, 30), **SHORT),
    "steps": st.lists(st.integers(1, 150), **SHORT),
    "scheduler": st.lists(st.sampled_from(AXES["scheduler"].choices(OFFER)), **SHORT),
    "size": st.lists(st.tuples(SIDES, SIDES), **SHORT),
    "width": st.lists(SIDES, **SHORT),
    "height": st.lists(SIDES, **SHORT),
    "model": st.lists(st.sampled_from(AXES["model"].choices(OFFER)), **SHORT),
    "prompt": st.lists(TEXTS, **SHORT),
    "negative": st.lists(TEXTS, **SHORT),
    "style": st.lists(st.sampled_from([None, *OFFER.styles]), **SHORT),
    "clip_skip": st.lists(st.integers(1, 12), **SHORT),
    "replace": st.lists(TEXTS, **SHORT).filter(lambda texts: texts[0]).map(lambda texts: [Replacement(texts[0], text) for text in texts]),
}
