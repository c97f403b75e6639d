"""The operator "Load referring dataset": a benchmark or dataset as samples."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.operator import RiskLevel
from huggingface_hub import constants

from fiftyone_genseg.messages import sentence
from fiftyone_genseg.operators import _forms, _progress

if TYPE_CHECKING:
    from genseg_hub.archives import Benchmark

# Kinds of sources, each chosen in a field of the form that has its name.
BENCHMARK, FOLDER, HUB_DATASET = "source", "folder", "hub_dataset"
_SHOWN = 50  # datasets of the Hub


@dataclass(frozen=True)
class LoadDatasetRequest:
    """A request to load a dataset of referring examples.

    Attributes:
        source: a benchmark, a folder that `save_to_disk` wrote, or a Hub dataset.
        name: name of the dataset to make.
        root: folder that holds a benchmark's archive.
        split: split of a benchmark; "" for another source.
        limit: number of expressions to load; None for all.
        overwrite: replace a dataset of the same name.
    """

    source: str
    name: str
    root: str
    split: str
    limit: int | None = None
    overwrite: bool = False

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> LoadDatasetRequest:
        """Read a form.

        The name is by default made of the source and the chosen split, and the root is $GENSEG_BENCHMARKS.

        Args:
            params: the form's values by name. `kind` is the name of the value that is the source; without it, `source`
                is. Missing and empty values mean the defaults.
        """
        from genseg_hub import archives

        wanted = (params.get("kind") or BENCHMARK, "name", "root", "split")
        source, name, root, split = (_forms.text_of(params.get(key)) for key in wanted)
        benchmark = archives.by_name().get(source)
        chosen = split if benchmark else ""
        return cls(
            source,
            name or _default_name(source, chosen),
            root or os.environ.get("GENSEG_BENCHMARKS", ""),
            chosen or (_default_split(benchmark) if benchmark else ""),
            params.get("limit"),
            bool(params.get("overwrite", cls.overwrite)),
        )

    def problem(self) -> str | None:
        """Return why the request cannot be run, as a sentence; None when it can."""
        from genseg_hub import archives, referring_dataset

        if not self.source:
            return "Choose a benchmark, a folder or a dataset on the Hub."
        try:
            if self.source not in archives.by_name():
                referring_dataset.check_source(self.source, "a benchmark")
            elif self.root:
                archives.check(self.source, _forms.path(self.root), self.split)
            else:
                raise ValueError("name the folder that holds the archive")
            _check_name(self.name, self.overwrite)
        except (ValueError, OSError) as error:
            return sentence(error)
        return None


class LoadReferringDataset(foo.Operator):
    """Make a dataset with one sample per image and expression, and open it."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Return the name of the operator and the ways to run it."""
        return _progress.config(
            "load_referring_dataset",
            "Load referring dataset",
            "RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg, your own expressions, or a Hub dataset",
            "dataset",
            risk_level=RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx) -> types.Property:
        """Return the form; a benchmark has a root folder and splits to choose from."""
        from genseg_hub import archives

        request = LoadDatasetRequest.from_params(ctx.params)
        chosen = ("kind", BENCHMARK, FOLDER, HUB_DATASET, "split")
        untouched = LoadDatasetRequest.from_params({name: ctx.params.get(name) for name in chosen})
        known = archives.by_name()
        inputs = types.Object()
        _forms.show_problem(inputs, request.problem(), untouched=not request.source)
        kinds = types.RadioGroup()
        kinds.add_choice(BENCHMARK, label="A benchmark")
        kinds.add_choice(FOLDER, label="A folder")
        kinds.add_choice(HUB_DATASET, label="A dataset on the Hub")
        inputs.enum("kind", kinds.values(), label="What to load", default=BENCHMARK, view=kinds)
        _ask_for_source(ctx, inputs, ctx.params.get("kind") or BENCHMARK, request.root)
        if request.source in known:
            benchmark = known[request.source]
            inputs.view("archive", types.Notice(label=benchmark.archive))
            described = "The folder that holds the archive, on the machine that runs FiftyOne"
            if untouched.root:
                described += f". Without a choice: {untouched.root}"
            _forms.ask_for_path(ctx, inputs, "root", "Root folder", described, folder=True)
            splits = _forms.dropdown(benchmark.splits)
            inputs.enum("split", splits.values(), label="Split", default=untouched.split, required=True, view=splits)
        inputs.str("name", label="Name of the dataset", default=untouched.name, required=True)
        inputs.int("limit", label="Only the first expressions", description="Empty for all", min=1)
        inputs.bool("overwrite", label="Replace a dataset of that name", default=untouched.overwrite)
        return types.Property(inputs, view=types.View(label="Load referring dataset"))

    def execute(self, ctx) -> Iterator:
        """See `_progress.run`."""
        return _progress.run(ctx, _load(ctx), "Nothing was loaded")


def _load(ctx) -> Generator[Any, None, _progress.Done]:
    from genseg_hub import archives, referring_dataset

    from fiftyone_genseg.datasets.importing import ReferringDatasetImporter

    request = LoadDatasetRequest.from_params(ctx.params)
    problem = request.problem()
    if problem:
        raise ValueError(problem)
    yield from _progress.tell(ctx, 0.0, f"reading {request.source}")
    said = ""
    if request.source in archives.by_name():
        examples, report = archives.load_archive(request.source, _forms.path(request.root), request.split)
        said = f"Archive: {report}"
    else:
        examples = referring_dataset.load_examples(request.source, check_rows=False)
    images = Path(fo.config.default_dataset_dir) / fou.to_slug(request.name) / "images"  # a name may hold ../
    importer = ReferringDatasetImporter(examples, images, max_samples=request.limit)
    dataset = fo.Dataset()  # has a temporary name until it is whole: until then, the dataset to replace stays
    try:
        for _ in dataset.add_importer(importer, generator=True, progress=False):
            share = importer.read / max(1, len(importer))
            yield from _progress.tell(ctx, share, f"{importer.read} of {len(importer)} expressions")
        if not len(dataset):
            raise ValueError(f"{request.source} has no example that can be used. {importer.report}")
    except BaseException:
        dataset.delete()
        raise
    dataset.persistent = True  # before the other is deleted, so that a kill loses neither
    if request.overwrite and fo.dataset_exists(request.name):
        fo.delete_dataset(request.name)
    dataset.name = request.name
    text = " ".join(filter(None, (f"{request.name} has {len(dataset):,} expressions.", importer.report, said)))
    variant = "warning" if importer.unusable else "success"
    return _progress.Done(text, variant, (partial(ctx.ops.open_dataset, request.name),))


def _ask_for_source(ctx, inputs: types.Object, kind: str, root: str) -> None:
    """Ask for a source of a kind; archives that are in the root folder come first."""
    if kind == FOLDER:
        described = "A folder that `save_to_disk` or Export referring examples wrote, on the machine that runs FiftyOne"
        return _forms.ask_for_path(ctx, inputs, FOLDER, "Folder", described, folder=True)
    if kind == HUB_DATASET:
        described = "owner/name, or owner/name:split. Datasets that were loaded here before are listed"
        choices = _forms.suggestions(_datasets_on_disk())
        inputs.str(HUB_DATASET, label="Dataset on the Hub", description=described, required=True, view=choices)
        return None
    from genseg_hub import archives

    here = {benchmark.name for benchmark in archives.by_name().values() if _is_in(root, benchmark)}
    choices = types.AutocompleteView(allow_user_input=True)
    for benchmark in sorted(archives.by_name().values(), key=lambda benchmark: benchmark.name not in here):
        label = f"{benchmark.name} (in {root})" if benchmark.name in here else benchmark.name
        choices.add_choice(benchmark.name, label=label, description=benchmark.archive)
    described = "Choose one. The path of a folder, and owner/name:split of a Hub dataset, can be typed, too"
    inputs.str(BENCHMARK, label="Benchmark", description=described, required=True, view=choices)
    return None


def _is_in(root: str, benchmark: Benchmark) -> bool:
    """Return whether a folder has the files of a split of a benchmark."""
    from genseg_hub import archives

    if not root:
        return False
    for split in benchmark.splits:
        try:
            archives.check(benchmark.name, _forms.path(root), split)
        except (ValueError, OSError):
            continue
        return True
    return False


def _datasets_on_disk() -> list[str]:
    """Return the ids of datasets in the cache of `huggingface_hub`, newest first.

    The ids keep their case.
    """
    folders = [folder for folder in Path(constants.HF_HUB_CACHE).glob("datasets--*--*") if folder.is_dir()]
    newest = sorted(folders, key=lambda folder: -folder.stat().st_mtime)[:_SHOWN]
    return [folder.name.removeprefix("datasets--").replace("--", "/", 1) for folder in newest]


def _default_split(benchmark: Benchmark) -> str:
    return "val" if "val" in benchmark.splits else next(iter(benchmark.splits))


def _default_name(source: str, split: str) -> str:
    # To FiftyOne, names that differ in "+" alone are one name.
    return "-".join(filter(None, (Path(source).name.replace(":", "-").replace("+", "plus"), split)))


def _check_name(name: str, overwrite: bool) -> None:
    """Raise ValueError unless a dataset can have this name.

    Two datasets cannot have one slug, because the App's addresses are made of slugs.
    """
    if not name.isprintable():
        raise ValueError(f"{name!r} is not a name for a dataset: use letters and digits")
    slug = fou.to_slug(name)
    clash = next((other for other in fo.list_datasets() if fou.to_slug(other) == slug), None)
    if clash == name and not overwrite:
        raise ValueError(f"there is a dataset {name!r} already; choose another name, or replace it")
    if clash not in (None, name):
        raise ValueError(f"the name {name!r} is too much like {clash!r}, the name of another dataset; choose another")
