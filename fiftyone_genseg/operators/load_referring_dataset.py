"""The operator "Load referring dataset": a benchmark's archive, a folder or a Hub dataset as samples."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_genseg.operators import _forms, _progress

_BATCH = 100


class LoadReferringDataset(foo.Operator):
    """Make a dataset with one sample per image and expression, and open it."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="load_referring_dataset",
            label="Load referring dataset",
            description="RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg, your own expressions, or a Hub dataset",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx) -> types.Property:
        from genseg_hub import benchmarks

        known = benchmarks.by_name()
        inputs = types.Object()
        choices = types.AutocompleteView(allow_user_input=True)
        for benchmark in known.values():
            choices.add_choice(benchmark.name, label=benchmark.name, description=benchmark.archive)
        inputs.str(
            "source",
            label="Benchmark, folder or Hub dataset",
            description="A benchmark, a folder that `save_to_disk` wrote, or owner/name:split",
            required=True,
            view=choices,
        )
        source = _text(ctx, "source")
        if source in known:
            benchmark = known[source]
            inputs.view("archive", types.Notice(label=benchmark.archive))
            inputs.str(
                "root",
                label="Root folder",
                description="Under which the archive lies, on the machine that runs FiftyOne",
                default=os.environ.get("GENSEG_BENCHMARKS"),
                required=True,
            )
            inputs.enum(
                "split", list(benchmark.splits), label="Split", default=_default_split(benchmark), required=True
            )
        inputs.str("name", label="Name of the dataset", default=_default_name(ctx), required=True)
        inputs.int("limit", label="Only the first expressions", description="Empty for all", min=1)
        inputs.bool("overwrite", label="Replace a dataset of that name", default=False)
        problem = _problem(ctx)
        if problem and source:
            _forms.show_problem(inputs, problem)
        return types.Property(inputs, view=types.View(label="Load referring dataset"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _load(ctx), "Nothing was loaded")


def _load(ctx) -> Generator[Any, None, _progress.Done]:
    from genseg_hub import benchmarks, referring_dataset

    from fiftyone_genseg.importing import ReferringDatasetImporter

    problem = _problem(ctx)
    if problem:
        raise ValueError(problem)
    source, name = _text(ctx, "source"), _text(ctx, "name") or _default_name(ctx)
    yield from _progress.tell(ctx, 0.0, f"reading {source}")
    said = ""
    if source in benchmarks.by_name():
        split = _text(ctx, "split") or _default_split(benchmarks.by_name()[source])
        examples, report = benchmarks.load(source, Path(_text(ctx, "root")), split)
        said = f" Archive: {report}"
    else:
        examples = referring_dataset.load(source)
    images = Path(fo.config.default_dataset_dir) / name / "images"
    importer = ReferringDatasetImporter(examples, images, max_samples=ctx.params.get("limit"))
    dataset = fo.Dataset()  # under a name of its own until it is whole: what it replaces stays till then
    try:
        batch: list[fo.Sample] = []
        for number, sample in enumerate(importer, 1):
            batch.append(sample)
            if len(batch) == _BATCH or number == len(importer):
                dataset.add_samples(batch, progress=False)
                batch = []
                yield from _progress.tell(ctx, number / len(importer), f"{number} of {len(importer)} expressions")
    except BaseException:
        dataset.delete()
        raise
    if ctx.params.get("overwrite") and fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset.name, dataset.persistent = name, True
    return _progress.Done(
        f"{name} has {len(dataset):,} expressions.{said}", then=(partial(ctx.ops.open_dataset, name),)
    )


def _text(ctx, name: str) -> str:
    return str(ctx.params.get(name) or "").strip()


def _default_split(benchmark) -> str:
    return "val" if "val" in benchmark.splits else next(iter(benchmark.splits))


def _default_name(ctx) -> str:
    source, split = _text(ctx, "source"), _text(ctx, "split")
    return "-".join(filter(None, (Path(source).name.replace(":", "-"), split)))


def _problem(ctx) -> str | None:
    from genseg_hub import benchmarks

    source, name = _text(ctx, "source"), _text(ctx, "name") or _default_name(ctx)
    if not source:
        return "Choose a benchmark, or name a folder or a Hub dataset."
    known = benchmarks.by_name()
    if source in known:
        root = _text(ctx, "root")
        if not root:
            return "Name the folder under which the archive lies."
        split = _text(ctx, "split") or _default_split(known[source])
        try:
            benchmarks.check(source, Path(root), split)
        except benchmarks.ArchiveError as error:
            return _forms.sentence(error)
    elif source.partition(":")[0].count("/") != 1 and not Path(source).expanduser().is_dir():
        return f"{source!r} is neither a benchmark, nor a folder, nor a Hub dataset (owner/name)."
    if name in fo.list_datasets() and not ctx.params.get("overwrite"):
        return f"There is a dataset {name!r} already; choose another name, or replace it."
    return None
