"""The benchmark's figures: an aim from above or below, and what was measured in an older checkout beside it."""

from __future__ import annotations

import pytest

from benchmarks.figures import beside
from benchmarks.report import to_json, to_markdown
from benchmarks.timing import Figure

ABOUT = {
    "date": "2026-11-27", "quick": False, "command": "python -m benchmarks.figures", "commit": "1" * 40, "changed_since": False,
    "before": "2" * 40, "load_before": [0.1] * 3, "load_after": None,
    "machine": dict.fromkeys(("gpu", "cpu", "cores", "torch_threads", "dtype", "python", "torch", "diffusers"), "x"),
}  # fmt: skip


def told(name: str, *samples: float, **more) -> dict:
    """A figure as a case prints it."""
    return {"name": name, "unit": "ms", "samples": list(samples), "aim": None, "least": False, "facts": {}, **more}


@pytest.mark.parametrize(
    ("samples", "aim", "least", "met"),
    [
        ((1, 9, 2), 2, False, True), ((1, 9, 3), 2, False, False), ((1, 9, 3), 2, True, True), ((1, 9, 1), 2, True, False),
        ((1,), None, True, None),
    ],
)  # fmt: skip
def test_an_aim_is_for_the_median_from_above_or_below(samples, aim, least, met) -> None:
    assert Figure("case", "name", "ms", samples, aim=aim, least=least).met is met


def test_each_figure_stands_beside_the_one_of_its_name_from_before() -> None:
    now = [told("a", 1, 2, 3, aim=2, facts={"calls": 4}), told("new", 5)]
    then = [told("gone", 7), told("a", 30, 20, facts={"calls": 9})]
    both, new = beside("case", now, then)
    assert (both.samples, both.before, both.facts_before) == ((1, 2, 3), (30, 20), {"calls": 9})
    assert (new.samples, new.before) == ((5,), ())
    table = to_markdown(ABOUT, [both, new])
    assert "| case: a | 2.000 (1.000..3.000) ms | 25.00 (20.00..30.00) ms | <= 2 ms | yes | calls: 4 (before: 9) |" in table
    assert "| case: new | 5.000 (5.000..5.000) ms |  |  |  |  |" in table
    assert "Before: commit 2222222222" in table
    assert [one["name"] for one in to_json(ABOUT, [both, new])["figures"]] == ["a", "new"]
