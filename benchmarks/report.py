"""What was measured, as JSON and as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.timing import Comparison, Figure, Measure, Result, Skipped, spread


def to_json(about: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Everything, raw samples included."""
    return {
        **about,
        "comparisons": [one.to_json() for one in results if isinstance(one, Comparison)],
        "measures": [one.to_json() for one in results if isinstance(one, Measure)],
        "figures": [one.to_json() for one in results if isinstance(one, Figure)],
        "skipped": [one.to_json() for one in results if isinstance(one, Skipped)],
    }


def to_markdown(about: dict[str, Any], results: Sequence[Result]) -> str:
    """Tables of the medians, with their ranges, and the ratios with their aims."""
    parts = [_heading(about)]
    if figures := [one for one in results if isinstance(one, Figure)]:
        header = ("what", "now", "before", "aim", "met", "notes")
        parts.append(_table(header, [_figure_row(one) for one in figures]))
    if comparisons := [one for one in results if isinstance(one, Comparison)]:
        header = ("what", "ours, s", "peer", "peer, s", "ratio", "aim", "met", "network calls (rows)", "previews", "pixels differ by")
        parts.append(_table(header, [_comparison_row(one) for one in comparisons]))
    if measures := [one for one in results if isinstance(one, Measure)]:
        parts.append(_table(("what", "median (min..max)", "aim", "met", "notes"), [_measure_row(one) for one in measures]))
    if skipped := [one for one in results if isinstance(one, Skipped)]:
        parts.append("Not measured:\n\n" + "\n".join(f"- {one.case}, {one.name}: {one.reason}" for one in skipped))
    return "\n\n".join(parts) + "\n"


def _heading(about: dict[str, Any]) -> str:
    machine = about["machine"]
    before = f" Before: commit {about['before'][:10]}, in the same run." if about.get("before") else ""
    quick = " Quick run: too few repeats to quote." if about["quick"] else ""
    changed = " with changes not committed" if about["changed_since"] else ""
    return (
        f"# Benchmark of {about['date']}\n\n"
        f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} torch threads, {machine['dtype']}; "
        f"Python {machine['python']}, torch {machine['torch']}, diffusers {machine['diffusers']}; "
        f"commit {(about['commit'] or 'unknown')[:10]}{changed}; "
        f"load before {_load(about['load_before'])}, after {_load(about['load_after'])}.{quick}\n\n"
        f"`{about['command']}`\n\n"
        f"Medians with (min..max). A ratio is ours / peer, the median over pairs run one after the other.{before}"
    )


def _comparison_row(one: Comparison) -> list[str]:
    network = one.facts.get("network")
    calls = " vs ".join(f"{network[who]['calls']} ({network[who]['rows']})" for who in ("ours", "peer")) if network else ""
    return [
        f"{one.case}: {one.name}", _spread(one.ours), one.peer_name, _spread(one.peer), _spread(one.ratios),
        _aim(one.aim), _met(one.met), calls, _previews(one.facts.get("previews")), str(one.facts.get("largest pixel difference", "")),
    ]  # fmt: skip


def _figure_row(one: Figure) -> list[str]:
    notes = "; ".join(f"{key}: {_both(value, one.facts_before.get(key))}" for key, value in one.facts.items())
    before = f"{_spread(one.before)} {one.unit}".strip() if one.before else ""
    aim = "" if one.aim is None else f"{'>=' if one.least else '<='} {one.aim:g} {one.unit}".strip()
    return [f"{one.case}: {one.name}", f"{_spread(one.samples)} {one.unit}".strip(), before, aim, _met(one.met), notes]


def _both(now: Any, before: Any) -> str:
    return str(now) if before in (None, now) else f"{now} (before: {before})"


def _measure_row(one: Measure) -> list[str]:
    hidden = ("ru_maxrss_mib", "steps")
    notes = "; ".join(f"{key}: {value}" for key, value in one.facts.items() if key not in hidden)
    return [f"{one.case}: {one.name}", f"{_spread(one.samples)} {one.unit}", _aim(one.aim, one.unit), _met(one.met), notes]


def _previews(runs: list[dict[str, int]] | None) -> str:
    """Previews of the median run, by method."""
    if not runs:
        return ""
    typical = sorted(runs, key=lambda one: sum(one.values()))[len(runs) // 2]
    return ", ".join(f"{count} {method}" for method, count in typical.items()) or "none"


def _spread(samples: Sequence[float]) -> str:
    found = spread(samples)
    digits = 0 if found["median"] >= 100 else 2 if found["median"] >= 10 else 3
    return f"{found['median']:.{digits}f} ({found['min']:.{digits}f}..{found['max']:.{digits}f})"


def _aim(aim: float | None, unit: str = "") -> str:
    return "" if aim is None else f"<= {aim:g} {unit}".strip()


def _met(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "no"


def _load(averages: list[float] | None) -> str:
    return "unknown" if averages is None else f"{averages[0]:g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
