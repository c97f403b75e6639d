"""`genseg doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

_COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "broken": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings and the checkpoints as JSON.")] = False,
) -> None:
    """Say what this machine has, what it lacks, and which checkpoint fits it.

    The exit status is 1 if something is broken that every run needs.
    """
    from fiftyone_genseg import doctor as examination
    from fiftyone_genseg import machine

    devices, problems = examination.devices()
    findings = [*problems, *examination.findings(devices)]
    candidates = machine.candidates(devices[0])
    if as_json:
        typer.echo(json.dumps({"findings": [*map(asdict, findings)], "checkpoints": [*map(asdict, candidates)]}))
    else:
        _print(findings, candidates)
    if any(finding.state == examination.BROKEN for finding in findings):
        raise typer.Exit(1)


def _print(findings, candidates) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 140)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("state", no_wrap=True)
    table.add_column("about", no_wrap=True)
    for heading in ("found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        state = f"[{_COLORS[finding.state]}]{finding.state}[/]"
        table.add_row(state, *map(escape, (finding.about, finding.found, finding.remedy)))
    console.print(table)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("checkpoint", "download", "memory", "fits", "here", "what to type"):
        table.add_column(heading, no_wrap=heading != "what to type", overflow="fold")
    for one in candidates:
        name = f"[bold]{one.name}[/] (recommended)" if one.recommended else one.name
        sizes = f"{one.download:.1f} GB", f"{one.memory:.1f} GB"
        fits = f"[green]{one.device}[/]" if one.fits else "no"
        table.add_row(name, *sizes, fits, "yes" if one.on_disk else "no", one.command)
    console.print(table)
    console.print(_advice(candidates), highlight=False, markup=False)


def _advice(candidates) -> str:
    estimate = "Sizes are estimates, memory is for one image at a time."
    best = next((one for one in candidates if one.recommended), None)
    if best is None:
        return f"{estimate} No known checkpoint for photographs fits this machine: ask a server, see docs/serving.md."
    slow = " On a CPU it is slow: minutes for an answer are possible." if best.device == "cpu" else ""
    return f"{estimate} For photographs: {best.name}.{slow}"
