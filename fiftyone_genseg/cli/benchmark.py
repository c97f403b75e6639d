"""`genseg benchmark`."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable
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
    import_models,
    load_model,
    named,
    possible,
)

_LONGEST = 120  # characters of a run's folder


def _archives() -> str:
    from genseg_hub import archives

    lines = [f"{b.name} ({', '.join(b.splits)}): {b.archive}" for b in archives.by_name().values()]
    return "Archives, under --root:\n\n" + "\n\n".join(lines)


class ListsArchives(typer.core.TyperCommand):
    """A command whose help lists the archives.

    The list is made when the help is shown, so that other commands do not load `datasets`.
    """

    def format_help(self, ctx, formatter) -> None:
        """Write the help with the list of archives at its end."""
        self.epilog = _archives()
        super().format_help(ctx, formatter)


@takes_model_options
def benchmark(
    name: Annotated[str, typer.Argument(help="refcocog, grefcoco, reasonseg, coco ...", show_default=False)],
    split: Annotated[str, typer.Option(help="Split of the benchmark.")] = "val",
    model: Model = None,
    segmenter: Segmenter = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Also score this checkpoint, and show it beside the model; may be repeated."),
    ] = None,
    root: Annotated[
        Path,
        typer.Option(
            envvar="GENSEG_BENCHMARKS", callback=possible, help="Folder under which the official archives lie."
        ),
    ] = Path("data"),
    out: Annotated[
        Path | None,
        typer.Option(callback=possible, help="Folder of the run.", show_default="runs/benchmarks/NAME-SPLIT/MODEL"),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(callback=possible, help="Stored predictions to score: .jsonl of a run, or COCO results .json."),
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
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes with a model each, on Ray.", show_default="this process alone"),
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a worker; 0 for CPUs.", show_default="1 if the cluster has any")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster: host:port, or auto.", show_default="$RAY_ADDRESS, or a new one"),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Predict this part alone, such as 3/8; other processes predict the others.", metavar="I/N"),
    ] = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    revision: Revision = None,
    server: Server = None,
    served_model: ServedModel = None,
    *,
    model_options: dict[str, Any],
) -> None:
    """Score a checkpoint on an official benchmark, beside the published figures.

    A run is a folder: predictions.jsonl (raw answers, boxes, points, masks), metrics.json, rows.jsonl (for `evaluate
    compare`), report.md and report.html (with pictures). The same command resumes a run that stopped. If all
    predictions are there, it loads no model and only scores. It still asks a named server for its models.

    --against compares: each checkpoint has a run of its own on the same expressions. One table shows all runs, with
    seconds, tokens and memory beside quality. For example, a reasoner alone, the SAM 3 agent with it, and SAM 3 alone:
    --model Qwen/Qwen3-VL-8B-Instruct --against Qwen/Qwen3-VL-8B-Instruct+sam3-agent --against facebook/sam3

    Several processes share a run: --workers 8 starts them on Ray, and --shard 1/8 to 8/8 are commands for a scheduler,
    of which the last to finish writes the report.
    """
    import_models()
    from genseg_hub import GenSegR1, archives, checkpoints
    from genseg_hub.checkpoints import fingerprint
    from genseg_hub.errors import CheckpointError
    from genseg_hub.evaluation import benchmark_run
    from genseg_hub.evaluation import report as reports
    from genseg_hub.evaluation.metrics import get_policy
    from genseg_hub.evaluation.shards import Shard
    from genseg_hub.options import HubOptions, ReasonerOptions, ServerOptions, pick
    from genseg_hub.ray_cluster import RayError
    from rich.console import Console

    from fiftyone_genseg.segmentation.engines.ray import ray_engine

    console = Console(stderr=True)
    try:
        part = Shard.parse(shard) if shard else None
        if workers is None and (gpus_per_worker is not None or address):
            raise ValueError("gpus_per_worker and address belong to workers; say how many (--workers)")
        if workers and (server or predictions):
            raise ValueError("leave --workers out: a server answers by itself, and stored predictions need no model")
        archives.check(name, root, split)
        policy = get_policy(policy or archives.by_name()[name].policy).name
        of_server = [name for name in ServerOptions.__dataclass_fields__ if name in model_options]
        of_server += ["served_model"] if served_model else []
        if of_server and server is None:
            raise ValueError(f"{', '.join(of_server)} belong to a server; give its address (--server)")
        if against and (out or shard):
            raise ValueError("several checkpoints have folders of their own; leave --out and --shard out")
        model = named(model, server)

        def opened(
            model: str | None,
            revision: str | None,
            server: str | None,
            segmenter: str | None,
            served_model: str | None,
            model_options: dict[str, Any],
            predictions: Path | None,
        ) -> Callable[[], tuple[Path, str | None]]:
            """Check a checkpoint, and return a function that runs it.

            The function returns the folder of the run, and its report.
            """
            asked = None
            if server is not None and not predictions:
                asked = load_model(model, device, revision, server, segmenter, model_options, served_model)
            found = asked.checkpoint if asked else None
            options, hub = pick(ReasonerOptions, model_options), pick(HubOptions, model_options)
            model = model or (found.name if found else None)
            known = f"{model}+{segmenter}" if segmenter else model
            if predictions:
                who = {"model": str(predictions)}
            elif found and not found.reasoner.is_dir():  # only the server has files of it
                who = fingerprint.identify_served(found, options)
            else:
                who = fingerprint.identify(str(known), revision, found, options, hub)
            system = who["model"] + (" served" if asked else "")
            folder = out or Path("runs/benchmarks", f"{name}-{split}", _folder_name(system))

            def score() -> tuple[Path, str | None]:
                def load() -> GenSegR1 | benchmark_run.Answer:
                    name = fingerprint.loadable(str(known), who)
                    if workers is None:
                        return asked or GenSegR1.from_pretrained(name, device, **model_options)
                    pulled = checkpoints.pull(name, dialect=options.dialect, options=hub)
                    return stack.enter_context(
                        ray_engine(pulled, workers, gpus_per_worker, address, model_options)
                    ).answer

                with contextlib.ExitStack() as stack:
                    report = benchmark_run.run(
                        folder,
                        settings={"benchmark": name, "split": split, **who},
                        examples=examples,
                        source=predictions or load,
                        policy=policy,
                        archive=str(archive),
                        command=_command(sys.argv[1:]),
                        batch_size=batch_size,
                        overwrite=overwrite,
                        shard=part,
                    )
                return folder, report

            return score

        runs = [opened(model, revision, server, segmenter, served_model, model_options, predictions)]
        for other in against or ():
            # SAM 3 takes words: it has no reasoner, to which the other options belong.
            words = checkpoints.is_sam3(other, pick(HubOptions, model_options))
            kept = {n: v for n, v in model_options.items() if not words or n in HubOptions.__dataclass_fields__}
            runs.append(opened(other, None, None if words else server, None, None, kept, None))
        examples, archive = archives.load_archive(name, root, split, strict)
        console.print(str(archive), highlight=False, markup=False)
        if first_expression:
            examples = archives.first_expressions(examples)
        examples = examples.select(range(min(limit or len(examples), len(examples))))
        (folder, report), *others = [score() for score in runs]
        beside = [other for other, _ in others]
    except (ValueError, OSError, CheckpointError, RayError) as error:
        raise fail(error) from error
    if report is None:
        typer.echo(f"shard {part} of {folder} is done; the last shard to finish writes the report", err=True)
        return
    own, *rivals = (json.loads((each / benchmark_run.METRICS).read_bytes()) for each in (folder, *beside))
    typer.echo(reports.markdown(own, rivals) if rivals else report)
    for each in (folder, *beside):
        typer.echo(f"wrote {each / benchmark_run.PAGE} and its files", err=True)
    for figures in (own, *rivals):
        check_answered(figures)


def _command(arguments: list[str]) -> str:
    """Return the command as it was typed, without the Hub's token, for the reports."""
    shown = [re.sub(r"^(--token)=.*", r"\1=***", argument, flags=re.S) for argument in arguments]
    for i, argument in enumerate(arguments[:-1]):
        if argument == "--token":
            shown[i + 1] = "***"
    return shlex.join(["genseg", *shown])


def _folder_name(system: str) -> str:
    """Return a system's name without the characters that a folder cannot have."""
    name = re.sub(r"[^\w.@-]+", "_", system)
    return name[-_LONGEST:].strip("._") or "run"
