"""Time the metrics of 100,000 expressions on COCO RLE against dense arrays.

python benchmarks/metrics.py [--out FILE]

The dense loops decode both masks of an expression, as evaluators with array masks do. One loop counts with numpy, as
ReLA's evaluator for gRefCOCO. The other counts with torch.histc, as LISA's validation, which runs on a GPU; here
everything runs on the CPU. The dense loops cost the same for every expression, so they get a share of the expressions
and their seconds are scaled up.
"""

from __future__ import annotations

import math
from itertools import cycle, islice

import numpy as np
import psutil
import torch
from genseg_hub.evaluation.metrics import ReferringMetrics
from genseg_hub.schema import Rle, encode_mask
from pycocotools import mask as coco_mask
from side_by_side import Row, compare, faster, parser, report

EXPRESSIONS, PAIRS, HEIGHT, WIDTH = 100_000, 200, 480, 640
MEMORY_BAR = 50  # MB
Pair = tuple[Rle, Rle]


def blob(random: np.random.Generator, parts: int) -> np.ndarray:
    """Draw the union of ellipses with an uneven edge: bool[480, 640]."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(parts):
        (cx, cy), (rx, ry) = random.uniform((80, 60), (560, 420)), random.uniform(20, 130, 2)
        angle = np.arctan2((ys - cy) / ry, (xs - cx) / rx)
        edge = 1 + sum(random.uniform(0, 0.15) * np.cos(k * angle + random.uniform(0, 6)) for k in (3, 7, 19))
        mask |= np.hypot((xs - cx) / rx, (ys - cy) / ry) < edge
    return mask


def pairs() -> list[Pair]:
    """Draw targets and predictions.

    The predictions are shifted copies, other shapes, and every combination of empty masks.
    """
    random, nothing = np.random.default_rng(0), np.zeros((HEIGHT, WIDTH), bool)
    found = []
    for number in range(PAIRS):
        target = blob(random, 1 + number % 3)
        prediction = np.roll(target, random.integers(-25, 26, 2), (0, 1)) if number % 10 else blob(random, 1)
        if number % 8 == 0:
            target = nothing
        if number % 16 == 0 or number % 20 == 3:
            prediction = nothing
        found.append((encode_mask(target), encode_mask(prediction)))
    return found


def streaming(found: list[Pair], expressions: int) -> tuple[float, float]:
    """Return (cIoU, gIoU) of this project's metrics."""
    metrics = ReferringMetrics("grefcoco")
    for target, prediction in islice(cycle(found), expressions):
        metrics.update(target, prediction)
    figures = metrics.compute()
    return figures["ciou"], figures["giou"]


def dense_numpy(found: list[Pair], expressions: int) -> tuple[float, float]:
    """Return (cIoU, gIoU), counted as ReLA's evaluator does."""
    intersections = unions = 0
    ious = []
    for target, prediction in islice(cycle(found), expressions):
        truth, guess = coco_mask.decode(target), coco_mask.decode(prediction)
        intersection = int(np.sum(np.logical_and(guess, truth)))
        union = int(np.sum(np.logical_or(guess, truth)))
        ious.append(intersection / union if union else 1.0)
        intersections += intersection
        unions += union
    return intersections / unions, float(np.mean(ious))


def dense_torch(found: list[Pair], expressions: int) -> tuple[float, float]:
    """Return (cIoU, gIoU), counted as LISA's validation does.

    Class 1 of two histograms is the target.
    """
    intersections, unions, total = (torch.zeros(2, dtype=torch.float64) for _ in range(3))
    for target, prediction in islice(cycle(found), expressions):
        truth, guess = (torch.from_numpy(coco_mask.decode(rle).T).int().view(-1) for rle in (target, prediction))
        both = torch.histc(guess[guess == truth].float(), bins=2, min=0, max=1)
        either = (
            torch.histc(guess.float(), bins=2, min=0, max=1) + torch.histc(truth.float(), bins=2, min=0, max=1) - both
        )
        intersections += both
        unions += either
        iou = both / (either + 1e-5)
        iou[either == 0] = 1.0
        total += iou
    return float(intersections[1] / unions[1]), float(total[1] / expressions)


def same(ours: tuple[float, float], theirs: tuple[float, float]) -> None:
    """Raise unless the figures agree; LISA's division adds 1e-5."""
    for mine, its in zip(ours, theirs, strict=True):
        if not math.isclose(mine, its, rel_tol=1e-6):
            raise AssertionError(f"our (cIoU, gIoU) is {ours}, theirs is {theirs}")


def memory_growth(found: list[Pair], expressions: int) -> float:
    """Return the growth of this process's peak memory after a warm-up, in MB."""
    streaming(found, 5_000)
    process, metrics = psutil.Process(), ReferringMetrics("grefcoco")
    before = peak = process.memory_info().rss
    for number, (target, prediction) in enumerate(islice(cycle(found), expressions)):
        metrics.update(target, prediction)
        if number % 1000 == 0:
            peak = max(peak, process.memory_info().rss)
    return (peak - before) / 1e6


def main() -> None:
    """Time both dense loops, measure the memory and report the rows."""
    options = parser(__doc__).parse_args()
    less, repetitions = (10, 1) if options.quick else (1, 3)
    found, expressions = pairs(), EXPRESSIONS // less
    growth = memory_growth(found, expressions)
    work = f"metrics of {expressions:,} expressions"
    rows = []
    for name, dense, share in (
        ("dense numpy masks, as ReLA", dense_numpy, 5_000 // less),
        ("dense masks and torch.histc, as LISA", dense_torch, 400 // less),
    ):
        same(streaming(found, share), dense(found, share))
        ours, theirs = compare(
            lambda: streaming(found, expressions),
            lambda dense=dense, share=share: dense(found, share),
            lambda *_: None,  # checked above, on as many expressions
            repetitions,
        )
        scale = expressions // share
        note = f"(theirs: {share:,} expressions, times {scale}; repetitions: {repetitions})"
        rows.append(faster("6", work, name, 10, ours, [scale * seconds for seconds in theirs], note))
    rows.append(
        Row(
            number="6",
            work=f"memory of {work}",
            against="after a warm-up",
            bar=f"< {MEMORY_BAR} MB",
            ours=[],
            theirs=[],
            figure=f"+{growth:.1f} MB",
            holds=growth < MEMORY_BAR,
        )
    )
    report(rows, options.out)


if __name__ == "__main__":
    main()
