"""Files of benchmark runs without what differs from run to run: seconds and memory."""

from __future__ import annotations

import re

_COST = re.compile(
    r'"cost": (?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\}|null)'  # of a prediction, and of all
    r"|(?<=\| )\d+\.\d\d(?= \| [\d.]+ \| [\d.]+ \(\w+\) \|)|[\d.]+ \((?:cpu|cuda)\)(?= \|)"  # in the Markdown
    r"|<td>\d+\.\d\d</td>(?=<td>[\d.]+</td><td>[\d.]+ \(\w+\)</td>)|<td>[\d.]+ \((?:cpu|cuda)\)</td>"  # on the page
)


def without(text: str) -> str:
    """Return the text of a file; JSON stays JSON."""
    return _COST.sub(lambda found: '"cost": null' if found[0].startswith('"') else "", text)
