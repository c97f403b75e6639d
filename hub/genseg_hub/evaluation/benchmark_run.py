"""Score a checkpoint, or another system's predictions, on referring examples.

A run is a folder. A killed run resumes. Scoring reads the stored predictions and needs no model. Several processes may
share a run, see `shards`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from tqdm.auto import tqdm

from genseg_hub.errors import ImageError, RunError
from genseg_hub.evaluation import gallery, prediction_files, predictions, report, shards
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, get_policy
from genseg_hub.evaluation.scores import Scores
from genseg_hub.evaluation.shards import LOCK, Shard
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
# Takes examples and how many to answer at once; gives each example with its result, in any order.
Answer = Callable[[Iterator[ReferringExample], int], Iterator[tuple[ReferringExample, Prediction | Failure]]]
_UNFINISHED = ".part"
_MARKS = {"benchmark", "split", "model"}  # settings that every run has
_VERSIONS_OF = ("fiftyone-genseg", "transformers", "torch", "rf-sam-2")
_log = logging.getLogger(__name__)


def run(
    folder: Path,
    settings: Mapping[str, str],
    examples: datasets.Dataset,
    source: Callable[[], GenSegR1 | Answer] | Path,
    policy: str,
    archive: str,
    command: str,
    batch_size: int = 8,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> str | None:
    """Predict the missing expressions of a run, score all, and write reports.

    Args:
        folder: new, empty, or the folder of the same run.
        settings: `benchmark`, `split` and `model`, and all other values that must be the same when a run resumes (see
            `checkpoints.fingerprint`).
        examples: examples of `referring_dataset`, with unique ids.
        source: a function that loads the checkpoint, called only if a prediction is missing; or a file of predictions
            (see `prediction_files.read`).
        policy: a name in `metrics.POLICIES`.
        archive: origin of the examples, for the reports.
        command: command that started the run, for the reports.
        batch_size: expressions that the reasoner answers at once.
        overwrite: replace any run in the folder. Its files are removed after the model is loaded, or after the file of
            predictions is read.
        shard: the part of the examples that this process predicts; other processes predict the other parts of the same
            run. None for all examples.

    Returns:
        The report, in Markdown; None if other shards have still to predict.

    Raises:
        RunError: the folder, the settings or the source cannot be used.
        PredictionError: the file of predictions cannot be used.
        DiskFullError: the disk is full.
        ValueError: there is no such policy.
    """
    get_policy(policy)
    if isinstance(source, Path):
        if not source.is_file():
            raise RunError(f"there is no file {source}; check the path")
        if overwrite and source.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{source} is in {folder}, which would be overwritten; name another --out")
    if shard and (overwrite or isinstance(source, Path)):
        raise RunError(
            "a shard predicts missing expressions: leave out --predictions, and begin a run anew without --shard, "
            "or name another --out"
        )
    in_words = disk_full_in_words(f"the run in {folder} stopped, and its answers so far are kept")
    if shard and not isinstance(source, Path):
        with in_words:
            _predict_shard(folder, settings, examples, source, batch_size, shard)
            with _locked(folder, settings, False, -1):
                if not _is_last(folder, examples):
                    return None
                with shards.alone(folder):
                    shards.join(folder, folder / PREDICTIONS)
                return _report(folder, examples, policy, archive, command, settings)
    with in_words, _locked(folder, settings, overwrite), shards.alone(folder):
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
            shards.join(folder, file)
        if not isinstance(source, Path):
            _predict(load, examples, file, batch_size)
        return _report(folder, examples, policy, archive, command, settings)


@contextlib.contextmanager
def _locked(folder: Path, settings: Mapping[str, str], overwrite: bool = False, seconds: float = 0.0) -> Iterator[None]:
    """Check a folder, and lock it for this process."""
    _check(folder, settings, overwrite)  # before anything is written into a folder that is no run
    folder.mkdir(parents=True, exist_ok=True)
    with shards.locked(folder, seconds):
        _check(folder, settings, overwrite)  # another process may have begun a run meanwhile
        yield


def _predict_shard(
    folder: Path,
    settings: Mapping[str, str],
    examples: datasets.Dataset,
    source: Callable[[], GenSegR1 | Answer],
    batch_size: int,
    shard: Shard,
) -> None:
    """Predict the missing expressions of one part of the examples."""
    with _locked(folder, settings, seconds=shards.START_SECONDS):
        _begin(folder, settings, False)
        lock = shards.take(folder, shard)
        stored = [folder / PREDICTIONS, *shards.files(folder)]
    try:
        _predict(source, examples.select(shard.part(len(examples))), shard.file(folder), batch_size, stored)
    finally:
        lock.release()


def _is_last(folder: Path, examples: datasets.Dataset) -> bool:
    """Return whether the run is complete and no shard is at work.

    Complete means that every expression has a prediction or a failure.
    """
    try:
        with shards.alone(folder):
            pass
    except RunError:
        return False
    stored = prediction_files.Index(folder / PREDICTIONS, *shards.files(folder))
    return all(stored.has_line(*question) for question in _questions(examples))


def _check(folder: Path, settings: Mapping[str, str], overwrite: bool) -> None:
    """Raise RunError unless a run may be written into a folder.

    The folder may be new, hold the same run, or hold a run that may be overwritten.
    """
    file = folder / SETTINGS
    something_else = RunError(f"{folder} holds something else than a run; name another --out")
    if not file.is_file():
        # A shard may have begun the run since.
        ours = {LOCK, SETTINGS, shards.FOLDER, *(name + _UNFINISHED for name in FILES)}
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
        shards.remove(folder)
    _write(folder / SETTINGS, json.dumps(dict(settings), indent=2) + "\n")


def _write(file: Path, text: str) -> None:
    """Write the whole text or nothing.

    Characters that UTF-8 cannot hold become question marks.
    """
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


def _predict(
    load: Callable[[], GenSegR1 | Answer],
    examples: datasets.Dataset,
    file: Path,
    batch_size: int,
    others: Sequence[Path] = (),
) -> None:
    """Append the missing predictions to a file.

    Failures and unreadable lines are asked again.

    Args:
        load: loads the checkpoint.
        examples: examples to predict.
        file: file of the predictions.
        batch_size: expressions that are answered at once.
        others: further files of predictions; an expression that one of them answers is not asked.
    """
    shards.drop_torn_line(file)
    stored = prediction_files.Index(*dict.fromkeys((file, *others)))
    if (lost := stored.unreadable) and not others:  # another shard may be writing its line
        text = "%s: %d lines are left out, and their expressions are asked again; the first: %s"
        _log.warning(text, file, len(lost), lost[0])
    todo = [i for i, question in enumerate(_questions(examples)) if not stored.has_answer(*question)]
    if not todo:
        return
    missing, loaded = examples.select(todo), load()
    if callable(loaded):
        results = loaded(from_dataset(missing), batch_size)
    else:
        results = zip(from_dataset(missing), loaded.segment_many(from_dataset(missing), batch_size), strict=True)
    with (
        file.open("a", encoding="utf-8") as stream,
        tqdm(total=len(examples), initial=len(examples) - len(todo), desc="segmenting") as bar,
    ):
        for example, result in results:
            stream.write(predictions.to_json(predictions.to_line(example, result)) + "\n")
            stream.flush()
            bar.update()


def _questions(examples: datasets.Dataset) -> Iterator[tuple[str, str, str]]:
    """Yield the example_id, the image_id and the expression of each example."""
    return zip(examples["example_id"], examples["image_id"], examples["expression"], strict=True)


def score(
    examples: datasets.Dataset,
    index: prediction_files.Index,
    policy: str = DEFAULT_POLICY,
    on_result: Callable[[Prediction | Failure, dict[str, Any]], Any] = lambda *_: None,
) -> dict[str, Any]:
    """Score stored predictions, without keeping their masks in memory.

    Args:
        examples: examples of `referring_dataset`.
        index: index of predictions of the examples; it may have more.
        policy: a name in `metrics.POLICIES`.
        on_result: called with the result and the row of each expression (`Scores.add`), in the order of the examples.

    Returns:
        The figures of `Scores.compute`, and `missing`: the number of expressions without a prediction, which count as
        failed.

    Raises:
        RunError: no prediction is about the examples, or a mask has another size than its image.
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
            raise RunError(f"the prediction of {example.example_id!r} in {index} does not fit: {error}") from error
        on_result(result, row)
    if 0 < missing == len(examples):
        raise RunError(
            f"no prediction in {index} is about these expressions; their ids are like {example.example_id!r}"
        )
    return scores.compute() | {"missing": missing}


def _check_size(example: ReferringExample, result: Prediction | Failure) -> None:
    """Raise ValueError if a no-target example's masks are not of its image's size.

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
