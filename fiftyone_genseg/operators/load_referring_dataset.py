"""The operator "Load referring dataset": a benchmark's archive, a folder or a Hub dataset as samples."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_genseg.operators import _forms, _progress


class LoadReferringDataset(foo.Operator):
    """Make a dataset with one sample per image and expression, and open it."""

    @property
    def config(self) -> foo.OperatorConfig:
        return _progress.config(
            "load_referring_dataset",
            "Load referring dataset",
            "RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg, your own expressions, or a Hub dataset",
        )

    def resolve_input(self, ctx) -> types.Property:
        from genseg_hub import archives

        known = archives.by_name()
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
    from genseg_hub import archives, referring_dataset

    from fiftyone_genseg.datasets.importing import ReferringDatasetImporter

    problem = _problem(ctx)
    if problem:
        raise ValueError(problem)
    source, name = _text(ctx, "source"), _text(ctx, "name") or _default_name(ctx)
    yield from _progress.tell(ctx, 0.0, f"reading {source}")
    said = ""
    if source in archives.by_name():
        split = _text(ctx, "split") or _default_split(archives.by_name()[source])
        examples, report = archives.load_archive(source, _forms.path(_text(ctx, "root")), split)
        said = f"Archive: {report}"
    else:
        examples = referring_dataset.load_examples(source, check_rows=False)
    images = Path(fo.config.default_dataset_dir) / fou.to_slug(name) / "images"  # a name may hold ../
    importer = ReferringDatasetImporter(examples, images, max_samples=ctx.params.get("limit"))
    dataset = fo.Dataset()  # under a name of its own until it is whole: what it replaces stays till then
    try:
        for _ in dataset.add_importer(importer, generator=True, progress=False):
            share = importer.read / max(1, len(importer))
            yield from _progress.tell(ctx, share, f"{importer.read} of {len(importer)} expressions")
        if not len(dataset):
            raise ValueError(f"{source} has no example that can be used. {importer.report}")
    except BaseException:
        dataset.delete()
        raise
    if ctx.params.get("overwrite") and fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset.name, dataset.persistent = name, True
    text = " ".join(filter(None, (f"{name} has {len(dataset):,} expressions.", importer.report, said)))
    variant = "warning" if importer.unusable else "success"
    return _progress.Done(text, variant, (partial(ctx.ops.open_dataset, name),))


def _text(ctx, name: str) -> str:
    return str(ctx.params.get(name) or "").strip()


def _default_split(benchmark) -> str:
    return "val" if "val" in benchmark.splits else next(iter(benchmark.splits))


def _default_name(ctx) -> str:
    source, split = _text(ctx, "source"), _text(ctx, "split")
    # Names that differ in "+" alone are one for FiftyOne.
    return "-".join(filter(None, (Path(source).name.replace(":", "-").replace("+", "plus"), split)))


def _problem(ctx) -> str | None:
    from genseg_hub import archives

    source, name = _text(ctx, "source"), _text(ctx, "name") or _default_name(ctx)
    if not source:
        return "Choose a benchmark, or name a folder or a Hub dataset."
    known = archives.by_name()
    if source in known and not _text(ctx, "root"):
        return "Name the folder under which the archive lies."
    try:
        if source in known:
            split = _text(ctx, "split") or _default_split(known[source])
            archives.check(source, _forms.path(_text(ctx, "root")), split)
        else:
            _forms.check_source(source, "a benchmark")
        _check_name(name, bool(ctx.params.get("overwrite")))
    except (ValueError, OSError) as error:
        return _forms.sentence(error)
    return None


def _check_name(name: str, overwrite: bool) -> None:
    """Raise ValueError unless a dataset can be made under a name. FiftyOne tells names apart by their slugs."""
    if not name.isprintable():
        raise ValueError(f"{name!r} is not a name for a dataset: use letters and digits")
    slug = fou.to_slug(name)
    clash = next((other for other in fo.list_datasets() if fou.to_slug(other) == slug), None)
    if clash == name and not overwrite:
        raise ValueError(f"there is a dataset {name!r} already; choose another name, or replace it")
    if clash not in (None, name):
        raise ValueError(f"the name {name!r} is too much like that of the dataset {clash!r}; choose another")
