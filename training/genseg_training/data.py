"""Training data of GRPO: referring examples from anywhere, as the rows that TRL and the rewards read.

Nothing here knows rewards or trainers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import datasets
from genseg_hub import referring_dataset
from genseg_hub.dialects import genseg
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
    """Referring examples with `referring_dataset.FEATURES`.

    Args:
        source: `refscenes:COUNT` (rendered scenes for training), `refscenes:val` or `refscenes:val:COUNT` (its fixed
            split), a folder that `Dataset.save_to_disk` wrote (what the App exports), or a dataset on the Hub,
            `owner/name` or `owner/name:SPLIT`, the split `train` by default.
        seed: of rendered scenes for training.

    Raises:
        ValueError: for a source that is none of these, or whose columns are others.
    """
    if source.partition(":")[0] == REFSCENES:
        return _refscenes(source, seed)
    return referring_dataset.load_examples(source).select_columns(list(FEATURES))


def _refscenes(source: str, seed: int) -> datasets.Dataset:
    asked = re.fullmatch(rf"{REFSCENES}:(?:(?P<count>[1-9]\d*)|val(?::(?P<limit>[1-9]\d*))?)", source)
    if not asked:
        raise ValueError(
            f"{source!r} is none of {REFSCENES}:10000 (that many expressions for training), {REFSCENES}:val and "
            f"{REFSCENES}:val:400; the test split is for final figures alone"
        )
    if asked["count"]:
        settings = {"count": int(asked["count"]), "seed": seed, "version": VERSION}
        return datasets.Dataset.from_generator(_rendered, gen_kwargs=settings, features=FEATURES)
    return referring_dataset.to_dataset(refscenes("val", int(asked["limit"]) if asked["limit"] else None))


def _rendered(count: int, seed: int, version: str) -> Iterator[dict]:
    """Rows of rendered scenes. `datasets` writes them to its cache once and finds them there by these arguments."""
    yield from referring_dataset.to_rows(training_examples(count, seed))


def mix(parts: Sequence[datasets.Dataset], weights: Sequence[float], seed: int = 0) -> datasets.Dataset:
    """Draw from several datasets with the given weights until one is used up.

    Raises:
        ValueError: when there are not as many positive weights as datasets.
    """
    if len(parts) != len(weights) or min(weights, default=0) <= 0:
        raise ValueError(f"{len(parts)} datasets need as many positive weights, got {list(weights)}")
    total = sum(weights)
    return datasets.interleave_datasets(list(parts), [weight / total for weight in weights], seed=seed)


def with_no_target_share(examples: datasets.Dataset, share: float, seed: int = 0) -> datasets.Dataset:
    """As many examples as possible with this share of no-target ones, shuffled.

    Raises:
        ValueError: for a share outside [0, 1], or when a kind that is needed does not occur.
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
    chosen = without[:n_without] + targets[: round(total) - n_without]
    return examples.select(sorted(chosen)).shuffle(seed=seed)


def check(examples: datasets.Dataset) -> None:
    """Raise ValueError naming the first example that cannot be trained on: an empty expression, or a mask that is empty
    or of another size than its image."""
    for row in examples:
        where = f"example {row['example_id']!r}"
        genseg.messages(row["image"].size, row["expression"])  # raises for an expression that cannot be asked
        for rle in row["masks"]:
            width, height = rle["size"][1], rle["size"][0]
            if (width, height) != row["image"].size:
                raise ValueError(f"{where}: a mask is {width} x {height}, its image {row['image'].size}")
            if not coco_mask.area(rle):
                raise ValueError(f"{where}: a mask is empty; leave it out, no-target is no mask at all")


def to_rows(examples: datasets.Dataset) -> datasets.Dataset:
    """The rows that TRL and the rewards read: `prompt` (chat, the image's place before the request), `image`,
    `image_size` (width, height), `boxes` (xyxy pixels) and `masks` (COCO RLE) of the true instances, and `image_id`,
    equal for examples of the same image."""

    columns: dict[str, list] = {name: [] for name in _ROW}
    for example in examples:
        size = example["image"].size
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
    rows = examples.select_columns(["image", "masks"])  # as they are stored, not decoded and encoded again
    for name, feature in _ROW.items():
        rows = rows.add_column(name, columns[name], feature=feature)
    return rows
