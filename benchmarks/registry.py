"""Measure the plugin's time in a build of FiftyOne's operator registry.

python benchmarks/registry.py [--out FILE]

FiftyOne 1.22 builds an `OperatorRegistry` for each operator call: it reads every fiftyone.yml and executes every entry
file again, unless the user turns `plugins_cache_enabled` on. Here one process builds the registry with an empty plugins
folder and with a folder that holds this plugin. `genseg plugin install` links it in the same way.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import fiftyone as fo
from fiftyone import plugins
from fiftyone.operators.registry import OperatorRegistry
from side_by_side import Row, parser, report

from fiftyone_genseg import plugin

BUILDS = 200  # with the plugin, and as many without
BAR = 50  # milliseconds


def build(folder: Path, operators: int) -> float:
    """Return the seconds of one build, which must find so many operators and panels."""
    fo.config.plugins_dir = str(folder)
    started = time.perf_counter()
    registry = OperatorRegistry()
    seconds = time.perf_counter() - started
    found = [operator.name for operator in registry.list_operators(builtin=False)]
    if registry.list_errors() or len(found) != operators:
        raise AssertionError(f"{len(found)} operators instead of {operators}: {found} {registry.list_errors()}")
    return seconds


def main() -> None:
    """Time builds with and without the plugin in turn and report the row."""
    options = parser(__doc__).parse_args()
    builds = 20 if options.quick else BUILDS
    fo.config.plugins_cache_enabled = False
    with tempfile.TemporaryDirectory() as name:
        without, containing = Path(name, "without"), Path(name, "with")
        for folder in (without, containing):
            folder.mkdir()
        os.symlink(plugin.source(), containing / plugin.NAME, target_is_directory=True)
        operators = len(plugins.get_plugin(plugin_dir=str(containing / plugin.NAME)).operators)  # with panels
        build(without, 0)
        first = build(containing, operators)
        pairs = [(build(containing, operators), build(without, 0)) for _ in range(builds)]
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    added = 1000 * (median(ours) - median(theirs))
    slowest, first = 1000 * max(ours), 1000 * first
    report(
        [
            Row(
                number="8",
                work=f"registry of operators with the plugin's {operators}",
                against="without the plugin",
                bar=f"adds <= {BAR} ms",
                ours=ours,
                theirs=theirs,
                figure=f"+{added:.1f} ms",
                holds=added <= BAR,
                note=f"(median of {builds} builds; slowest {slowest:.0f} ms; first, with imports, {first:.0f} ms)",
            )
        ],
        options.out,
    )


if __name__ == "__main__":
    main()
