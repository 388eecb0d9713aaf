"""Error curves as SVG: log scale, the tolerance, and the band that the reference's own error fills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rnnx.drift import Drift

_WIDTH, _HEIGHT = 400, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 392, 10, 182
COLOURS = 4

Points = Sequence[tuple[int, float]]


def draw(tensor: str, drifts: Mapping[str, Drift], steps: int, colours: Mapping[str, int]) -> str:
    """Return the curves of one tensor as an SVG element.

    Args:
        tensor: its name, for screen readers.
        drifts: by runtime.
        steps: how many steps the axis has.
        colours: by runtime, which of the colours.
    """
    one = next(iter(drifts.values()))
    values = [error for drift in drifts.values() for _, error in (*drift.curve, *drift.reference)]
    finite = [error for error in (*values, one.bound) if 0 < error < math.inf] or [1e-8]
    low, high = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
    scale = _Scale(max(steps - 1, 1), low, max(high, low + 1))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Error of {tensor} over the steps">',
        *(_band(scale, one.reference) if one.reference else []),
        *_grid(scale, steps),
    ]
    if one.bound > 0:
        y = scale.y(one.bound)
        parts.append(f'<line class="bound" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>')
    for name, drift in drifts.items():
        colour = f"stroke: var(--c{colours[name]})"
        parts.append(f'<path class="curve" style="{colour}" d="{_line(scale, drift.curve)}"/>')
        if drift.left is not None:
            x = scale.x(drift.left)
            parts.append(f'<line class="left" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_BOTTOM}"/>')
    return "".join([*parts, "</svg>"])


class _Scale:
    def __init__(self, steps: int, low: int, high: int) -> None:
        self.steps, self.low, self.high = steps, low, high

    def x(self, step: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * min(step / self.steps, 1), 1)

    def y(self, error: float) -> float:
        """Return the height of an error; 0 lies on the axis, infinity at the top."""
        power = self.low if error <= 0 else math.log10(error) if error < math.inf else self.high
        share = (min(max(power, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)


def _line(scale: _Scale, points: Points) -> str:
    if len(points) == 1:
        y = scale.y(points[0][1])
        return f"M{_LEFT} {y}H{_RIGHT}"
    return "M" + "L".join(f"{scale.x(step)} {scale.y(error)}" for step, error in points)


def _band(scale: _Scale, points: Points) -> list[str]:
    line = _line(scale, points)
    return [f'<path class="band" d="{line}L{_RIGHT} {scale.y(points[-1][1])}V{_BOTTOM}H{_LEFT}Z"/>']


def _grid(scale: _Scale, steps: int) -> list[str]:
    parts = []
    every = max(1, math.ceil((scale.high - scale.low) / 5))
    for power in range(scale.low, scale.high + 1, every):
        y = scale.y(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">1e{power}</text>')
    last = steps - 1
    for step, anchor in ((0, "start"), (last // 2, "middle"), (last, "end")):
        if step or anchor == "start":
            text = f"step {step:,}" if anchor == "start" else f"{step:,}"
            parts.append(f'<text x="{scale.x(step)}" y="{_BOTTOM + 18}" text-anchor="{anchor}">{text}</text>')
    return parts
