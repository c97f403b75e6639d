"""Read RefCOCO, RefCOCO+ and RefCOCOg: the archives of the REFER toolkit.

The toolkit is github.com/lichengunc/refer. `refs(AUTHORS).p` lists references: annotations of `instances.json` with the
sentences that people wrote for them. Each sentence is an expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from genseg_hub.archives import refer
from genseg_hub.archives.base import Benchmark, Entry
from genseg_hub.archives.coco_instances import CocoInstances
from genseg_hub.archives.unpickling import load_plain


def _files(folder: str, authors: str, root: Path, split: str) -> list[Path]:
    return [root / folder / f"refs({authors}).p", root / folder / "instances.json", refer.image_folder(root)]


def _entries(folder: str, authors: str, root: Path, split: str) -> Iterator[Entry]:
    refs, annotations, images = _files(folder, authors, root, split)
    yield from refer.entries(load_plain(refs), CocoInstances(annotations, images), split, refs)


def _benchmark(
    name: str, folder: str, authors: str, expressions: str, splits: Mapping[str, tuple[int, int, int | None]]
) -> Benchmark:
    counted = ("refs", "images", "expressions")
    return Benchmark(
        name=name,
        archive=f"{folder}.zip of github.com/lichengunc/refer and COCO's train2014, as {folder}/refs({authors}).p, "
        f"{folder}/instances.json and images/mscoco/images/train2014/",
        policy="refcoco",
        splits={
            split: {what: number for what, number in zip(counted, numbers, strict=True) if number is not None}
            for split, numbers in splits.items()
        },
        counts_source=f"refs, images: TensorFlow Datasets, catalog/ref_coco; expressions: {expressions}",
        attributes=refer.ATTRIBUTES,
        files=partial(_files, folder, authors),
        entries=partial(_entries, folder, authors),
        collection=refer.COLLECTION,
    )


_REF_L4 = "all but train together: Ref-L4, huggingface.co/datasets/JierunChen/Ref-L4"
# The publisher of the numbers of expressions; split -> published numbers of references, images and expressions.
BENCHMARKS = (
    _benchmark(
        "refcoco",
        "refcoco",
        "unc",
        "FlagEval's RefCOCO page",
        {
            "train": (42404, 16994, 120624),
            "val": (3811, 1500, 10834),
            "testA": (1975, 750, 5657),
            "testB": (1810, 750, 5095),
        },
    ),
    _benchmark(
        "refcoco+",
        "refcoco+",
        "unc",
        f"counted by users of refs(unc).p; {_REF_L4}",
        {
            "train": (42278, 16992, 120191),
            "val": (3805, 1500, 10758),
            "testA": (1975, 750, 5726),
            "testB": (1798, 750, 4889),
        },
    ),
    _benchmark(
        "refcocog",
        "refcocog",
        "umd",
        f"test, and train and val together: varun-nagaraja/referring-expressions issue 2; {_REF_L4}",
        {"train": (42226, 21899, 80512), "val": (2573, 1300, 4896), "test": (5023, 2600, 9602)},
    ),
    _benchmark(
        "refcoco-google",
        "refcoco",
        "google",
        "nobody",
        {"train": (40000, 19213, None), "val": (5000, 4559, None), "test": (5000, 4527, None)},
    ),
    _benchmark(
        "refcocog-google", "refcocog", "google", "nobody", {"train": (44822, 24698, None), "val": (5000, 4650, None)}
    ),
)
