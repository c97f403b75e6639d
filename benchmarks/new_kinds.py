"""Score nano per kind of expression: greedy, best of several samples, majority.

    python benchmarks/new_kinds.py score --model nano --kinds new --rows runs/new_kinds/nano.jsonl
    python benchmarks/new_kinds.py compare runs/new_kinds/nano.jsonl runs/new_kinds/r1.jsonl

`score` answers the expressions of RefScenes (`--kinds shown`), or expressions of `expressions.NEW_KINDS` about the same
scenes (`--kinds new`). The IoU is of the masks; an expression without a target has IoU 1 for an empty answer and 0 for
any other. pass@1 is the greedy answer. pass@k is the share of expressions for which one of k samples has an IoU of at
least 0.5. "best" is the mean of the highest IoU. "majority" is the sample whose boxes agree most with the others'.

`compare` shows the differences of the greedy mIoU in points, with paired 95 % intervals of a bootstrap over images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from genseg_hub import checkpoints
from genseg_hub.images import load_image
from genseg_hub.schema import ReferringExample
from genseg_hub.segmenters.loading import load_segmenter
from genseg_training.frozen_tower import encode_once
from genseg_training.mask_reward import MaskReward
from genseg_training.nano.expressions import EXPRESSION_KINDS, NEW_KINDS
from genseg_training.nano.refscenes import CONTROL, refscenes
from nano_answers import generate, majority

HIT = 0.5
KINDS: dict[str, Mapping[str, int]] = {"shown": EXPRESSION_KINDS, "new": NEW_KINDS}
RESAMPLES = 2000


def ious(reward: MaskReward, asked: Sequence[ReferringExample], texts: list[list[str]]) -> np.ndarray:
    """Return the mask IoU of each answer, float64[examples, samples]."""
    count = len(texts[0])

    def column(values: Sequence) -> list:
        return [value for value in values for _ in range(count)]

    scores = reward(
        [text for row in texts for text in row],
        image=column([load_image(example.image) for example in asked]),
        image_id=column([example.image_id for example in asked]),
        masks=column([example.masks for example in asked]),
    )
    return np.array(scores, dtype=float).reshape(-1, count)


def score(arguments: argparse.Namespace) -> None:
    """Answer the examples, write a row for each, and print the table."""
    transformers.logging.set_verbosity_error()
    started = time.monotonic()
    checkpoint = checkpoints.pull(arguments.model)
    processor = transformers.AutoProcessor.from_pretrained(checkpoint.reasoner, padding_side="left")
    model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint.reasoner, dtype=torch.float32).eval()
    encode_once(model.model.visual)
    reward = MaskReward(load_segmenter(checkpoint.segmenter, checkpoint.segmenter_config, torch.device("cpu")))
    asked = list(refscenes(arguments.split, arguments.limit, KINDS[arguments.kinds]))
    shown = [(load_image(example.image), example.expression) for example in asked]
    greedy = generate(model, processor, shown, 1, 0.0)
    rows = [
        {
            "example_id": example.example_id,
            "image_id": example.image_id,
            "expression": example.expression,
            **example.attributes,
            "iou": float(value),
            "text": row[0],
        }
        for example, row, value in zip(asked, greedy, ious(reward, asked, greedy)[:, 0], strict=True)
    ]
    if arguments.samples:
        torch.manual_seed(0)
        texts = generate(model, processor, shown, arguments.samples, arguments.temperature)
        values, chosen = ious(reward, asked, texts), majority([image.size for image, _ in shown], texts)
        for row, sampled, index in zip(rows, values, chosen, strict=True):
            row |= {"samples": [round(float(v), 4) for v in sampled], "majority": float(sampled[index])}
    print(f"{arguments.model}, RefScenes {arguments.split} with {arguments.kinds} kinds, "
          f"{arguments.samples} samples at {arguments.temperature}: {time.monotonic() - started:.0f} s")  # fmt: skip
    if arguments.rows:
        arguments.rows.parent.mkdir(parents=True, exist_ok=True)
        arguments.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(table(rows, arguments.samples))


def by_kind(rows: list[dict]) -> dict[str, list[dict]]:
    """Return the rows of each kind.

    The group "all" has all rows. The group "rewarded" has the new kinds that the recipe rewards.
    """
    groups: dict[str, list[dict]] = defaultdict(list, all=rows)
    rewarded = [row for row in rows if row["kind"] in NEW_KINDS and row["kind"] != CONTROL]
    if rewarded:
        groups["rewarded"] = rewarded
    for row in rows:
        groups[row["kind"]].append(row)
    return groups


def table(rows: list[dict], samples: int) -> str:
    """Return the figures of each kind as a Markdown table."""
    headings = ["kind", "n", "mIoU", "pass@1"]
    headings += ["sampled mIoU", f"pass@{samples}", f"best of {samples}", f"majority of {samples}"] if samples else []
    lines = [f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
    for kind, part in by_kind(rows).items():
        greedy = np.array([row["iou"] for row in part])
        cells = [greedy.mean(), (greedy >= HIT).mean()]
        if samples:
            sampled = np.array([row["samples"] for row in part])
            best = sampled.max(1)
            cells += [sampled.mean(), (best >= HIT).mean(), best.mean(), np.mean([row["majority"] for row in part])]
        lines.append(f"| {kind} | {len(part)} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    return "\n".join(lines)


def compare(arguments: argparse.Namespace) -> None:
    """Print the paired differences of other rows against the first.

    Several other rows are seeds of one training, so their mean is compared, too.
    """
    base = {row["example_id"]: row for row in _rows(arguments.base)}
    others = {file.stem: _rows(file) for file in arguments.others}
    if len(others) > 1:
        ious = np.mean([[row["iou"] for row in rows] for rows in others.values()], axis=0)
        others["mean"] = [row | {"iou": float(iou)} for row, iou in zip(_rows(arguments.others[0]), ious, strict=True)]
    print("| rows | kind | n | mIoU before | mIoU | points, 95 % |\n|---|---|---:|---:|---:|---|")
    for name, rows in others.items():
        for kind, part in by_kind(rows).items():
            before = np.array([base[row["example_id"]]["iou"] for row in part])
            after = np.array([row["iou"] for row in part])
            low, high = interval(after - before, [row["image_id"] for row in part])
            print(f"| {name} | {kind} | {len(part)} | {before.mean():.3f} | {after.mean():.3f} "
                  f"| {100 * (after - before).mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] |")  # fmt: skip


def interval(differences: np.ndarray, images: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by a bootstrap over images."""
    _, of = np.unique(np.array(images), return_inverse=True)
    sums, counts = np.bincount(of, differences), np.bincount(of)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def _rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("score", help="answer expressions and print figures per kind")
    command.add_argument("--model", default="nano", help="nano, nano-sft, or a checkpoint folder")
    command.add_argument("--kinds", choices=list(KINDS), default="new")
    command.add_argument("--split", choices=["val", "test"], default="test")
    command.add_argument("--limit", type=int, help="only the first expressions")
    command.add_argument("--samples", type=int, default=8, help="0 for the greedy answer alone")
    command.add_argument("--temperature", type=float, default=1.0)
    command.add_argument("--rows", type=Path, help="JSONL file for each expression")
    command.set_defaults(run=score)
    command = commands.add_parser("compare", help="paired differences of greedy mIoU per kind")
    command.add_argument("base", type=Path)
    command.add_argument("others", type=Path, nargs="+")
    command.set_defaults(run=compare)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
