"""The report: one HTML file with everything in it, which a person reads in a minute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rnnx.foreign_text import in_html
from rnnx.model.contract import to_json
from rnnx.parity.drift import Drift
from rnnx.parity.error_curves_svg import COLOURS, draw, draw_ratios
from rnnx.parity.lockstep import Failure
from rnnx.parity.rounding import WINDOW
from rnnx.parity.verdict import Parity, Runtime, why

_ROUTES = (
    ("start", "at the start"),
    ("fed", "stepwise"),
    ("free", "running free"),
    ("chunks", "in chunks"),
)
_MOST_CHARTS = 24
_HOLDS = {
    True: '<span class="good">holds</span>',
    False: '<span class="bad">FAILS</span>',
    None: '<span class="soft">not applicable</span>',
}


def to_html(found: Parity) -> str:
    """Return the report as one self-contained HTML document: no script, nothing loaded from elsewhere."""
    style = Path(__file__).with_name("report.css").read_text()
    name = found.model["name"] or Path(found.model["path"]).name or "model"
    sections = [
        _verdict(found),
        _runtimes(found),
        _worst(found),
        _curves(found),
        _checks(found),
        _origin(found),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Parity of {_text(name)}</title><style>\n{style}</style></head><body>"
        f"<h1>Parity of {_text(name)}</h1>{''.join(sections)}</body></html>\n"
    )


def _verdict(found: Parity) -> str:
    kind = "good" if found.agrees else "bad"
    word = "Agrees" if found.agrees else "Disagrees"
    stopped = " It was interrupted: this is what was compared until then." if found.interrupted else ""
    size = (
        f"{found.steps:,} steps at batch {found.batch}, {found.inputs} inputs"
        + (f" (seed {found.seed})" if found.seed is not None else "")
        + f", on {', '.join(runtime.provider for runtime in found.runtimes)}."
    )
    reason = "" if found.agrees else f"<p>{_text(why(found))}</p>"
    return (
        f'<div class="verdict {kind}"><b>{word} with {_text(found.reference)}</b>'
        f"<p>{_text(size)}{stopped}</p>{reason}</div>"
    )


def _runtimes(found: Parity) -> str:
    rows = [
        [
            *("runtime", "verdict", "stepwise", "running free", "in chunks"),
            *("against float64", "grows", "leaves tolerance"),
        ]
    ]
    for runtime in found.runtimes:
        errors = [
            f"{_largest(runtime, route):.1e}" if route in runtime.max_errors else "-"
            for route in ("fed", "free", "chunks")
        ]
        ratio = "-"
        if runtime.ratio is not None:
            ratio = f"{runtime.ratio:.2g} times PyTorch's own, {runtime.allowed_ratio:g} allowed"
        word = '<span class="good">agrees</span>' if runtime.agrees else '<span class="bad">DISAGREES</span>'
        rows.append(
            [_text(runtime.provider), word, *errors, ratio, growth(runtime.drift.values()), horizon(runtime)]
        )
    note = (
        "Largest errors, relative to 1 + |expected|. Against float64: the error over a window of steps in "
        "units of the error that PyTorch itself makes there: 1 is as good as PyTorch."
        if found.truth
        else "Largest errors, relative to 1 + |expected|. No float64 network was there to measure errors by."
    )
    levels = ", ".join(dict.fromkeys(name for runtime in found.runtimes for name in runtime.tolerance))
    more = f" Tolerance: {_text(levels)}."
    return f'<h2>Runtimes</h2>{_table(rows)}<p class="soft">{note}{more}</p>'


def _worst(found: Parity) -> str:
    rows = [["runtime", "how", "step", "tensor", "index", "expected", "got", "error", "allowed"]]
    routes = dict(_ROUTES)
    for runtime in found.runtimes:
        worst = runtime.failure or runtime.worst
        if worst is not None:
            allowed = _allowed(worst)
            rows.append(
                [
                    *map(_text, (runtime.provider, routes[worst.way], f"{worst.step:,}", worst.tensor)),
                    str(worst.index),
                    *(f"{value:.9g}" for value in (worst.expected, worst.got)),
                    f"{worst.max_error:.2e}",
                    allowed,
                ]
            )
    title = "Largest error" if all(runtime.failure is None for runtime in found.runtimes) else "First failure"
    text = f"<h2>{title}</h2>{_table(rows)}"
    if found.finding is not None:
        text += f'<p class="bad">Begins at {_text(str(found.finding))}</p>'
    if found.command:
        text += f'<p class="soft">To see it again:</p><pre class="command">{_text(found.command)}</pre>'
    return text


def _curves(found: Parity) -> str:
    colours = {r.provider: index % COLOURS for index, r in enumerate(found.runtimes)}
    tensors = list(dict.fromkeys(tensor for runtime in found.runtimes for tensor in runtime.drift))
    if not tensors:
        return ""
    keys = [
        f'<span><span class="key" style="background: var(--c{colour})"></span>{_text(name)}</span>'
        for name, colour in colours.items()
    ]
    if found.truth:
        keys.append(
            '<span><span class="key" style="background: var(--band)"></span>PyTorch\'s own error</span>'
        )
    keys.append('<span><span class="key bound"></span>tolerance</span>')
    charts = [
        f"<figure><figcaption>{_text(tensor)}</figcaption>"
        + draw(
            _text(tensor),
            {r.provider: r.drift[tensor] for r in found.runtimes if tensor in r.drift},
            found.steps,
            colours,
        )
        + "</figure>"
        for tensor in tensors[:_MOST_CHARTS]
    ]
    more = len(tensors) - len(charts)
    rest = f'<p class="soft">{more} more tensors are in the JSON.</p>' if more > 0 else ""
    against = "against the network in float64" if found.truth else "against the reference"
    return (
        f'<h2>Error over the steps, running free</h2><p class="soft">{against}; logarithmic</p>'
        f'<div class="legend">{"".join(keys)}</div><div class="charts">{"".join(charts)}</div>{rest}'
        + _ratios(found, tensors[:_MOST_CHARTS], colours)
    )


def _ratios(found: Parity, tensors: Sequence[str], colours: Mapping[str, int]) -> str:
    charts = []
    allowed = max((r.allowed_ratio for r in found.runtimes if r.allowed_ratio is not None), default=None)
    for tensor in tensors:
        measured = {r.provider: r.drift[tensor] for r in found.runtimes if tensor in r.drift}
        lines = {name: drift.ratios for name, drift in measured.items() if drift.ratios}
        if lines and allowed is not None:
            chart = draw_ratios(_text(tensor), lines, found.steps, colours, allowed)
            charts.append(f"<figure><figcaption>{_text(tensor)}</figcaption>{chart}</figure>")
    if not charts:
        return ""
    return (
        "<h2>The same in units of PyTorch's own error</h2>"
        f'<p class="soft">over windows of {WINDOW} steps, the largest of stepwise, free-running and chunks, '
        f"as far as PyTorch itself stays within the tolerance; {allowed:g} are allowed</p>"
        f'<div class="charts">{"".join(charts)}</div>'
    )


def _checks(found: Parity) -> str:
    if not any(runtime.checks for runtime in found.runtimes):
        return ""
    rows = [["runtime", "check", "result", "what was done"]]
    for runtime in found.runtimes:
        for check in runtime.checks:
            rows.append(
                [*map(_text, (runtime.provider, check.name)), _HOLDS[check.holds], _text(check.detail)]
            )
    return f"<h2>Behaviour</h2>{_table(rows, wide=3)}"


def _origin(found: Parity) -> str:
    rows = [["", ""], ["model", f"<code>{_text(found.model['path'] or 'given as bytes')}</code>"]]
    rows.append(["id of the model", f"<code>{_text(found.model['id'])}</code>"])
    rows += [
        [f"SHA-256 of {_text(name)}", f"<code>{digest}</code>"] for name, digest in found.digests.items()
    ]
    rows.append(["versions", _text(", ".join(f"{name} {v}" for name, v in found.versions.items()))])
    rows += [["machine", _text(found.machine)], ["made", _text(found.made)]]
    contract = _text(to_json(found.contract, indent=2))
    return (
        f"<h2>Where this comes from</h2>{_table(rows, wide=1)}"
        f"<details><summary>The contract</summary><pre>{contract}</pre></details>"
    )


def growth(drifts: Iterable[Drift]) -> str:
    """Return in words how fast the error grows."""
    fastest = max((drift.growth_per_step for drift in drifts), default=0.0)
    return "no" if fastest <= 0 else f"twofold in {0.6931 / fastest:,.3g} steps"


def horizon(runtime: Runtime) -> str:
    """Return in words when the free-running states leave the tolerance, and when PyTorch's own does."""
    left = [drift.left for drift in runtime.drift.values() if drift.left is not None]
    own = [drift.reference_left for drift in runtime.drift.values() if drift.reference_left is not None]
    if not left and not own:
        return "never"
    parts = [f"at step {min(left):,}" if left else "never"]
    parts.append(f"PyTorch itself at {min(own):,}" if own else "PyTorch never")
    return ", ".join(parts)


def _allowed(worst: Failure) -> str:
    if worst.way == "float64":
        return (
            f"{worst.allowed_ratio:g} times what rounding the file's constants costs in float64; it is "
            f"{worst.ratio:.3g} times"
        )
    if worst.ratio is not None and worst.window is not None:
        begin, end = worst.window
        return (
            f"{worst.allowed_ratio:g} times PyTorch's own error; it is {worst.ratio:.3g} times over the "
            f"steps {begin:,} to {end - 1:,}"
        )
    if worst.absolute == worst.relative:
        return f"{worst.absolute:g} (1 + |expected|)"
    return f"{worst.absolute:g} + {worst.relative:g} |expected|"


def _largest(runtime: Runtime, route: str) -> float:
    return max(runtime.max_errors.get(route, {}).values(), default=0.0)


def _table(rows: Sequence[Sequence[str]], *, wide: int | None = None) -> str:
    """Return a table; cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in rows[0])
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"wide" if i == wide else "name"}" data-label="{rows[0][i]}">{cell}</td>'
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows[1:]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: str) -> str:
    return in_html(str(value))
