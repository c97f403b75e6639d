"""`genseg`: the command line. Each command imports what it needs when it runs."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="genseg", help="Describe a thing in words, get its mask.", no_args_is_help=True, pretty_exceptions_enable=False
)
plugin_app = typer.Typer(help="The FiftyOne plugin.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Score a checkpoint on a benchmark.", no_args_is_help=True)
app.add_typer(plugin_app, name="plugin")
app.add_typer(evaluate_app, name="evaluate")

Model = Annotated[
    str, typer.Option("--model", "-m", help='"nano", a Hub id (owner/name or owner/name@revision), or a folder.')
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Expressions answered at once.")]


def _fail(error: Exception) -> typer.Exit:
    typer.secho(f"error: {error}", fg="red", err=True)
    return typer.Exit(1)


def _load(model: str, device: str, revision: str | None):
    from genseg_hub import GenSegR1
    from genseg_hub.checkpoints import CheckpointError

    try:
        return GenSegR1.from_pretrained(model, device=device, revision=revision)
    except CheckpointError as error:
        raise _fail(error) from error


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    expression: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    model: Model = "nano",
    device: Device = "auto",
    revision: Revision = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print boxes, points, scores and masks (COCO RLE).")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the image with its masks here.")] = None,
) -> None:
    """Segment one image file."""
    from genseg_hub.images import load_image
    from PIL import Image

    try:
        pixels = load_image(image)
        if out and out.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"{out} has no image extension that can be written; for example: overlay.png")
        loaded = _load(model, device, revision)
        prediction = loaded.segment(pixels, expression)
    except (ValueError, RuntimeError) as error:
        raise _fail(error) from error
    if out:
        from genseg_hub.overlay import draw_prediction

        out.parent.mkdir(parents=True, exist_ok=True)
        draw_prediction(pixels, prediction).save(out)
    if as_json:
        typer.echo(json.dumps({"image": str(image), "expression": expression, "model": model} | prediction.to_dict()))
        return
    response = prediction.response
    if response.reasoning:
        typer.echo(f"think: {response.reasoning}")
    if response.error:
        typer.echo(f"the answer was not clean: {response.error.value}")
    if response.no_target:
        typer.echo("nothing in the image is meant")
    for instance, mask, score in zip(response.instances, prediction.masks, prediction.scores, strict=True):
        box = ", ".join(f"{value:.0f}" for value in instance.box)
        typer.echo(f"box ({box}), {int(mask.sum())} pixels, predicted IoU {score:.2f}")
    if out:
        typer.echo(f"wrote {out}")


@evaluate_app.command()
def refscenes(
    split: Annotated[str, typer.Option(help="val or test.")] = "val",
    model: Model = "nano",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first expressions.")] = None,
    batch_size: BatchSize = 32,
    device: Device = "auto",
    revision: Revision = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    rows: Annotated[Path | None, typer.Option(help="JSONL file for each expression, for `compare`.")] = None,
) -> None:
    """RefScenes: rendered scenes with exact masks. Also scores the segmenter alone, on true prompts."""
    from genseg_hub import evaluation
    from genseg_training import answers, scenes
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    loaded = _load(model, device, revision)
    try:
        examples = list(scenes.refscenes(split, limit))
    except ValueError as error:
        raise _fail(error) from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{model} on RefScenes {split}", total=len(examples))
        measured: list[dict] = []

        def on_result(example, result, row: dict) -> None:
            measured.append(row)
            progress.advance(task)

        figures = evaluation.evaluate(loaded, examples, batch_size, on_result).compute()
        task = progress.add_task("its segmenter alone", total=len(examples))
        figures["segmenter_miou"] = answers.segmenter_miou(loaded.segmenter, examples, lambda: progress.advance(task))
    pinned = loaded.checkpoint.pinned if loaded.checkpoint else model
    command = f"genseg evaluate refscenes --split {split}" + (f" --limit {limit}" if limit else "")
    report = {"benchmark": f"RefScenes {scenes.VERSION} {split}", "command": command, "model": pinned} | figures
    console.print(_table(report))
    console.print(
        f"parse failures {report['parse_failures']:.2%}, failed {report['failures']}, "
        f"SAM 2 alone on true boxes and points: mIoU {report['segmenter_miou']:.3f}"
    )
    if rows:
        rows.parent.mkdir(parents=True, exist_ok=True)
        rows.write_text("".join(json.dumps(row) + "\n" for row in measured))
        console.print(f"wrote {rows}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
        console.print(f"wrote {out}")
    else:
        typer.echo(json.dumps(report))


@evaluate_app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="Rows of one checkpoint (--rows).", show_default=False)],
    others: Annotated[list[Path], typer.Argument(help="Rows of others, on the same expressions.", show_default=False)],
) -> None:
    """Differences in points with paired 95 % intervals (bootstrap over images): all, with a target, without one, and by
    whether training showed the combination of attributes."""
    import pandas as pd
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fiftyone_genseg.slicing import comparison

    def read(file: Path) -> pd.DataFrame:
        names = {"example_id": "sample_id", "image_id": "image"}
        return pd.read_json(file, lines=True, dtype={"example_id": str, "image_id": str}).rename(columns=names)

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
        raise _fail(error) from error
    Console(width=120).print(table)


def _points(interval) -> str:
    if interval.value is None:
        return "-"
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


_COLUMNS = {
    "n": "n",
    "ciou": "cIoU",
    "miou": "mIoU",
    "target_miou": "target",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "pr@0.5": "Pr@0.5",
    "pr@0.9": "Pr@0.9",
}


def _table(report: dict):
    """Overall figures, then those of each attribute's values."""
    from rich import box
    from rich.table import Table

    title = f"{report['model']} on {report['benchmark']} (policy {report['policy']})"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False, padding=0)
    table.add_column("expressions", no_wrap=True)
    for heading in _COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading) + 1)

    def row(label: str, figures: dict) -> None:
        cells = [figures[name] for name in _COLUMNS]
        table.add_row(label, *("-" if c is None else str(c) if isinstance(c, int) else f"{c:.3f}" for c in cells))

    row("all", report)
    for attribute, values in report["by"].items():
        table.add_section()
        for value, figures in values.items():
            row(f"{attribute}: {value}", figures)
    return table


def _archives() -> str:
    from genseg_hub import benchmarks

    lines = [f"{b.name} ({', '.join(b.splits)}): {b.archive}" for b in benchmarks.by_name().values()]
    return "Archives, under --root:\n\n" + "\n\n".join(lines)


class _ListsArchives(typer.core.TyperCommand):
    """Says where the archives are to be had, without loading `datasets` for every other command."""

    def format_help(self, ctx, formatter) -> None:
        self.epilog = _archives()
        super().format_help(ctx, formatter)


@app.command(cls=_ListsArchives)
def benchmark(
    name: Annotated[str, typer.Argument(help="refcocog, grefcoco, reasonseg, coco ...", show_default=False)],
    split: Annotated[str, typer.Option(help="A split of it.")] = "val",
    model: Model = "nano",
    root: Annotated[
        Path, typer.Option(envvar="GENSEG_BENCHMARKS", help="Folder under which the official archives lie.")
    ] = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/benchmarks/NAME-SPLIT/MODEL")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Score these, .jsonl of a run or COCO results .json, instead of a model."),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="How empty masks count.", show_default="the benchmark's")] = None,
    first_expression: Annotated[
        bool, typer.Option("--first-expression", help="Only the first expression of each reference.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first expressions.")] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse an archive with unusable examples or unpublished counts."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the run anew.")] = False,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    revision: Revision = None,
) -> None:
    """Score a checkpoint on an official benchmark, beside the published figures.

    A run is a folder: predictions.jsonl (raw answers, boxes, points, masks), metrics.json, rows.jsonl (for `evaluate
    compare`) and report.md. The same command goes on where a run stopped; with all predictions there it only scores.
    """
    from genseg_hub import benchmarking, benchmarks
    from rich.console import Console

    console = Console(stderr=True)
    try:
        examples, archive = benchmarks.load(name, root, split, strict)
        console.print(str(archive), highlight=False)
        if first_expression:
            examples = benchmarks.first_expressions(examples)
        examples = examples.select(range(min(limit or len(examples), len(examples))))
        source: Any = predictions or _load(model, device, revision)
        system = str(predictions) if predictions else source.checkpoint.pinned
        folder = out or Path("runs/benchmarks", f"{name}-{split}", re.sub(r"[^\w.@-]+", "_", system))
        if overwrite and (folder / benchmarking.SETTINGS).is_file():
            if predictions and predictions.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{predictions} is in {folder}, which would be overwritten; name another --out")
            for own in benchmarking.FILES:
                (folder / own).unlink(missing_ok=True)
        report = benchmarking.run(
            folder,
            settings={"benchmark": name, "split": split, "model": system},
            examples=examples,
            source=source,
            policy=policy or benchmarks.by_name()[name].policy,
            archive=str(archive),
            command=shlex.join(["genseg", *sys.argv[1:]]),
            batch_size=batch_size,
        )
    except (ValueError, OSError) as error:
        raise _fail(error) from error
    typer.echo(report)
    console.print(f"wrote {folder}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for images, report.json and overview.png.")] = Path("demo_out"),
    headless: Annotated[bool, typer.Option("--headless", help="Exit instead of opening the App.")] = False,
    scenes: Annotated[int, typer.Option(min=1, max=500, help="Scenes, with 4 expressions each.")] = 30,
    model: Model = "nano",
    device: Device = "auto",
    port: Annotated[int, typer.Option(help="Port of the App.")] = 5151,
) -> None:
    """Segment RefScenes from words in a FiftyOne dataset, score it, and open the App on it."""
    from genseg_hub.checkpoints import CheckpointError

    from fiftyone_genseg import demo as demonstration

    try:
        report = demonstration.run(out, scenes, model, device)
    except CheckpointError as error:
        raise _fail(error) from error
    from rich.console import Console

    console = Console()
    console.print(_table(report))
    console.print(f"wrote {out / 'report.json'} and {out / 'overview.png'}")
    if not headless:
        demonstration.open_app(port)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder as `genseg-train export` writes it.", show_default=False)],
    repo_id: Annotated[str, typer.Argument(help="owner/name on the Hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make it a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made when there is none.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be sent; asks no network.")] = False,
) -> None:
    """Publish a checkpoint on the Hugging Face Hub, with a model card, in one commit."""
    from genseg_hub import publish
    from genseg_hub.checkpoints import readable_size

    try:
        published = publish.push(folder, repo_id, private=private, revision=revision, dry_run=dry_run)
    except publish.PublishError as error:
        raise _fail(error) from error
    for path, size in published.files:
        typer.echo(f"{readable_size(size):>9}  {path}")
    total = f"{len(published.files)} files, {readable_size(sum(size for _, size in published.files))}"
    if dry_run:
        typer.echo(f"would publish {total} at {published.url}")
    elif published.changed:
        typer.echo(f"published {total} at {published.url}, commit {published.commit}")
    else:
        typer.echo(f"{published.url} has this very content already, commit {published.commit}: no new commit")


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Hub id (owner/name), or owner/name@revision.", show_default=False)],
    revision: Revision = None,
) -> None:
    """Download what is missing of a checkpoint and compare its checksums with the Hub's."""
    from genseg_hub import checkpoints

    try:
        planned = checkpoints.plan(name, revision)
        typer.echo(str(planned))
        checkpoint = checkpoints.pull(planned.name, planned.revision)
        compared = checkpoints.verify(checkpoint)
    except checkpoints.CheckpointError as error:
        raise _fail(error) from error
    typer.echo(f"folder {checkpoint.reasoner}")
    if checkpoint.commit:
        typer.echo(f"commit {checkpoint.commit}, checksums of {compared} files agree with the Hub's")


@app.command()
def models() -> None:
    """The checkpoints known by name: what they are, need and are said to reach. Any Hub id or folder works, too."""
    from genseg_hub import checkpoints, published
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("name", "dialect", "segmenter", "parameters", "memory", "licence", "here"):
        table.add_column(heading, no_wrap=True)
    for known in checkpoints.KNOWN:
        here = "yes" if checkpoints.is_on_disk(known.name) else "no"
        memory, licence = f"{known.memory:.1f} GB", known.licence or "see its page"
        table.add_row(known.name, known.dialect, known.segmenter, known.parameters, memory, licence, here)
    console = Console(width=140)
    console.print(table)
    console.print("Memory is an estimate for one image at a time. Published, not measured here:")
    for known in checkpoints.KNOWN:
        for row in published.about(known.name):
            console.print(f"  {known.name}: {row}", highlight=False)


@plugin_app.command()
def install() -> None:
    """Link the plugin into FiftyOne's plugins directory."""
    from fiftyone_genseg import plugin

    try:
        typer.echo(f"linked {plugin.install()}")
    except OSError as error:
        raise _fail(error) from error


@plugin_app.command()
def uninstall() -> None:
    """Remove the link again."""
    from fiftyone_genseg import plugin

    typer.echo("removed" if plugin.uninstall() else "the plugin was not linked")


if __name__ == "__main__":
    app()
