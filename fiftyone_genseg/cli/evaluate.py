"""`genseg evaluate refscenes` and `genseg evaluate compare`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fiftyone_genseg.cli._options import takes_model_options
from fiftyone_genseg.cli._shared import (
    BatchSize,
    Device,
    Model,
    Revision,
    Segmenter,
    ServedModel,
    Server,
    check_answered,
    fail,
    figures_table,
    import_models,
    load_model,
    named,
    possible,
)


@takes_model_options
def refscenes(
    split: Annotated[str, typer.Option(help="val or test.")] = "val",
    model: Model = None,
    segmenter: Segmenter = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first expressions.")] = None,
    batch_size: BatchSize = 32,
    device: Device = "auto",
    revision: Revision = None,
    server: Server = None,
    served_model: ServedModel = None,
    out: Annotated[Path | None, typer.Option(callback=possible, help="JSON file for the figures.")] = None,
    rows: Annotated[
        Path | None, typer.Option(callback=possible, help="JSONL file for each expression, for `compare`.")
    ] = None,
    *,
    model_options: dict[str, Any],
) -> None:
    """Score a checkpoint on RefScenes, rendered scenes with exact masks.

    The segmenter is also scored alone, on true boxes and points.
    """
    import_models()
    from genseg_hub import whole
    from genseg_hub.errors import CheckpointError
    from genseg_hub.evaluation import scores
    from genseg_training.nano import answers, refscenes
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    model = named(model, server)
    loaded = load_model(model, device, revision, server, segmenter, model_options, served_model)
    try:
        examples = list(refscenes.refscenes(split, limit))
    except ValueError as error:
        raise fail(error) from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{loaded.checkpoint.name} on RefScenes {split}", total=len(examples))
        measured: list[dict] = []

        def on_result(example, result, row: dict) -> None:
            measured.append(row)
            progress.advance(task)

        try:
            figures = scores.evaluate(loaded, examples, batch_size, on_result).compute()
        except CheckpointError as error:  # the memory does not hold one answer
            raise fail(error) from error
        figures["segmenter_miou"] = None
        if not loaded.takes_words:  # it takes boxes and points
            task = progress.add_task("its segmenter alone", total=len(examples))
            told = functools.partial(progress.advance, task)
            figures["segmenter_miou"] = answers.segmenter_miou(loaded.segmenter, examples, told)
    pinned = loaded.checkpoint.pinned if loaded.checkpoint else model
    command = f"genseg evaluate refscenes --split {split}" + (f" --limit {limit}" if limit else "")
    report = {"benchmark": f"RefScenes {refscenes.VERSION} {split}", "command": command, "model": pinned} | figures
    if server:
        report["served"] = loaded.checkpoint.served
    console.print(figures_table(report))
    alone = report["segmenter_miou"]
    console.print(
        f"parse failures {report['parse_failures']:.2%}, failed {report['failures']}"
        + ("" if alone is None else f", segmenter on true boxes and points: mIoU {alone:.3f}")
    )
    if rows:
        whole.write_text(rows, "".join(json.dumps(row) + "\n" for row in measured))
        console.print(f"wrote {rows}")
    if out:
        whole.write_text(out, json.dumps(report, indent=2) + "\n")
        console.print(f"wrote {out}")
    else:
        typer.echo(json.dumps(report))
    check_answered(report)


def compare(
    base: Annotated[
        Path, typer.Argument(callback=possible, help="Rows of one checkpoint (--rows).", show_default=False)
    ],
    others: Annotated[
        list[Path],
        typer.Argument(callback=possible, help="Rows of other checkpoints on these expressions.", show_default=False),
    ],
) -> None:
    """Show differences in points with paired 95 % intervals.

    The intervals come from a bootstrap over images. The table has rows for all expressions, for expressions with and
    without a target, and for combinations of attributes that the training showed or held out.
    """
    import pandas as pd
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fiftyone_genseg.evaluation.slicing import comparison

    def read(file: Path) -> pd.DataFrame:
        names = {"example_id": "sample_id", "image_id": "image"}
        with file.open("rb") as lines:  # pandas 2 takes the name of a file that does not exist for JSON
            rows = pd.read_json(lines, lines=True, dtype={"example_id": str, "image_id": str})
        return rows.rename(columns=names)

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for heading in ("rows", "expressions", "n", "cIoU", "mIoU"):
        table.add_column(heading, no_wrap=True)
    try:
        before = read(base)
        for file in others:
            after = read(file)
            parts = {"all": after, "with a target": after[after["target_area"] > 0]}
            parts["without a target"] = after[after["target_area"] == 0]
            if "held_out" in after:
                parts |= {"held out": after[after["held_out"]], "seen": after[~after["held_out"].astype(bool)]}
            for label, part in parts.items():
                if not len(part):
                    continue
                found = comparison.compare(before, part)
                cells = (_points(found.figures[name]) for name in comparison.FIGURES)
                table.add_row(file.stem, label, str(found.n), *cells)
            table.add_section()
    except (ValueError, KeyError, OSError) as error:
        raise fail(error) from error
    Console(width=120).print(table)


def _points(interval) -> str:
    if interval.value is None:
        return "-"
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
