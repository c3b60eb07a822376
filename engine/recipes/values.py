"""The line a person writes for an axis: "1, 3, 5-9 (+2)" to values and back.

Items are separated by commas, with CSV's quotes round one that holds a comma or a backslash before it, or by `||` where
the line has one outside quotes; line ends separate too. Of texts, that are pasted one a line, a line is an item with its
commas. Numbers are decimal throughout: 1-2 (+0.1) gives 1.1, not 1.1000000000000001.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from engine.errors import InvalidRequest

FINEST = Decimal("0.001")
"""Grain of the decimals that are worked out here (evenly spaced values, midpoints): no eye sees finer, and labels stay short."""

_END = r"\r\n\v\f\x85\u2028\u2029"
"""Characters that end a line, as in str.splitlines: word processors and web pages put the last ones on the clipboard."""

_BLANK = rf"[^\S{_END}]*"
_QUOTED = re.compile(rf'{_BLANK}"((?:[^"]|"")*+)"{_BLANK}')
_QUOTED_LINE = re.compile(rf"{_QUOTED.pattern}(?:,{_QUOTED.pattern})*+,?{_BLANK}(?=[{_END}]|\|\||$)")
_COMMA_ITEM, _COMMA = re.compile(rf"(?:\\,|[^,{_END}])*+"), re.compile(rf"(?:,\s*)?[{_END}]\s*|,")
_BAR_ITEM, _BAR = re.compile(rf"(?:(?!\|\|)[^{_END}])*+"), re.compile(rf"(?:(?:\|\||,)\s*)?[{_END}]\s*|\|\|")
_LISTED = re.compile(rf"{_BAR.pattern}|,")
_ANY_ITEM, _ANY = re.compile(rf"(?:(?!\|\|)(?:\\,|[^,{_END}]))*+"), re.compile(rf",|[{_END}]|\|\|")

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBERS = re.compile(rf"({_NUMBER})(?:\s*[-–]\s*({_NUMBER})(?:\s*\(\s*({_NUMBER})\s*\)|\s*\[\s*([0-9]{{1,9}})\s*\])?)?")
_RANDOM = re.compile(r"(?:([0-9]{1,9})\s+)?random(?:\s+seeds?)?", re.IGNORECASE)
_SQUARE_OR_SIDES = re.compile(rf"({_NUMBER})\s*[x×]\s*({_NUMBER})", re.IGNORECASE)


@dataclass(frozen=True)
class NumberRule:
    """The numbers an axis takes: from `low` to `high`, multiples of `unit` where there is one. `example` is its notation."""

    label: str
    example: str
    low: Decimal
    high: Decimal
    unit: Decimal | None = None

    def check(self, value: Decimal) -> Decimal:
        """The value. Raises InvalidRequest with what is allowed and the nearest such value."""
        if self.low <= value <= self.high and (self.unit is None or value % self.unit == 0):
            return value
        grain = self.unit or FINEST
        nearest = round(min(max(value, self.low), self.high) / grain) * grain
        kind = {None: "a number", 1: "a whole number"}.get(self.unit, f"a multiple of {self.unit}")
        raise InvalidRequest(
            f"{self.label} must be {kind} from {self.low:,} to {self.high:,}; it was {_shortened(format(value, 'f'))}:"
            f" the nearest is {show_number(nearest)}."
        )

    def expand(self, item: str, limit: int) -> list[Decimal]:
        """The numbers in one item: "7", "5-9", "9-1 (-2)" or "1-10 [4]". Raises InvalidRequest before a long range is built."""
        match = _NUMBERS.fullmatch(item)
        if match is None:
            raise InvalidRequest(f"{self.label} cannot read “{_shortened(item)}”: write numbers like {self.example}.")
        first, last, step, count = match.groups()
        start = self.check(Decimal(first))
        if last is None:
            return [start]
        end = self.check(Decimal(last))
        if count:
            return self._evenly(start, end, int(count), item, limit)
        stride = Decimal(step) if step else (self.unit or Decimal(1)) * (-1 if end < start else 1)
        if stride == 0 or (end - start) * stride < 0:
            raise InvalidRequest(f"{self.label}: the step of “{_shortened(item)}” never gets from {start} to {end}.")
        if (steps := (end - start) / stride) >= limit:
            raise InvalidRequest(f"{self.label}: “{_shortened(item)}” is more than the {limit} values allowed here: take a larger step.")
        return [self.check(start + i * stride) for i in range(int(steps) + 1)]

    def _evenly(self, start: Decimal, end: Decimal, count: int, item: str, limit: int) -> list[Decimal]:
        if not 2 <= count <= limit:
            raise InvalidRequest(f"{self.label}: the number in brackets of “{_shortened(item)}” must be from 2 to {limit}.")
        grain = self.unit or FINEST
        inner = [round((start + (end - start) * i / (count - 1)) / grain) * grain for i in range(1, count - 1)]
        return [start, *inner, end]

    def finer(self, values: Sequence[Decimal], chosen: int) -> list[Decimal]:
        """values[chosen] between the midpoints to its neighbours by size, rising or falling as `values` do.

        At an end the one neighbour's distance is mirrored. A midpoint that is out of bounds or, whole, no new number is left out.
        """
        value, ordered = values[chosen], sorted(values, reverse=values[0] > values[-1])
        if len(ordered) == 1:
            return [value]
        at = ordered.index(value)
        before = ordered[at - 1] if at else 2 * value - ordered[1]
        after = ordered[at + 1] if at + 1 < len(ordered) else 2 * value - before
        return list(dict.fromkeys([self._midpoint(value, before), value, self._midpoint(value, after)]))

    def _midpoint(self, value: Decimal, neighbour: Decimal) -> Decimal:
        """Halfway to the neighbour, within the bounds, rounded towards the value."""
        distance = min(max((value + neighbour) / 2, self.low), self.high) - value
        grain = self.unit or FINEST
        return value + distance // grain * grain  # Decimal's // rounds towards zero


def separator_of(line: str) -> str:
    """What separates a line's items: "||" where it stands outside quotes, else "\\n" where a line ends outside them, else ","."""
    separators = {separator for _, _, separator in _scan(line.strip(), _ANY_ITEM, _ANY)}
    return "||" if "||" in separators else "\n" if separators - {",", ""} else ","


def split_line(line: str, *, by_line: bool = False) -> list[tuple[str, bool]]:
    """The items of a line as (text, whether it stood in quotes), without blank lines. Raises InvalidRequest at an open quote.

    With `by_line` the commas of several lines belong to the items, unless a line is nothing but items in quotes.
    """
    line, separator = line.strip(), separator_of(line)
    if not line:
        return []
    if separator == "||" or (by_line and separator == "\n"):
        items = [(text, quoted) for text, quoted, _ in _scan(line, _BAR_ITEM, _BAR, _QUOTED_LINE)]
    else:
        scanned = _scan(line, _COMMA_ITEM, _COMMA)
        items = [(text if quoted else text.replace("\\,", ","), quoted) for text, quoted, _ in scanned]
    for text, quoted in items:
        if not quoted and text.startswith('"') and text.count('"') % 2:
            raise InvalidRequest(f"The quote in “{_shortened(text)}” is not closed: close it, or separate the values by || instead.")
    return items


def _scan(
    line: str, literal: re.Pattern[str], separator: re.Pattern[str], listed: re.Pattern[str] | None = None
) -> list[tuple[str, bool, str]]:
    """(text, quoted, the separator after it) of each item. Where `listed` matches, commas separate too."""
    items, place, list_end = [], 0, 0
    while True:
        if listed and place >= list_end and (found := listed.match(line, place)):
            list_end = found.end()
        between = _LISTED if place < list_end else separator
        quoted = _QUOTED.match(line, place)
        if quoted and (quoted.end() == len(line) or between.match(line, quoted.end())):
            text, place = quoted[1].replace('""', '"'), quoted.end()
        else:
            quoted, found = None, literal.match(line, place)
            assert found is not None, "an item may be empty"
            text, place = found[0].strip(), found.end()
        end = between.match(line, place)
        items.append((text, quoted is not None, end[0] if end else ""))
        if end is None:
            return items
        place = end.end()


def longer_line(line: str, more: str) -> str:
    """A line of values with more of them at its end, separated as they are in the line."""
    line, separator = line.strip(), separator_of(line)
    if separator == "," != separator_of(more):  # what separates in `more` would change what separates in the line
        items = [*split_line(line, by_line=True), *split_line(more, by_line=True)]
        return ", ".join(_quoted(text) if text or quoted else "" for text, quoted in items)
    return line + {",": ", ", "||": " || ", "\n": "\n"}[separator] + more


def write_line(texts: Iterable[str]) -> str:
    """The line whose items are exactly these texts."""
    return ", ".join(_quoted(text) for text in texts)


def _quoted(text: str) -> str:
    plain = text and text == text.strip() and not re.search(rf'[",{_END}]|\|\||\\$', text)
    return text if plain else '"' + text.replace('"', '""') + '"'


def show_number(value: float | Decimal) -> str:
    """The shortest text that reads back as this number, without an exponent: 7.0 -> "7"."""
    return format(Decimal(str(value)).normalize(), "f")


def read_numbers(line: str, rule: NumberRule, limit: int, draw: Callable[[], int] | None = None) -> list[Decimal]:
    """The numbers in a line, at most `limit`. Raises InvalidRequest.

    With `draw`, "random" and "4 random seeds" are read too: numbers drawn that differ from all others.
    """
    values: list[Decimal | None] = []  # None: to be drawn, when the numbers to avoid are known
    for item in read_texts(line, rule.label, rule.example, limit):
        random = _RANDOM.fullmatch(item) if draw else None
        values += [None] * _random_count(random, rule, limit) if random else rule.expand(item, limit)
        refuse_more(rule.label, len(values), limit)
    taken = {value for value in values if value is not None}

    def drawn() -> Decimal:
        assert draw is not None, "nothing else leaves a number to be drawn"
        number = next(Decimal(one) for one in iter(draw, None) if one not in taken)
        taken.add(number)
        return number

    return [drawn() if value is None else value for value in values]


def _random_count(match: re.Match[str], rule: NumberRule, limit: int) -> int:
    count = int(match[1] or 1)
    if not 1 <= count <= limit:
        raise InvalidRequest(f"{rule.label}: “{match[0]}” must ask for 1 to {limit} seeds.")
    return count


def read_sizes(line: str, rule: NumberRule, limit: int) -> list[tuple[Decimal, Decimal]]:
    """The (width, height) pairs in a line such as "64, 96x64"; one number or range means squares. Raises InvalidRequest."""
    sizes = []
    for item in read_texts(line, rule.label, rule.example, limit):
        sides = _SQUARE_OR_SIDES.fullmatch(item)
        pairs = [sides.groups()] if sides else [(side, side) for side in rule.expand(item, limit)]
        sizes += [(rule.check(Decimal(width)), rule.check(Decimal(height))) for width, height in pairs]
        refuse_more(rule.label, len(sizes), limit)
    return sizes


def read_texts(
    line: str, label: str, example: str, limit: int, *, keep_empty: bool = False, by_line: bool = False
) -> list[str]:
    """The texts in a line, at most `limit`; empty ones only in quotes or with `keep_empty`. Raises InvalidRequest, also for none."""
    texts = [text for text, quoted in split_line(line, by_line=by_line) if text or quoted or keep_empty]
    if not texts:
        raise InvalidRequest(f"{label} needs at least one value, such as {example}.")
    refuse_more(label, len(texts), limit)
    return texts


def complete_name(typed: str, names: Sequence[str], label: str) -> str:
    """The name that was meant: the same whatever its capitals, else the only one that begins with, else that holds what was typed.

    Raises InvalidRequest with the candidates, or the nearest names.
    """
    folded = {name.casefold(): name for name in names}
    begun = [name for fold, name in folded.items() if fold.startswith(typed.casefold())]
    held = [name for fold, name in folded.items() if typed.casefold() in fold]
    found = [folded[typed.casefold()]] if typed.casefold() in folded else begun or held
    if len(found) == 1:
        return found[0]
    if found:
        more = ", ..." if len(found) > 6 else ""
        raise InvalidRequest(f"{label}: “{_shortened(typed)}” may be {', '.join(found[:6])}{more}: write more of the name.")
    near = difflib.get_close_matches(typed.casefold()[:100], folded, n=3, cutoff=0.4)
    known = f"did you mean {' or '.join(folded[fold] for fold in near)}?" if near else f"there is {', '.join(list(names)[:6])}."
    raise InvalidRequest(f"{label}: there is no “{_shortened(typed)}” here; {known}")


def refuse_repeats(label: str, shown: Sequence[str]) -> None:
    """Raises InvalidRequest with the first value that is named twice."""
    for place, text in enumerate(shown):
        if text in shown[:place]:
            raise InvalidRequest(f"{label}: “{_shortened(text)}” is named twice.")


def refuse_more(label: str, count: int, limit: int) -> None:
    """Raises InvalidRequest when there are more values than the operator allows images."""
    if count > limit:
        raise InvalidRequest(f"{label}: {count:,} values are more than the {limit} allowed here: shorten the line.")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
