"""Find images that sources share.

No figure may be measured on an image that was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from genseg_hub import archives
from genseg_hub.errors import ArchiveError

from genseg_training import mixing, rows, sources


def images_of(examples: datasets.Dataset) -> pa.Array:
    """Return the keys of the images of training rows, each once."""
    return pc.unique(mixing.column(examples, rows.IMAGE_KEY))


def shared(examples: datasets.Dataset, images: pa.Array) -> np.ndarray:
    """Return which training rows have one of the images: bool[rows]."""
    return pc.is_in(mixing.column(examples, rows.IMAGE_KEY), value_set=images).to_numpy()


def refuse_shared(training: datasets.Dataset, held_out: datasets.Dataset, name: str) -> None:
    """Raise ValueError if a training row has an image of the held-out rows.

    Args:
        training: training rows.
        held_out: rows that are scored.
        name: name of the held-out source.
    """
    found = shared(training, images_of(held_out))
    if not found.any():
        return
    both = training.select(np.flatnonzero(found))
    images = images_of(both)
    trained_on = ", ".join(pc.unique(mixing.column(both, rows.SOURCE)).to_pylist())
    raise ValueError(
        f"{len(images):,} images of the held-out {name} are also trained on, such as {images[0].as_py()} "
        f"(in {trained_on}): leave them out of training with --exclude {name}, or accept them in "
        "a run with --allow_shared_images true"
    )


def splits_under(root: Path) -> Iterator[str]:
    """Yield NAME:SPLIT of all official archives whose files are under a folder."""
    for name, benchmark in archives.by_name().items():
        for split in benchmark.splits:
            try:
                archives.check(name, root, split)
            except ArchiveError:
                continue
            yield f"{name}:{split}"


def table(asked: Sequence[sources.Source], seed: int = 0) -> str:
    """Return a Markdown table of the numbers of images that sources share.

    Args:
        asked: the sources.
        seed: seed of rendered training scenes.

    Raises:
        ValueError: a source cannot be read.
    """
    images = {str(source): images_of(sources.draw(rows.prepared(source, seed)[0], source)) for source in asked}
    lines = [["images of", "all", *images], ["---", *["---:"] * (len(images) + 1)]]
    lines += [[name, f"{len(own):,}", *_shared_with(name, images)] for name, own in images.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shared_with(name: str, images: Mapping[str, pa.Array]) -> Iterator[str]:
    for other, its in images.items():
        yield "-" if other == name else f"{pc.sum(pc.is_in(images[name], value_set=its)).as_py() or 0:,}"
