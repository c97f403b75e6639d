"""Read gRefCOCO, whose expressions mean one, several or no instances.

Paper: arXiv 2306.00968. Archive: github.com/henghuiding/gRefCOCO. Its evaluator leaves crowds out of the target. The
reader compares no counts, because the file has changed over the years: it had 259,859 expressions in April 2024
(github.com/henghuiding/gRefCOCO/issues/6), and the paper counts 278,232. References without a sentence are skipped, as
its authors advise (issue 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genseg_hub.archives import refer
from genseg_hub.archives.base import Benchmark, Entry
from genseg_hub.archives.coco_instances import CocoInstances
from genseg_hub.archives.records import read_json


def _files(root: Path, split: str) -> list[Path]:
    return [root / "grefcoco/grefs(unc).json", root / "grefcoco/instances.json", refer.image_folder(root)]


def _entries(root: Path, split: str) -> Iterator[Entry]:
    refs, annotations, images = _files(root, split)
    yield from refer.entries(read_json(refs), CocoInstances(annotations, images), split, refs, generalized=True)


BENCHMARKS = (
    Benchmark(
        name="grefcoco",
        archive="grefs(unc).json and instances.json of github.com/henghuiding/gRefCOCO in grefcoco/, and COCO's "
        "train2014 in images/mscoco/images/train2014/",
        policy="grefcoco",
        splits={"train": {}, "val": {}, "testA": {}, "testB": {}},
        counts_source="",
        attributes=refer.ATTRIBUTES,
        files=_files,
        entries=_entries,
        collection=refer.COLLECTION,
    ),
)
