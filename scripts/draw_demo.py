"""Draws the picture in README.md from what scripts/demo prints. Run it through scripts/write_picture."""

from __future__ import annotations

import re
import sys
from xml.sax.saxutils import escape

SHOWN = {"train": 3, "export": 4, "inspect": 8, "parity": 1, "run": 9}  # lines of each command's output
WIDEST = 110
TOP, LINE, LEFT, WIDTH = 52.0, 18.5, 18, 900
GOOD = ("the network has learned", "proved against", "agrees with")

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title"
     font-family="ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="13">
  <title id="title">scripts/demo: train, export, inspect, prove, generate</title>
  <style>
    .page {{ fill: #f6f8fa; stroke: #c9d1da }} text {{ fill: #24303c; white-space: pre }}
    .bar {{ fill: #e6eaef }} .name, .quiet {{ fill: #57636f }}
    .step {{ font-weight: 700 }} .prompt {{ fill: #1a7f5a; font-weight: 700 }} .good {{ fill: #14684a }}
    @media (prefers-color-scheme: dark) {{
      .page {{ fill: #14181e; stroke: #38424e }} text {{ fill: #dfe6ee }} .bar {{ fill: #222934 }}
      .name, .quiet {{ fill: #9aa7b5 }} .prompt {{ fill: #4cc38f }} .good {{ fill: #6fd6a8 }}
    }}
  </style>
  <rect class="page" x="0.5" y="0.5" width="{inner}" height="{inner_height}" rx="9"/>
  <path class="bar" d="M1 30V10a9 9 0 0 1 9-9H890a9 9 0 0 1 9 9V30z"/>
  <text class="name" x="450" y="20" text-anchor="middle">scripts/demo</text>
"""


def shown(printed: str) -> list[str]:
    """Return the lines that the picture has: of each command's output only the first few."""
    # Where this machine keeps Python says nothing to a reader.
    printed = re.sub(r"rnnx train \S+/lib\d*/", "rnnx train /usr/lib/", printed)
    lines, left, verb = [], 0, ""
    for line in printed.strip().splitlines():
        if line.startswith("$ rnnx "):
            verb = line.split()[2]
            left = SHOWN[verb]
        elif re.match(r"\d\. ", line):
            if lines:
                lines.append("")
            left, verb = 1, ""
        elif line.startswith("Done in "):
            return "\n".join(lines).rstrip().split("\n")
        else:
            left -= 1
            if left < 0 or not (line or verb == "run"):
                continue
        lines.append(line if len(line) <= WIDEST else line[: WIDEST - 1] + "…")
    raise SystemExit("scripts/write_picture: expected all of what scripts/demo prints; found no 'Done in'")


def drawn(lines: list[str]) -> str:
    """Return the lines as SVG."""
    height = TOP + LINE * len(lines) + 8
    parts = [HEAD.format(width=WIDTH, height=f"{height:g}", inner=WIDTH - 1, inner_height=f"{height - 1:g}")]
    for number, line in enumerate(lines):
        if line:
            text, kind = escape(line), ""
            if line.startswith("$ "):
                text = f'<tspan class="prompt">$</tspan>{text[1:]}'
            elif re.match(r"\d\. ", line):
                kind = ' class="step"'
            elif line.startswith(GOOD):
                kind = ' class="good"'
            y = TOP + LINE * number
            parts.append(f'  <text{kind} x="{LEFT}" y="{y:g}" xml:space="preserve">{text}</text>\n')
    return "".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    sys.stdout.write(drawn(shown(sys.stdin.read())))
