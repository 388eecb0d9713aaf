"""The result of `rnnx bench` as a picture."""

from __future__ import annotations

import importlib
from pathlib import Path

from rnnx.bench.measure import Bench
from rnnx.files import writing

Figure = importlib.import_module("matplotlib.figure").Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def draw(found: Bench, path: Path) -> None:
    """Draw bars: how many times as long as the first candidate a step takes, by number of streams.

    Args:
        found: what was measured.
        path: of the picture; its ending chooses the format.

    Raises:
        FileError: the picture cannot be written.
    """
    counts = list(dict.fromkeys(timing.streams for timing in found.timings))
    names = list(dict.fromkeys(timing.contender for timing in found.timings))
    figure = Figure(figsize=(8, 0.7 + len(counts) * (0.5 + 0.25 * len(names))), layout="constrained")
    figure.suptitle(f"{found.model}: time for a step, {names[0]} = 1 (less is better)", fontsize=10)
    subplots = figure.subplots(len(counts), squeeze=False, sharex=True)[:, 0]
    for axes, count in zip(subplots, counts, strict=True):
        timings = [timing for timing in found.timings if timing.streams == count]
        ratios = [timing.ratio for timing in timings]
        colours = [_COLOURS[names.index(timing.contender) % len(_COLOURS)] for timing in timings]
        bars = axes.barh([timing.contender for timing in timings], ratios, color=colours)
        texts = [f"{timing.ratio:.2f}x, {timing.median_us:,.1f} us" for timing in timings]
        axes.bar_label(bars, texts, padding=4, fontsize=8)
        axes.set_title(f"{count} stream{'s' * (count > 1)}", fontsize=9, loc="left")
        axes.axvline(1, color="0.5", linewidth=0.8)
        axes.tick_params(labelsize=8)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    subplots[-1].set_xlim(0, 1.3 * max(timing.ratio for timing in found.timings))
    with writing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)
