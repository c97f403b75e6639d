"""A checkpoint, or predictions made elsewhere, scored on referring examples: a folder that is a run.

A run killed at any moment goes on where it stopped; scoring reads the predictions alone and needs no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from genseg_hub import predictions, published
from genseg_hub.evaluation import Scores
from genseg_hub.metrics import DEFAULT_POLICY, get_policy
from genseg_hub.pipeline import GenSegR1
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction

SETTINGS, PREDICTIONS, ROWS, METRICS, REPORT = (
    "run.json",
    "predictions.jsonl",
    "rows.jsonl",
    "metrics.json",
    "report.md",
)
FILES = (SETTINGS, PREDICTIONS, ROWS, METRICS, REPORT)
_VERSIONS_OF = ("fiftyone-genseg", "transformers", "torch", "sam2")
COLUMNS = {
    "ciou": "cIoU",
    "miou": "mIoU",
    "target_miou": "target mIoU",
    "box_miou": "box mIoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "pr@0.5": "Pr@0.5",
    "pr@0.9": "Pr@0.9",
}


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""


def run(
    folder: Path,
    settings: Mapping[str, str],
    examples: datasets.Dataset,
    source: GenSegR1 | Path,
    policy: str,
    archive: str,
    command: str,
    batch_size: int = 8,
) -> str:
    """Predict what a run does not have yet, score it, and write its figures and its report.

    Args:
        folder: new, empty, or that of the same run.
        settings: `benchmark`, `split` and `model`: what must be the same when a run goes on.
        examples: of `referring_dataset`, with ids that tell them apart.
        source: the model, or a file of predictions (see `predictions.read`).
        policy: of `metrics`.
        archive, command: said in the report.

    Returns:
        The report, in Markdown.

    Raises:
        RunError, predictions.PredictionError: see their messages.
    """
    get_policy(policy)
    _start(folder, settings)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if isinstance(source, Path):
                _import(source, folder / PREDICTIONS)
            else:
                _predict(source, examples, folder / PREDICTIONS, batch_size)
    except Timeout:
        raise RunError(f"another process works in {folder}; wait for it, or name another folder") from None
    with (folder / ROWS).open("w", encoding="utf-8") as rows, tqdm(total=len(examples), desc="scoring") as bar:

        def on_row(row: dict[str, Any]) -> None:
            rows.write(json.dumps(row) + "\n")
            bar.update()

        figures = score(examples, folder / PREDICTIONS, policy, on_row)
    facts = {"command": command, "archive": archive, "versions": {name: version(name) for name in _VERSIONS_OF}}
    figures = dict(settings) | facts | figures
    (folder / METRICS).write_text(json.dumps(figures, indent=2) + "\n")
    text = report(figures)
    (folder / REPORT).write_text(text)
    return text


def _start(folder: Path, settings: Mapping[str, str]) -> None:
    file = folder / SETTINGS
    if file.is_file():
        before = json.loads(file.read_text())
        for name, value in settings.items():
            if before.get(name) != value:
                raise RunError(
                    f"{folder} holds a run with the {name} {before.get(name)!r}, not {value!r}; "
                    "name another folder, or overwrite it"
                )
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} holds something else than a run; name another folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dict(settings), indent=2) + "\n")


def _import(source: Path, file: Path) -> None:
    unfinished = file.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8") as stream:
        for line in predictions.read(source):
            stream.write(json.dumps(line) + "\n")
    unfinished.replace(file)


def _predict(model: GenSegR1, examples: datasets.Dataset, file: Path, batch_size: int) -> None:
    """Append the predictions that are not there; expressions that failed before are asked again."""
    _drop_torn_line(file)
    stored = _lines(file) if file.is_file() else ()
    done = {_asked(line) for _, line in stored if "failure" not in line}
    columns = zip(examples["example_id"], examples["image_id"], examples["expression"], strict=True)
    todo = [i for i, asked in enumerate(columns) if asked not in done]
    missing = examples.select(todo)
    results = model.segment_many(from_dataset(missing), batch_size)
    with (
        file.open("a", encoding="utf-8") as stream,
        tqdm(total=len(examples), initial=len(examples) - len(todo), desc="segmenting") as bar,
    ):
        for example, result in zip(from_dataset(missing), results, strict=True):
            stream.write(json.dumps(predictions.to_line(example, result)) + "\n")
            stream.flush()
            bar.update()


def score(
    examples: datasets.Dataset,
    file: Path,
    policy: str = DEFAULT_POLICY,
    on_row: Callable[[dict[str, Any]], Any] = lambda row: None,
) -> dict[str, Any]:
    """Score the predictions of a file, without keeping their masks. The last one of an expression counts.

    Args:
        file: JSON lines as `predictions.to_line` makes them, of these examples or of more.
        policy: of `metrics`.
        on_row: called with the row of each expression (`Scores.add`), in the order of the examples.

    Returns:
        The figures of `Scores.compute`, and `missing`: how many expressions have no prediction. These count as failed.

    Raises:
        RunError: when no prediction is about these examples, or a mask has another size than its target.
        predictions.PredictionError: a line that cannot be read.
    """
    places = {line["example_id"]: (place, _asked(line)) for place, line in _lines(file)}
    scores, missing = Scores(policy), 0
    with file.open("rb") as stream:
        for example in from_dataset(examples):
            asked = example.example_id, example.image_id, example.expression
            place, said = places.get(example.example_id, (0, None))
            if said is None or any(mine not in (None, its) for mine, its in zip(said, asked, strict=True)):
                missing += 1
                result: Prediction | Failure = Failure("no prediction", LookupError(example.example_id))
            else:
                stream.seek(place)
                result = predictions.from_line(json.loads(stream.readline()))
            try:
                on_row(scores.add(example, result))
            except ValueError as error:
                raise RunError(f"the prediction of {example.example_id!r} in {file} does not fit: {error}") from error
    if missing == len(examples):
        raise RunError(f"no prediction in {file} is about these expressions; their ids are like {example.example_id!r}")
    return scores.compute() | {"missing": missing}


def _asked(line: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """What a line of a run is about; of predictions made elsewhere the id alone counts."""
    own = "answer" in line or "failure" in line
    return line["example_id"], line.get("image_id") if own else None, line.get("expression") if own else None


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(where it begins, the line) of each line with an `example_id`."""
    with file.open("rb") as stream:
        place = 0
        for number, raw in enumerate(stream, 1):
            try:
                line = json.loads(raw)
                line["example_id"] = str(line["example_id"])
            except (ValueError, KeyError, TypeError) as error:
                raise predictions.PredictionError(
                    f"line {number} of {file} is not a prediction with an example_id ({error!r})"
                ) from error
            yield place, line
            place += len(raw)


def _drop_torn_line(file: Path) -> None:
    """Cut off what a killed run left of a line."""
    if file.is_file():
        with file.open("rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            whole = size
            while whole:
                begin = max(0, whole - 65536)
                stream.seek(begin)
                end = stream.read(whole - begin).rfind(b"\n")
                if end >= 0:
                    whole = begin + end + 1
                    break
                whole = begin
            stream.truncate(whole)


def report(figures: Mapping[str, Any]) -> str:
    """A Markdown table of a run's figures, the published ones of the same split beside them.

    Args:
        figures: as `run` writes them to metrics.json.
    """

    def row(name: str, values: Mapping[str, Any], source: str) -> str:
        cells = ["" if values.get(column) is None else f"{100 * values[column]:.2f}" for column in COLUMNS]
        return f"| {name} | {' | '.join(cells)} | {source} |"

    rows = [row(f"**{figures['model']}**", figures, "this run")]
    rows += [
        row(other.system, other.figures, other.source) for other in published.of(figures["benchmark"], figures["split"])
    ]
    notes = [
        f"{figures['n']:,} expressions, {figures['n_target']:,} with a target; policy `{figures['policy']}`. "
        f"Parse failures {figures['parse_failures']:.2%}, not segmented {figures['failures']:,}, "
        f"of which without a prediction {figures['missing']:,}.",
        f"Archive: {figures['archive']}",
        f"Command: `{figures['command']}`",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in figures["versions"].items()),
    ]
    return "\n".join(
        [
            f"# {figures['benchmark']} {figures['split']}",
            "",
            f"| system | {' | '.join(COLUMNS.values())} | source |",
            f"|---|{'---:|' * len(COLUMNS)}---|",
            *rows,
            "",
            "\n\n".join(notes),
            "",
        ]
    )
