"""Curves of what was measured, as drawings that need neither script nor library: numbers in, places in an SVG out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from annotate.admin.measured import said, titled
from annotate.training import Curves, Point

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 8, 20
"""Of the drawing and its margins, in units of the drawing."""

FIRST = ("reward", "reward_less_penalties", "loss", "accuracy", "margin", "kl", "length", "entropy", "ended")
"""What is looked at first; all else follows by name."""

BESIDE = "validation_"
"""What is measured on the split validation is drawn with the same of train."""

FEW = 40
"""So many points are drawn as points too."""

UNITS = {
    "kl": "nats an answer",
    "entropy": "nats a token",
    "length": "tokens an answer",
    "ended": "share of answers",
    "accuracy": "share of pairs",
    "clip_fraction": "share of tokens",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One measure as it is drawn: a path of its means, points where they are few, and a band of all that was there."""

    name: str
    style: str
    path: str
    band: str
    dots: list[tuple[str, str]]
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A small drawing of one measure, and of its like on the split validation."""

    key: str
    title: str
    unit: str
    told: str
    lines: list[Line]
    heights: list[tuple[str, str]]
    first_step: str
    last_step: str


def charts(curves: Curves) -> list[Chart]:
    """A chart for each measure, what is looked at first before all else."""
    names = [name for name in curves.points if not (name.startswith(BESIDE) and _without(name) in curves.points)]
    order = {name: number for number, name in enumerate(FIRST)}
    names.sort(key=lambda name: (order.get(_without(name), len(FIRST)), name))
    return [_chart(name, curves) for name in names]


def rows(curves: Curves) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The same as a table: the names of the measures, and by the last step of each place their means."""
    places: dict[int, dict[str, Point]] = {}
    for name, points in curves.points.items():
        for point in points:
            places.setdefault(point.place, {})[name] = point
    found = []
    for place in sorted(places):
        step = max(point.step for point in places[place].values())
        values = [said(places[place][name].mean) if name in places[place] else "–" for name in curves.points]
        found.append((f"{step:,}", values))
    return [titled(name) for name in curves.points], found


def _without(name: str) -> str:
    return name.removeprefix(BESIDE)


def _chart(name: str, curves: Curves) -> Chart:
    held = [(one, curves.points[one]) for one in (name, f"{BESIDE}{name}") if one in curves.points]
    every = [point for _, points in held for point in points]
    first, last = min(point.step for point in every), max(point.step for point in every)
    low, high, heights = _heights(min(point.low for point in every), max(point.high for point in every))

    def across(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def up(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    lines = []
    for style, (one, points) in zip(("one", "two"), held, strict=False):
        means = [(across(point.step), up(point.mean)) for point in points]
        lines.append(
            Line(
                name=titled(one),
                style=style,
                path=_path(means),
                band=_band([(across(one.step), up(one.low), up(one.high)) for one in points]),
                dots=[(f"{x:.1f}", f"{y:.1f}") for x, y in means] if len(points) <= FEW else [],
                last=said(points[-1].mean),
            )
        )
    return Chart(
        key=name,
        title=titled(name),
        unit=UNITS.get(_without(name), ""),
        told="; ".join(_told(one, points) for one, points in held),
        lines=lines,
        heights=[(f"{up(value):.1f}", said(value)) for value in heights],
        first_step=f"{first:,}",
        last_step=f"{last:,}" if last > first else "",
    )


def _told(name: str, points: Sequence[Point]) -> str:
    """What the drawing shows, for those who do not see it."""
    first, last = points[0], points[-1]
    if len(points) == 1:
        return f"{titled(name)} is {said(first.mean)} at step {first.step:,}"
    low, high = min(point.low for point in points), max(point.high for point in points)
    return (
        f"{titled(name)} goes from {said(first.mean)} at step {first.step:,} to {said(last.mean)} at step "
        f"{last.step:,}, between {said(low)} and {said(high)}"
    )


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _band(places: Sequence[tuple[float, float, float]]) -> str:
    """Around the lowest and the highest; empty where each place is of one step."""
    if all(low == high for _, low, high in places):
        return ""
    there = [(x, high) for x, _, high in places]
    back = [(x, low) for x, low, _ in reversed(places)]
    return f"{_path([*there, *back])}Z"


def _heights(low: float, high: float) -> tuple[float, float, list[float]]:
    """The lower and the upper edge of a drawing, and the round numbers between them that are written beside it."""
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        room = abs(high) / 2 or 1.0
        return low - room, high + room, [high]
    rough = (high - low) / 4
    tens = 10.0 ** math.floor(math.log10(rough))
    apart = tens * next(times for times in (1, 2, 5, 10) if times * tens >= rough * 0.999)
    numbers = range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)
    return low, high, [number * apart for number in numbers]
