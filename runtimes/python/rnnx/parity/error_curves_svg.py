"""Error curves as SVG: log scale, the tolerance, and the band that the reference's own error fills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rnnx.parity.drift import Drift

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
    lines = {name: drift.curve for name, drift in drifts.items()}
    label = f"Error of {tensor} over the steps"
    left = [drift.left for drift in drifts.values() if drift.left is not None]
    return _chart(label, lines, steps, colours, one.bound, band=one.reference, left=left)


def draw_ratios(
    tensor: str, lines: Mapping[str, Points], steps: int, colours: Mapping[str, int], allowed: float
) -> str:
    """Return the errors of one tensor in units of rounding as an SVG element.

    Args:
        tensor, steps, colours: as `draw`.
        lines: by runtime, (first step, error) of stretches of steps.
        allowed: the largest that agrees.
    """
    label = f"Error of {tensor} in units of PyTorch's own, over the steps"
    return _chart(label, lines, steps, colours, allowed)


def _chart(
    label: str,
    lines: Mapping[str, Points],
    steps: int,
    colours: Mapping[str, int],
    bound: float,
    *,
    band: Points = (),
    left: Sequence[int] = (),
) -> str:
    values = [error for points in (*lines.values(), band) for _, error in points]
    finite = [error for error in (*values, bound) if 0 < error < math.inf] or [1e-8]
    low, high = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
    exact = 0.0 in values
    scale = _Scale(max(steps - 1, 1), low - exact, max(high, low + 1), exact)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">',
        *(_band(scale, band) if band else []),
        *_grid(scale, steps),
    ]
    if bound > 0:
        y = scale.y(bound)
        parts.append(f'<line class="bound" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>')
    for name, points in lines.items():
        colour = f"stroke: var(--c{colours[name]})"
        parts.append(f'<path class="curve" style="{colour}" d="{_line(scale, points)}"/>')
    for step in left:
        x = scale.x(step)
        parts.append(f'<line class="left" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_BOTTOM}"/>')
    return "".join([*parts, "</svg>"])


class _Scale:
    """Where steps and errors lie; where there is no error at all, 0 has a line of its own, the lowest."""

    def __init__(self, steps: int, low: int, high: int, exact: bool) -> None:
        self.steps, self.low, self.high, self.exact = steps, low, high, exact

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
        label = "0" if scale.exact and power == scale.low else f"1e{power}"
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    last = steps - 1
    for step, anchor in ((0, "start"), (last // 2, "middle"), (last, "end")):
        if step or anchor == "start":
            text = f"step {step:,}" if anchor == "start" else f"{step:,}"
            parts.append(f'<text x="{scale.x(step)}" y="{_BOTTOM + 18}" text-anchor="{anchor}">{text}</text>')
    return parts
