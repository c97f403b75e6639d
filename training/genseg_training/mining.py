"""Mining: choose expressions by how often a checkpoint answers them right.

GRPO compares the answers to one expression, so an expression that is always or never answered right teaches nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from genseg_hub import GenSegR1, referring_dataset
from genseg_hub.checkpoints import fingerprint
from genseg_hub.errors import RunError
from genseg_hub.evaluation import shards
from genseg_hub.evaluation.metrics import ReferringMetrics, measure
from genseg_hub.evaluation.shards import Shard
from genseg_hub.options import HubOptions, ReasonerOptions, pick
from genseg_hub.reasoners.base import Sampling
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.whole import disk_full_in_words, write_text
from tqdm.auto import tqdm

from genseg_training import data
from genseg_training.sources import ROOT_VARIABLE

SETTINGS, ANSWERS, RATES = "mining.json", "answers.jsonl", "pass_rates.jsonl"
PASS_RATE = "pass_rate"
# Row of the source and number of the sample -> mask IoU; None for an answer that failed and is asked again.
Answers = dict[tuple[int, int], float | None]
_log = logging.getLogger(__name__)


@dataclass
class MiningArguments:
    """Options of `genseg-train mine`."""

    output_dir: str = field(
        metadata={"help": "Folder of the answers, and of the kept examples, which training reads as a source."}
    )
    model: str = field(default="nano", metadata={"help": "Checkpoint that answers."})
    data: str = field(default="refscenes:3000", metadata={"help": "A source, as for training."})
    root: str | None = field(default=None, metadata={"help": "Folder of the official archives."})
    samples: int = field(
        default=1, metadata={"help": "Answers per expression; 1 is the greedy answer, more are sampled."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Temperature of sampled answers; take the training's."})
    below: float = field(default=0.5, metadata={"help": "Mask IoU below which an answer is wrong."})
    min_rate: float | None = field(
        default=None,
        metadata={"help": "Least share of right answers of a kept example. Default: above 0; with one answer, 0."},
    )
    max_rate: float | None = field(
        default=None,
        metadata={"help": "Greatest share of right answers of a kept example. Default: below 1."},
    )
    shard: str | None = field(
        default=None,
        metadata={"help": "Answer this part alone, such as 3/8; the last part to finish writes the kept examples."},
    )
    workers: int | None = field(
        default=None,
        metadata={"help": "Processes with a model each, on Ray; they see output_dir and the source by the same paths."},
    )
    gpus_per_worker: float | None = field(
        default=None, metadata={"help": "GPUs of a worker, 0 for CPUs. Default: 1 if the cluster has any."}
    )
    address: str | None = field(
        default=None,
        metadata={"help": "Address of a Ray cluster: host:port, or auto. Default: $RAY_ADDRESS, or a new one."},
    )
    server: str | None = field(default=None, metadata={"help": "Address of a server that has the model."})
    batch_size: int = field(default=32, metadata={"help": "Answers at once."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:0 or mps."})
    seed: int = field(default=1, metadata={"help": "Seed of rendered scenes and of sampled answers."})
    model_options: str = field(
        default="{}",
        metadata={"help": 'Other options of GenSegR1.from_pretrained, as JSON: {"backend": "vllm"}.'},
    )

    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest share of right answers of a kept example."""
        one = 1 / self.samples
        least = self.min_rate if self.min_rate is not None else 0.0 if self.samples == 1 else one
        most = self.max_rate if self.max_rate is not None else 1 - one
        return least, most

    def options(self) -> dict[str, Any]:
        """Return `model_options`.

        Raises:
            ValueError: they are no JSON object; the message does not quote them, because they may hold a token.
        """
        try:
            options = json.loads(self.model_options)
        except ValueError as error:
            raise ValueError(f"model_options must be a JSON object: {error}") from None
        if not isinstance(options, dict):
            raise ValueError(
                f'model_options must be a JSON object ({{"backend": "vllm"}}), not {type(options).__name__}'
            )
        return options

    def check(self) -> None:
        """Raise ValueError for values that cannot be."""
        if self.workers is None and (self.gpus_per_worker is not None or self.address):
            raise ValueError("gpus_per_worker and address belong to workers; say how many (--workers)")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"there must be at least one worker, got {self.workers}")
        if self.workers is not None and (self.shard or self.server):
            raise ValueError("leave --workers out: with --shard this process answers, and a server answers by itself")
        if self.workers is not None and self.device not in ("auto", "cpu"):
            raise ValueError(f"workers have the GPU that Ray gives them, and not {self.device}; leave --device out")
        if not 0 < self.below <= 1:
            raise ValueError(f"the IoU below which an answer is wrong must lie in (0, 1], got {self.below}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.samples > 1 and not 0 < self.temperature < float("inf"):
            raise ValueError(f"sampled answers need a temperature above 0, got {self.temperature}")
        least, most = self.bounds()
        if not 0 <= least <= most <= 1:
            raise ValueError(
                f"the share of right answers must lie between 0 and 1, and min_rate at most at max_rate; got {least:g} "
                f"and {most:g}"
            )


def mine(arguments: MiningArguments) -> None:
    """Answer the expressions of a source in this process, and write the kept ones.

    Kept expressions have a share of right answers within the bounds. Every answer is written when it is there: a killed
    run resumes. The same command with other bounds, another `below` or fewer samples asks nothing again.

    Args:
        arguments: options of the command.

    Raises:
        ValueError: for options or a source that cannot be used, a folder that holds something else, or no kept example.
        CheckpointError: for a model that cannot be used.
        DiskFullError: the disk is full; the answers so far are kept.
    """
    arguments.check()
    shard = Shard.parse(arguments.shard) if arguments.shard else None
    examples, settings, load = _opened(arguments)
    folder = Path(arguments.output_dir)
    asked = shard.part(len(examples)) if shard else range(len(examples))
    with disk_full_in_words(f"mining into {folder} stopped, and its answers so far are kept"):
        if shard is None:
            with _begun(folder, settings), shards.alone(folder):
                shards.join(folder, folder / ANSWERS)
                _answer(load, examples, asked, folder / ANSWERS, [], arguments)
                _select(folder, examples, arguments)
            return
        with _begun(folder, settings, shards.START_SECONDS):
            lock = shards.take(folder, shard)
            others = [folder / ANSWERS, *shards.files(folder)]
        try:
            _answer(load, examples, asked, shard.file(folder), others, arguments)
        finally:
            lock.release()
        with _begun(folder, settings, -1):
            if not _is_last(folder, len(examples), arguments.samples):
                print(f"shard {shard} is done; the last shard to finish writes the kept examples into {folder}")
                return
            with shards.alone(folder):
                shards.join(folder, folder / ANSWERS)
            _select(folder, examples, arguments)


def begin(arguments: MiningArguments) -> MiningArguments:
    """Begin a run that other processes answer, and return the options for them.

    The options name the commit of a checkpoint on the Hub and the folder of the archives, so that all mean the same.

    Args:
        arguments: options of the command.

    Raises:
        ValueError: see `mine`.
        CheckpointError: see `mine`.
    """
    arguments.check()
    _, settings, _ = _opened(arguments)
    with _begun(Path(arguments.output_dir), settings):
        pass
    model = fingerprint.loadable(arguments.model, settings)
    return replace(arguments, model=model, root=arguments.root or os.environ.get(ROOT_VARIABLE))


def finish(arguments: MiningArguments) -> None:
    """Write the kept examples of a run whose answers are all there, and load no model.

    Args:
        arguments: as `begin` returned them.

    Raises:
        RunError: answers are missing.
        ValueError: no example is kept.
    """
    examples, settings, _ = _opened(arguments)
    folder = Path(arguments.output_dir)
    with _begun(folder, settings), shards.alone(folder):
        found = _read([folder / ANSWERS, *shards.files(folder)])
        missing = sum((row, n) not in found for row in range(len(examples)) for n in range(arguments.samples))
        if missing:
            raise RunError(
                f"{folder} lacks {missing:,} answers that workers have given: all machines must see this folder by the "
                "same path; share it, and start again"
            )
        shards.join(folder, folder / ANSWERS)
        _select(folder, examples, arguments)


def _opened(arguments: MiningArguments) -> tuple[datasets.Dataset, dict[str, str], Callable[[], GenSegR1]]:
    """Return the examples, the settings that a run keeps, and a loader of the model."""
    options = arguments.options()
    examples = data.load_source(arguments.data, arguments.seed, arguments.root)
    who, load = _model(arguments, options)
    settings = {"data": arguments.data, "content": _content(examples), **who}
    settings |= {"temperature": f"{arguments.temperature:g}"} if arguments.samples > 1 else {"greedy": "yes"}
    return examples, settings, load


def _model(arguments: MiningArguments, options: dict[str, Any]) -> tuple[dict[str, str], Callable[[], GenSegR1]]:
    """Return the fingerprint of the model, and a function that loads it.

    If the model is on a server, this function asks the server for its models.
    """
    of_reasoner, hub = pick(ReasonerOptions, options), pick(HubOptions, options)
    if arguments.server:
        model = GenSegR1.from_pretrained(arguments.model, arguments.device, server=arguments.server, **options)
        who = fingerprint.identify(arguments.model, None, model.checkpoint, of_reasoner, hub)
        return who, lambda: model
    who = fingerprint.identify(arguments.model, None, None, of_reasoner, hub)
    name = fingerprint.loadable(arguments.model, who)
    return who, lambda: GenSegR1.from_pretrained(name, arguments.device, **options)


def _content(examples: datasets.Dataset) -> str:
    """Return a digest of the questions and their masks."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in examples.select_columns(["example_id", "image_id", "expression", "masks"]).iter(1000):
        digest.update(json.dumps(batch, sort_keys=True).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _begun(folder: Path, settings: Mapping[str, str], seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a new folder or of the same run's folder; write the settings."""
    _check_folder(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with shards.locked(folder, seconds):
        _check_folder(folder, settings)  # another process may have begun meanwhile
        write_text(folder / SETTINGS, json.dumps(dict(settings), indent=2) + "\n")
        yield


def _check_folder(folder: Path, settings: Mapping[str, str]) -> None:
    """Raise RunError unless a folder is new, or holds the same run."""
    file = folder / SETTINGS
    if not file.is_file():
        ours = {shards.LOCK, shards.FOLDER, SETTINGS, f".{SETTINGS}.new"}
        if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= ours):
            raise RunError(f"{folder} exists and holds something else; name another folder with --output_dir")
        return
    try:
        before = json.loads(file.read_bytes())
    except ValueError as error:
        raise RunError(f"{file} is damaged; name another folder with --output_dir, or remove the file") from error
    for name in dict.fromkeys((*settings, *before)):
        if before.get(name) != settings.get(name):
            raise RunError(
                f"{folder} holds answers with the {name} {before.get(name)!r}, not {settings.get(name)!r}; "
                "name another folder with --output_dir"
            )


def _answer(
    load: Callable[[], GenSegR1],
    examples: datasets.Dataset,
    asked: range,
    file: Path,
    others: Iterable[Path],
    arguments: MiningArguments,
) -> None:
    """Append the IoU of each missing answer to a file, as soon as it is there."""
    shards.drop_torn_line(file)
    there = _read([file, *others])
    todo = [(row, sample) for row in asked for sample in range(arguments.samples) if there.get((row, sample)) is None]
    if not todo:
        return
    model = load()
    if arguments.samples > 1:
        if not isinstance(model.reasoner, Sampling):
            raise ValueError(f"{arguments.model} cannot sample; take --samples 1")
        model.reasoner.temperature = arguments.temperature
    torch.manual_seed(hash((arguments.seed, *todo[0], len(todo))))  # a resumed run must not draw the same again
    metrics = ReferringMetrics()
    total = len(asked) * arguments.samples
    with (
        file.open("a", encoding="utf-8") as stream,
        tqdm(total=total, initial=total - len(todo), desc=f"answers of {arguments.model}") as bar,
    ):
        results = answers(model, examples, [row for row, _ in todo], arguments.batch_size)
        for (row, sample), (example, result) in zip(todo, results, strict=True):
            line: dict[str, Any] = {"row": row, "sample": sample, "example_id": example.example_id}
            if isinstance(result, Failure):
                line["failure"] = result.message
            else:
                line["iou"] = iou(metrics, example, result)
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            bar.update()


def answers(
    model: GenSegR1, examples: datasets.Dataset, rows: list[int], batch_size: int
) -> Iterator[tuple[ReferringExample, Prediction | Failure]]:
    """Yield examples with their results, in the order of the rows.

    A row may come several times.

    Args:
        model: model that answers.
        examples: examples with `referring_dataset.FEATURES`, and perhaps `ignore`.
        rows: rows of `examples`; neighbours that are equal share the image.
        batch_size: answers at once.
    """
    chosen = examples.select(rows)
    yield from zip(from_dataset(chosen), model.segment_many(from_dataset(chosen), batch_size), strict=True)


def iou(metrics: ReferringMetrics, example: ReferringExample, result: Prediction) -> float:
    """Return the mask IoU of an answer, as evaluations count it.

    Pixels of `ignore` do not count. A no-target example has 1 when nothing is segmented and 0 otherwise. An answer with
    an error has 0.
    """
    if result.response.error:
        overlap = measure(example.masks, None, answered=False, ignore=example.ignore)
    else:
        overlap = measure(example.masks, result.mask if result.masks else None, ignore=example.ignore)
    return float(metrics.ious(overlap).item())


def _read(files: Iterable[Path]) -> Answers:
    """Return the answers in files; an answer counts before a failure.

    A line that cannot be read is left out.
    """
    found: Answers = {}
    for file in files:
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            for line in stream:
                try:
                    read = json.loads(line)
                    key, value = (int(read["row"]), int(read["sample"])), read.get("iou")
                except (ValueError, KeyError, TypeError, AttributeError):
                    _log.warning("a line of %s cannot be read; its answer is asked again", file)
                    continue
                if value is not None or key not in found:
                    found[key] = value
    return found


def _is_last(folder: Path, count: int, samples: int) -> bool:
    """Return whether no shard is at work and every answer is there, or has failed."""
    try:
        with shards.alone(folder):
            pass
    except RunError:
        return False
    found = _read([folder / ANSWERS, *shards.files(folder)])
    return all((row, sample) in found for row in range(count) for sample in range(samples))


def _select(folder: Path, examples: datasets.Dataset, arguments: MiningArguments) -> None:
    """Write each expression's pass rate, and the examples whose rate is kept."""
    found = _read([folder / ANSWERS])
    samples, (least, most) = arguments.samples, arguments.bounds()
    kept, rates, lines = [], [], []
    names, expressions = examples["example_id"], examples["expression"]
    for row in range(len(examples)):
        ious = [found[row, sample] or 0.0 for sample in range(samples)]  # an answer that fails is wrong
        rate = sum(iou >= arguments.below for iou in ious) / samples
        lines.append(
            json.dumps(
                {
                    "example_id": names[row],
                    "expression": expressions[row],
                    PASS_RATE: rate,
                    "ious": [round(iou, 4) for iou in ious],
                }
            )
        )
        if least - 1e-9 <= rate <= most + 1e-9:
            kept.append(row)
            rates.append(rate)
    write_text(folder / RATES, "\n".join(lines) + "\n")
    same = all(len({found[row, sample] for sample in range(samples)}) == 1 for row in range(len(examples)))
    if samples > 1 and same:
        _log.warning(
            "all %d answers to each expression have the same mask, as if the model were not sampled: raise "
            "--temperature. `transformers serve` samples only if the checkpoint's generation_config.json has do_sample",
            samples,
        )
    said = f"{len(kept)} of {len(examples)} examples have a share of right answers from {least:g} to {most:g}"
    if not kept:
        raise ValueError(f"{said}: take more examples, other bounds, or another --below; {folder / RATES} has them all")
    chosen = examples.select(kept).add_column(PASS_RATE, rates, feature=datasets.Value("float32"))
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)  # of a killed process
    new.mkdir()
    referring_dataset.save(chosen, new)
    # Each file replaces its earlier one; together they are readable at any time, because the features stay the same.
    for file in sorted(new.iterdir()):
        file.replace(folder / file.name)
    new.rmdir()
    print(f"{said}; wrote {folder}")
