"""Time an evaluation of 20,000 expressions against FiftyOne's of detections.

python benchmarks/evaluation.py

Both read the same dataset in a real database: one sample per expression and three expressions per image. A sample has 1
to 3 instances, with masks of 100 to 300 pixels a side, stored as "Referring segment" stores them; 15 % of the samples
have no target. There are no image files, because neither evaluation reads any. Both write verdict, counterpart and IoU
on every label and counts on every sample, and keep their results. Ours also measures unions, boxes, failure kinds and
metrics of referring segmentation.

The script requires equal true positives, false positives and false negatives on every sample. Instances of an image
hardly overlap, so that at IoU 0.5 pairing by confidence (FiftyOne's) and the best pairing (ours) agree.
"""

from own_database import fo  # isort: skip
import numpy as np
from bson import ObjectId
from side_by_side import compare, faster, parser, report

from fiftyone_genseg import evaluate, labels, outputs

WIDTH, HEIGHT = 640, 480
PER_IMAGE = 3
DISTINCT = 400  # samples that FiftyOne makes; the others are copies with new ids, which is faster
NO_TARGET = 0.15


def blob(rng: np.random.Generator, centre: float, size: tuple[float, float]) -> np.ndarray:
    """Draw an ellipse with an uneven edge around (centre, H / 2): bool[H, W]."""
    left, right = max(0, int(centre - size[0] / 2)), min(WIDTH, int(centre + size[0] / 2) + 1)
    y, x = np.ogrid[:HEIGHT, left:right]
    dy, dx = (y - HEIGHT / 2) / (size[1] / 2), (x - centre) / (size[0] / 2)
    angle = np.arctan2(dy, dx)
    edge = 1 - sum(rng.uniform(0, 0.06) * (1 + np.sin(k * angle + rng.uniform(0, 6))) / 2 for k in (3, 8))
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, left:right] = np.hypot(dx, dy) < edge
    return mask


def labelled(rng: np.random.Generator) -> tuple[fo.Detections, fo.Detections]:
    """Draw the true instances of an expression, and an answer with errors."""
    truth, answer = [], []
    count = int(rng.integers(1, 4)) if rng.random() > NO_TARGET else 0
    for i in range(count):
        size = rng.uniform(100, min(300, WIDTH / count)), rng.uniform(100, 300)
        centre = WIDTH * (i + 0.5) / count
        truth.append(labels.detection_from_mask(blob(rng, centre, size), label=labels.LABEL))
        if rng.random() < 0.9:
            moved = centre + rng.normal(0, 0.2) * size[0]
            answer.append(blob(rng, moved, (size[0] * rng.uniform(0.8, 1.1), size[1] * rng.uniform(0.8, 1.1))))
    if rng.random() < 0.1:
        answer.append(blob(rng, rng.uniform(100, 540), (100, 100)))
    found = [
        labels.detection_from_mask(m, label=labels.LABEL, expression="it", confidence=rng.uniform(0.5, 1))
        for m in answer
    ]
    return fo.Detections(detections=truth), fo.Detections(detections=found)


def path_of(number: int) -> str:
    """Return the path of a sample's image, which does not exist."""
    return f"/none/{number // PER_IMAGE}.jpg"


def expressions(name: str, count: int, seed: int = 0) -> fo.Dataset:
    """Make a dataset of `count` expressions, one per sample."""
    rng = np.random.default_rng(seed)
    dataset = fo.Dataset(name)
    outputs.declare_fields(dataset, "genseg")
    samples = []
    for number in range(min(DISTINCT, count)):
        truth, found = labelled(rng)
        metadata = fo.ImageMetadata(width=WIDTH, height=HEIGHT)
        samples.append(fo.Sample(path_of(number), metadata=metadata, expression="it", ground_truth=truth, genseg=found))
    dataset.add_samples(samples)
    stored = list(dataset._sample_collection.find())
    for start in range(len(stored), count, len(stored)):
        copies = stored[: count - start]
        for number, copy in enumerate(copies, start):
            copy |= {"_id": ObjectId(), "filepath": path_of(number)}
            for name in ("ground_truth", "genseg"):
                for detection in copy[name]["detections"]:
                    detection["_id"] = ObjectId()
        dataset._sample_collection.insert_many(copies)
    dataset.reload()
    return dataset


def main() -> None:
    """Time both evaluations on one dataset and report the row."""
    known = parser(__doc__)
    known.add_argument("--expressions", type=int, help="20,000 by default; with --quick 1,000")
    known.add_argument("--repetitions", type=int, help="3 by default; with --quick 1")
    options = known.parse_args()
    count = options.expressions or (1_000 if options.quick else 20_000)
    repetitions = options.repetitions or (1 if options.quick else 3)
    dataset = expressions("evaluation", count)

    def ours():
        evaluate(dataset, "genseg", "ground_truth", eval_key="ours", progress=False)
        return [dataset.values(f"ours_{verdict}") for verdict in ("tp", "fp", "fn")]

    def theirs():
        dataset.evaluate_detections(
            "genseg", gt_field="ground_truth", eval_key="theirs", use_masks=True, iou=0.5, progress=False
        )
        return [dataset.values(f"theirs_{verdict}") for verdict in ("tp", "fp", "fn")]

    def check(mine, its):
        for verdict, a, b in zip(("tp", "fp", "fn"), mine, its, strict=True):
            differ = np.flatnonzero(np.array(a) != np.array(b))
            print(f"{verdict}: {sum(a)} and {sum(b)}, {len(differ)} of {len(a)} samples differ", flush=True)
            if len(differ):
                raise AssertionError(f"{verdict} of samples {differ[:5].tolist()} differ")

    seconds = compare(ours, theirs, check, repetitions)
    note = f"repetitions: {repetitions}; ours also measures unions, boxes and failure kinds."
    work = f"evaluation of {count:,} expressions"
    report([faster("7", work, "FiftyOne evaluate_detections(use_masks=True)", 3, *seconds, note)], options.out)


if __name__ == "__main__":
    main()
