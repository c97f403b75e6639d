"""Training data of GRPO: referring examples from any source, as the rows that TRL and the rewards read.

This module knows neither rewards nor trainers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
from genseg_hub import referring_dataset
from genseg_hub.dialects import genseg
from genseg_hub.errors import ImageError
from genseg_hub.image_files import swapped
from genseg_hub.images import image_size, load_image
from genseg_hub.referring_dataset import FEATURES
from pycocotools import mask as coco_mask

from genseg_training.nano.refscenes import VERSION, refscenes, training_examples

REFSCENES = "refscenes"
_ROW = {
    "prompt": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
    "image_id": datasets.Value("string"),
    "image_size": datasets.List(datasets.Value("int32"), 2),
    "boxes": datasets.List(datasets.List(datasets.Value("float32"), 4)),
}


def load_source(source: str, seed: int = 0) -> datasets.Dataset:
    """Load referring examples with `referring_dataset.FEATURES`.

    Args:
        source: `refscenes:COUNT` for rendered training scenes; `refscenes:val` or `refscenes:val:COUNT` for the fixed
            split; a folder that `Dataset.save_to_disk` or the App's export wrote; or a dataset on the Hub, `owner/name`
            or `owner/name:SPLIT`, the split `train` by default.
        seed: of rendered training scenes.

    Raises:
        ValueError: for any other source, or missing columns.
    """
    if source.partition(":")[0] == REFSCENES:
        return _refscenes(source, seed)
    return referring_dataset.load_examples(source).select_columns(list(FEATURES))


def check_source(source: str) -> None:
    """Raise ValueError unless `load_source` may find a source; load nothing and ask no network.

    Args:
        source: as `load_source` takes it.
    """
    if source.partition(":")[0] == REFSCENES:
        _asked_of_refscenes(source)
        return
    referring_dataset.check_source(source, f"rendered scenes ({REFSCENES}:COUNT)")


def _asked_of_refscenes(source: str) -> re.Match[str]:
    """Return the groups `count` (for training) and `limit` (of the split val); raise ValueError for anything else."""
    asked = re.fullmatch(rf"{REFSCENES}:(?:(?P<count>[1-9]\d*)|val(?::(?P<limit>[1-9]\d*))?)", source)
    if not asked:
        raise ValueError(
            f"{source!r} is none of {REFSCENES}:10000 (that many expressions for training), {REFSCENES}:val and "
            f"{REFSCENES}:val:400; the test split is for final figures alone"
        )
    return asked


def _refscenes(source: str, seed: int) -> datasets.Dataset:
    asked = _asked_of_refscenes(source)
    if asked["count"]:
        settings = {"count": int(asked["count"]), "seed": seed, "version": VERSION}
        return datasets.Dataset.from_generator(_rendered, gen_kwargs=settings, features=FEATURES)
    return referring_dataset.to_dataset(refscenes("val", int(asked["limit"]) if asked["limit"] else None))


def _rendered(count: int, seed: int, version: str) -> Iterator[dict]:
    """Yield rows of rendered scenes; `datasets` caches them under these arguments."""
    yield from referring_dataset.to_rows(training_examples(count, seed))


def mix(parts: Sequence[datasets.Dataset], weights: Sequence[float], seed: int = 0) -> datasets.Dataset:
    """Draw from several datasets with the given weights until one is used up.

    Args:
        parts: the datasets.
        weights: how often each is drawn from, in relation to the others.
        seed: of the draws.

    Raises:
        ValueError: unless there are as many positive weights as datasets.
    """
    if len(parts) != len(weights) or min(weights, default=0) <= 0:
        raise ValueError(f"{len(parts)} datasets need as many positive weights, got {list(weights)}")
    total = sum(weights)
    return datasets.interleave_datasets(list(parts), [weight / total for weight in weights], seed=seed)


def with_no_target_share(examples: datasets.Dataset, share: float, seed: int = 0) -> datasets.Dataset:
    """Draw as many examples as a share of no-target examples allows, at random and from all images alike.

    The second example of an image is drawn after the first of every other image. So an image whose examples are not all
    drawn keeps both kinds, where it has both.

    Args:
        examples: with and without targets.
        share: of no-target examples in the result, in [0, 1].
        seed: of the draw and of the order.

    Raises:
        ValueError: for a share outside [0, 1], or when the share needs a kind that does not occur.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of no-target examples must be between 0 and 1, got {share}")
    empty = [not masks for masks in examples["masks"]]
    without = [i for i, is_empty in enumerate(empty) if is_empty]
    targets = [i for i, is_empty in enumerate(empty) if not is_empty]
    if (share > 0 and not without) or (share < 1 and not targets):
        raise ValueError(f"a share of {share} is impossible: {len(without)} examples have no target, {len(targets)} do")
    total = min(
        len(without) / share if share else len(targets), len(targets) / (1 - share) if share < 1 else len(without)
    )
    n_without = round(total * share)
    rng, images = np.random.default_rng(seed), examples["image_id"]
    chosen = _balanced(without, images, n_without, rng) + _balanced(targets, images, round(total) - n_without, rng)
    return examples.select(sorted(chosen)).shuffle(seed=seed)


def _balanced(indices: Sequence[int], image_ids: Sequence[str], count: int, rng: np.random.Generator) -> list[int]:
    """Draw `count` of the indices in rounds; each round draws at most one of every image."""
    of_image = Counter[str]()
    rounds = []
    for index in rng.permutation(indices).tolist():
        image = image_ids[index] or f"\0{index}"  # an example without an id has an image of its own
        rounds.append((of_image[image], index))
        of_image[image] += 1
    return [index for _, index in sorted(rounds, key=lambda drawn: drawn[0])[:count]]


def check(examples: datasets.Dataset) -> None:
    """Raise ValueError for the first example that cannot be trained on.

    The message names the example: its image cannot be read, its expression is empty, or a mask is empty or has another
    size than its image.

    Args:
        examples: with `referring_dataset.FEATURES`.
    """
    for row in examples.cast_column("image", datasets.Image(decode=False)):
        where = f"example {row['example_id']!r}"
        try:
            size = load_image(_content(row["image"])).size
        except ImageError as error:
            raise ValueError(f"{where}: {error}") from error
        genseg.messages(size, row["expression"])  # raises ValueError for an empty expression
        for rle in row["masks"]:
            its = rle["size"][1], rle["size"][0]
            if its != size:
                raise ValueError(f"{where}: a mask is {its[0]} x {its[1]}, its image {size}{swapped(size, its)}")
            if not coco_mask.area(rle):
                raise ValueError(f"{where}: a mask is empty; leave it out, because a no-target example has no masks")


def to_rows(examples: datasets.Dataset) -> datasets.Dataset:
    """Turn examples into the rows that TRL and the rewards read.

    A row has `prompt` (chat messages; TRL puts the image before the request), `image` (as `load_image` returns it, when
    the row is read), `image_size` (width, height), `boxes` (xyxy pixels) and `masks` (COCO RLE) of the true instances,
    and `image_id`, which examples of one image share.

    Args:
        examples: with `referring_dataset.FEATURES`.
    """
    columns: dict[str, list] = {name: [] for name in _ROW}
    examples = examples.cast_column("image", datasets.Image(decode=False))
    for example in examples:
        size = image_size(_content(example["image"]))
        prompt = [
            {"role": message["role"], "content": "".join(part.get("text", "") for part in message["content"])}
            for message in genseg.messages(size, example["expression"])
        ]
        boxes = []
        for rle in example["masks"]:
            x, y, w, h = coco_mask.toBbox(rle).tolist()
            boxes.append([x, y, x + w, y + h])
        image_id = example["image_id"] or f"row {len(columns['prompt'])}"
        for name, value in zip(_ROW, (prompt, image_id, list(size), boxes), strict=True):
            columns[name].append(value)
    rows = examples.select_columns(["image", "masks"])  # as stored: not decoded and encoded again
    for name, feature in _ROW.items():
        rows = rows.add_column(name, columns[name], feature=feature)
    return rows.with_transform(_with_pictures)


def _with_pictures(batch: dict[str, list]) -> dict[str, list]:
    """Read the pictures of rows as inference does; `datasets` would read them in ways of its own."""
    if "image" in batch:
        batch["image"] = [load_image(_content(stored)) for stored in batch["image"]]
    return batch


def _content(stored: dict[str, Any]) -> bytes | str:
    return stored["path"] if stored["bytes"] is None else stored["bytes"]
