"""The pictures of a report: an error of 0 lies on a line that says 0, and on no tolerance."""

from __future__ import annotations

import re

import pytest

from rnnx.parity.drift import Drift
from rnnx.parity.error_curves_svg import draw


def drift(*errors: float, bound: float = 1e-4) -> Drift:
    curve = [(10 * place, error) for place, error in enumerate(errors)]
    return Drift(curve, [], max(errors), None, [], 0.0, bound, None, None)


def labels(svg: str) -> dict[str, float]:
    """Return the heights of the labels at the left, by what they say."""
    found = re.findall(r'<text x="38" y="([\d.]+)" text-anchor="end">([^<]+)</text>', svg)
    return {text: float(y) - 4 for y, text in found}


def heights(svg: str, kind: str) -> list[float]:
    if kind == "bound":
        return [float(y) for y in re.findall(r'class="bound"[^>]* y1="([\d.]+)"', svg)]
    (path,) = re.findall(r'class="curve"[^>]* d="M([^"]+)"', svg)
    return [float(point.split()[1]) for point in path.split("L")]


@pytest.mark.parametrize("errors", [(0.0, 0.0, 0.0), (0.0, 2e-7, 0.0), (0.0, 1e-4, 1e-7)])
def test_no_error_lies_on_its_own_line(errors: tuple[float, ...]) -> None:
    svg = draw("h", {"cpu": drift(*errors)}, 30, {"cpu": 0})
    zero = labels(svg)["0"]
    shown = heights(svg, "curve")
    for error, height in zip(errors, shown, strict=True):
        assert (height == zero) == (error == 0.0)
    assert heights(svg, "bound")[0] < zero
    assert all(height < zero for text, height in labels(svg).items() if text != "0")


def test_where_all_steps_have_an_error_there_is_no_line_for_none() -> None:
    svg = draw("h", {"cpu": drift(1e-7, 2e-7)}, 30, {"cpu": 0})
    assert "0" not in labels(svg)
    assert heights(svg, "curve")[0] == labels(svg)["1e-7"]
