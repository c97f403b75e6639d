"""Benchmark runs: score a checkpoint, or predictions of another system, on referring examples.

A run is a folder. A killed run resumes where it stopped. Scoring reads the stored predictions and needs no model.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from genseg_hub.errors import ImageError, RunError
from genseg_hub.evaluation import gallery, prediction_files, predictions, report
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, get_policy
from genseg_hub.evaluation.scores import Scores
from genseg_hub.images import image_size, load_image
from genseg_hub.pipeline import GenSegR1
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.whole import disk_full_in_words

SETTINGS, PREDICTIONS, ROWS, METRICS, REPORT, PAGE = FILES = (
    "run.json",
    "predictions.jsonl",
    "rows.jsonl",
    "metrics.json",
    "report.md",
    "report.html",
)
LOCK = ".lock"
_UNFINISHED = ".part"
_MARKS = {"benchmark", "split", "model"}  # settings that every run has
_VERSIONS_OF = ("fiftyone-genseg", "transformers", "torch", "sam2")
_log = logging.getLogger(__name__)


def run(
    folder: Path,
    settings: Mapping[str, str],
    examples: datasets.Dataset,
    source: Callable[[], GenSegR1] | Path,
    policy: str,
    archive: str,
    command: str,
    batch_size: int = 8,
    overwrite: bool = False,
) -> str:
    """Predict the missing expressions of a run, score all, and write figures and reports.

    Args:
        folder: new, empty, or the folder of the same run.
        settings: `benchmark`, `split` and `model`, and all other values that must be the same when a run resumes (see
            `checkpoints.fingerprint`).
        examples: of `referring_dataset`, with unique ids.
        source: a function that loads the model, called only if a prediction is missing; or a file of predictions (see
            `prediction_files.read`).
        policy: a name in `metrics.POLICIES`.
        archive: origin of the examples, for the reports.
        command: that started the run, for the reports.
        batch_size: expressions that the reasoner answers at once.
        overwrite: replace any run in the folder. Its files are removed after the model is loaded, or after the file of
            predictions is read.

    Returns:
        The report, in Markdown.

    Raises:
        RunError: the folder, the settings or the source cannot be used.
        PredictionError: the file of predictions cannot be used.
        DiskFullError: the disk is full.
        ValueError: there is no such policy.
    """
    get_policy(policy)
    if isinstance(source, Path):
        if not source.is_file():
            raise RunError(f"there is no file {source}")
        if overwrite and source.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{source} is in {folder}, which would be overwritten; name another --out")
    in_words = disk_full_in_words(f"the run in {folder} stopped, and its answers so far are kept")
    with in_words, _locked(folder, settings, overwrite):
        file = folder / PREDICTIONS
        if isinstance(source, Path):
            imported = _import(source, file)
            _begin(folder, settings, overwrite)
            imported.replace(file)
        else:
            load = functools.cache(source)
            if overwrite:
                load()
            _begin(folder, settings, overwrite)
        if not isinstance(source, Path):
            _predict(load, examples, file, batch_size)
        return _report(folder, examples, policy, archive, command, settings)


@contextlib.contextmanager
def _locked(folder: Path, settings: Mapping[str, str], overwrite: bool) -> Iterator[None]:
    """Check a folder, and lock it for this process."""
    _check(folder, settings, overwrite)  # before anything is written into a folder that is no run
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"another process works in {folder}; wait for it, or name another --out") from None
    try:
        _check(folder, settings, overwrite)  # another process may have begun a run meanwhile
        yield
    finally:
        lock.release()


def _check(folder: Path, settings: Mapping[str, str], overwrite: bool) -> None:
    """Raise RunError unless a folder is new, holds the same run, or holds a run that may be overwritten."""
    file = folder / SETTINGS
    something_else = RunError(f"{folder} holds something else than a run; name another --out")
    if not file.is_file():
        ours = {LOCK, *(name + _UNFINISHED for name in FILES)}
        if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= ours):
            raise something_else
        return
    try:
        before = json.loads(file.read_bytes())
        if not isinstance(before, dict):
            raise TypeError("it is no object")
    except (ValueError, TypeError, RecursionError) as error:
        if overwrite:
            return
        raise RunError(f"{file} is damaged; begin the run anew with --overwrite, or name another --out") from error
    if not before.keys() >= _MARKS:
        raise something_else
    for name in () if overwrite else dict.fromkeys((*settings, *before)):
        if before.get(name) != settings.get(name):
            why = " (its files have changed)" if name == "checksum" else ""
            raise RunError(
                f"{folder} holds a run with the {name} {before.get(name)!r}, not {settings.get(name)!r}{why}; "
                "name another --out, or begin the run anew with --overwrite"
            )


def _begin(folder: Path, settings: Mapping[str, str], overwrite: bool) -> None:
    if overwrite:
        for name in FILES:
            if name != SETTINGS:  # it is replaced below, because without it the folder is no run
                (folder / name).unlink(missing_ok=True)
    _write(folder / SETTINGS, json.dumps(dict(settings), indent=2) + "\n")


def _write(file: Path, text: str) -> None:
    """Write the whole text or nothing; characters that UTF-8 cannot hold become question marks."""
    unfinished = file.with_name(file.name + _UNFINISHED)
    unfinished.write_text(text, encoding="utf-8", errors="replace")
    unfinished.replace(file)


def _import(source: Path, file: Path) -> Path:
    """Write checked predictions beside `file`, and return the path."""
    unfinished = file.with_name(file.name + _UNFINISHED)
    try:
        with unfinished.open("w", encoding="utf-8") as stream:
            for line in prediction_files.read(source):
                stream.write(predictions.to_json(line) + "\n")
    except BaseException:
        unfinished.unlink()
        raise
    return unfinished


def _predict(load: Callable[[], GenSegR1], examples: datasets.Dataset, file: Path, batch_size: int) -> None:
    """Append the missing predictions; ask again after a failure and where a line cannot be read."""
    _drop_torn_line(file)
    todo = list(range(len(examples)))
    if file.is_file():
        stored = prediction_files.Index(file)
        if lost := stored.unreadable:
            text = "%s: %d lines are left out, and their expressions are asked again; the first: %s"
            _log.warning(text, file, len(lost), lost[0])
        columns = zip(examples["example_id"], examples["image_id"], examples["expression"], strict=True)
        todo = [i for i, question in enumerate(columns) if not stored.has_answer(*question)]
    if not todo:
        return
    missing = examples.select(todo)
    results = load().segment_many(from_dataset(missing), batch_size)
    with (
        file.open("a", encoding="utf-8") as stream,
        tqdm(total=len(examples), initial=len(examples) - len(todo), desc="segmenting") as bar,
    ):
        for example, result in zip(from_dataset(missing), results, strict=True):
            stream.write(predictions.to_json(predictions.to_line(example, result)) + "\n")
            stream.flush()
            bar.update()


def _drop_torn_line(file: Path) -> None:
    """Remove the incomplete last line of a killed run."""
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


def score(
    examples: datasets.Dataset,
    index: prediction_files.Index,
    policy: str = DEFAULT_POLICY,
    on_result: Callable[[Prediction | Failure, dict[str, Any]], Any] = lambda *_: None,
) -> dict[str, Any]:
    """Score stored predictions, without keeping their masks in memory.

    Args:
        examples: of `referring_dataset`.
        index: of predictions of these examples; it may have more.
        policy: a name in `metrics.POLICIES`.
        on_result: called with the result and the row of each expression (`Scores.add`), in the order of the examples.

    Returns:
        The figures of `Scores.compute`, and `missing`: the number of expressions without a prediction, which count as
        failed.

    Raises:
        RunError: no prediction is about these examples, or a mask has another size than its image.
    """
    scores, missing = Scores(policy), 0
    for example in from_dataset(examples):
        line = index.find(example)
        missing += line is None
        result = (
            Failure("no prediction", LookupError(example.example_id)) if line is None else predictions.from_line(line)
        )
        try:
            _check_size(example, result)
            row = scores.add(example, result, line is not None and predictions.has_boxes(line))
        except ValueError as error:
            raise RunError(f"the prediction of {example.example_id!r} in {index.file} does not fit: {error}") from error
        on_result(result, row)
    if 0 < missing == len(examples):
        raise RunError(
            f"no prediction in {index.file} is about these expressions; their ids are like {example.example_id!r}"
        )
    return scores.compute() | {"missing": missing}


def _check_size(example: ReferringExample, result: Prediction | Failure) -> None:
    """Raise ValueError if a no-target example's predicted masks have another size than the image.

    `metrics.measure` compares the sizes of all other examples.
    """
    if not example.masks and isinstance(result, Prediction) and result.masks:
        try:
            size = image_size(example.image) if isinstance(example.image, Path) else load_image(example.image).size
        except ImageError:  # nobody knows the size
            return
        if result.image_size != size:
            raise ValueError(f"the image is {size} (width, height), the prediction {result.image_size}")


def _report(
    folder: Path, examples: datasets.Dataset, policy: str, archive: str, command: str, settings: Mapping[str, str]
) -> str:
    index, chosen = prediction_files.Index(folder / PREDICTIONS), gallery.Choice()
    unfinished = folder / (ROWS + _UNFINISHED)
    with unfinished.open("w", encoding="utf-8") as rows, tqdm(total=len(examples), desc="scoring") as bar:

        def on_result(result: Prediction | Failure, row: dict[str, Any]) -> None:
            rows.write(json.dumps(row) + "\n")
            chosen.add(result, row)
            bar.update()

        figures = score(examples, index, policy, on_result)
    unfinished.replace(folder / ROWS)
    facts = {"command": command, "archive": archive, "versions": {name: version(name) for name in _VERSIONS_OF}}
    figures = {**settings, **facts, **figures}
    text = report.markdown(figures)
    _write(folder / METRICS, json.dumps(figures, indent=2) + "\n")
    _write(folder / REPORT, text)
    _write(folder / PAGE, report.html(figures, gallery.draw(examples, index, chosen)))
    return text
