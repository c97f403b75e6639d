"""Score policies that cheat or answer badly under the GenSeg-R1 recipes' rewards.

python benchmarks/degenerate_policies.py [--examples 60]

Every policy answers two sets of examples: RefScenes, and made-up photographs of 640 x 480 pixels (noise and soft shapes
of any size, a fifth of the expressions without a target). The honest policy knows the true masks and thinks in two
sentences. It moves the sides of each box by up to 5 % of its size. nano's SAM 2 makes the masks of the reward `mask`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from genseg_hub import GenSegR1
from genseg_hub.dialects import genseg
from genseg_hub.schema import InstancePrompt, ReferringExample, decode_mask, encode_mask
from genseg_hub.segmenters.base import Segmenter
from genseg_training import cli, grpo, rewards
from genseg_training.mask_reward import MaskReward
from genseg_training.nano.answers import interior_points
from genseg_training.nano.refscenes import refscenes
from PIL import Image

RECIPES = ("genseg_r1_8b", "genseg_r1_g_8b")
HONEST = "honest"
THOUGHT = (
    "The expression asks for one kind of thing, so I look at each object in turn and compare its colour and its place "
    "with the words. Only these fit."
)
WORDS = "the image shows several objects near each other and each of them may be what the words refer to"

Boxes = list[tuple[float, float, float, float]]
Answer = Callable[[ReferringExample, Boxes, np.random.Generator], str]


def size_of(example: ReferringExample) -> tuple[int, int]:
    """Return (width, height) of an example's image."""
    height, width = np.asarray(example.image).shape[:2]
    return width, height


def true_boxes(example: ReferringExample) -> Boxes:
    """Return the tight boxes of an example's masks, xyxy pixels."""
    found = []
    for rle in example.masks or ():
        ys, xs = np.nonzero(decode_mask(rle))
        found.append((float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)))
    return found


def said(example: ReferringExample, instances: Sequence[InstancePrompt], thought: str = THOUGHT) -> str:
    """Return an answer in the dialect."""
    return genseg.render(thought, list(instances), size_of(example))


def at_centre(box: Sequence[float]) -> InstancePrompt:
    """Return a box with both points at its centre."""
    x1, y1, x2, y2 = box
    centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    return InstancePrompt((x1, y1, x2, y2), (centre, centre))


def apart(box: Sequence[float]) -> InstancePrompt:
    """Return a box with two points on its middle line."""
    x1, y1, x2, y2 = box
    y = (y1 + y2) / 2
    return InstancePrompt((x1, y1, x2, y2), ((x1 + (x2 - x1) / 4, y), (x1 + 3 * (x2 - x1) / 4, y)))


def honest(example: ReferringExample, rng: np.random.Generator) -> list[InstancePrompt]:
    """Return nearly true boxes with points inside the true masks."""
    width, height = size_of(example)
    instances = []
    for rle, (x1, y1, x2, y2) in zip(example.masks or (), true_boxes(example), strict=True):
        left, top, right, bottom = rng.uniform(-0.05, 0.05, 4) * ((x2 - x1, y2 - y1) * 2)
        box = (max(0, x1 + left), max(0, y1 + top), min(width, x2 + right), min(height, y2 + bottom))
        instances.append(InstancePrompt(tuple(map(float, box)), interior_points(decode_mask(rle))))
    return instances


def whole(example: ReferringExample) -> tuple[float, float, float, float]:
    """Return the box of the whole image."""
    return 0.0, 0.0, *map(float, size_of(example))


def grid(example: ReferringExample, side: int) -> list[InstancePrompt]:
    """Return the cells of a grid over the image."""
    width, height = size_of(example)
    xs, ys = (np.linspace(0, length, side + 1) for length in (width, height))
    return [apart((xs[i], ys[j], xs[i + 1], ys[j + 1])) for i in range(side) for j in range(side)]


def around(boxes: Boxes) -> tuple[float, float, float, float]:
    """Return the smallest box around all boxes."""
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return float(low[0]), float(low[1]), float(high[2]), float(high[3])


def near(instances: Sequence[InstancePrompt]) -> list[InstancePrompt]:
    """Return copies of the instances whose boxes are two pixels wider.

    The boxes are wider, because the rewards would recognize exact copies.
    """
    return [InstancePrompt((x1, y1, x2 + 2, y2 + 2), i.points) for i in instances for x1, y1, x2, y2 in [i.box]]


def filler(rng: np.random.Generator, words: int = 900) -> str:
    """Return a thought of random words."""
    return " ".join(rng.choice(WORDS.split(), words))


def inside_the_thought(answer: str) -> str:
    """Return an answer with its instances in the thought, and an empty answer part."""
    return answer.replace("</think><answer>", " ").replace("</answer>", "</think><answer></answer>")


# Beside the honest policy: bad or lazy perception first, then tricks on an answer that is otherwise honest.
POLICIES: dict[str, Answer] = {
    HONEST: lambda e, b, r: said(e, honest(e, r)),
    "whole image": lambda e, b, r: said(e, [apart(whole(e))]),
    "whole image twice": lambda e, b, r: said(e, [apart(whole(e))] * 2),
    "always an empty list": lambda e, b, r: said(e, []),
    "grid of 4 boxes": lambda e, b, r: said(e, grid(e, 2)),
    "grid of 9 boxes": lambda e, b, r: said(e, grid(e, 3)),
    "box at the image's centre": lambda e, b, r: said(
        e, [apart(tuple(np.array(whole(e)) / 2 + np.array(size_of(e) * 2) / 4))]
    ),
    "one box around all": lambda e, b, r: said(e, [apart(around(b))] if b else [apart(whole(e))]),
    "true boxes and the whole image": lambda e, b, r: said(e, [*honest(e, r), apart(whole(e))]),
    "points at the centre": lambda e, b, r: said(e, [at_centre(i.box) for i in honest(e, r)]),
    "every instance twice": lambda e, b, r: said(e, [i for i in honest(e, r) for _ in range(2)]),
    "every instance five times": lambda e, b, r: said(e, [i for i in honest(e, r) for _ in range(5)]),
    "every instance twice, 2 pixels apart": lambda e, b, r: said(e, [*(i := honest(e, r)), *near(i)]),
    "empty thought": lambda e, b, r: said(e, honest(e, r), ""),
    "thought of 1 word": lambda e, b, r: said(e, honest(e, r), "fine"),
    "thought of 1 word, 50 times": lambda e, b, r: said(e, honest(e, r), "fine " * 50),
    "filler thought of 900 words": lambda e, b, r: said(e, honest(e, r), filler(r)),
    "answer inside the thought": lambda e, b, r: inside_the_thought(said(e, honest(e, r))),
    "answer part inside the thought": lambda e, b, r: said(e, honest(e, r)).replace("</think>", "") + "</think>",
    "no thought part": lambda e, b, r: said(e, honest(e, r)).partition("</think>")[2],
    "answer, then more prose": lambda e, b, r: said(e, honest(e, r)) + " I hope that this helps.",
    "two answer parts": lambda e, b, r: said(e, honest(e, r)) + said(e, []).partition("</think>")[2],
    "thought without an answer": lambda e, b, r: f"<think>{THOUGHT}</think>",
    "cut in the middle of the answer": lambda e, b, r: (text := said(e, honest(e, r)))[: len(text) - 14],
}


def photographs(count: int, seed: int = 0) -> Iterator[ReferringExample]:
    """Yield examples on made-up photographs of any size.

    A photograph has one to four soft ellipses on noise.

    Args:
        count: examples.
        seed: seed of the pictures.
    """
    rng = np.random.default_rng(seed)
    width, height = 640, 480
    for number in range(count):
        noise = rng.normal(0, 1, (height // 16, width // 16, 3)).astype(np.float32)
        picture = 128 + 30 * cv2.resize(noise, (width, height)) + rng.normal(0, 8, (height, width, 3))
        masks: list[np.ndarray] = []
        for _ in range(rng.integers(1, 5)):
            mask = np.zeros((height, width), np.uint8)
            axes = tuple(int(v) for v in rng.uniform(0.03, 0.35, 2) * (width, height))
            centre = tuple(int(v) for v in rng.uniform(0.2, 0.8, 2) * (width, height))
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2)[..., None]
            picture = picture * (1 - soft) + soft * (rng.uniform(0, 255, 3) + rng.normal(0, 8, picture.shape))
            masks = [kept & (mask == 0) for kept in masks] + [mask > 0]
        masks = [mask for mask in masks if mask.sum() > 100]
        meant = [] if rng.random() < 0.2 else masks[: int(rng.integers(1, len(masks) + 1))]
        pixels = picture.clip(0, 255).astype(np.uint8)
        rles = tuple(encode_mask(mask) for mask in meant)
        yield ReferringExample(pixels, "the soft shapes", rles, f"photo-{number}", f"photo-{number}")


def scores(recipe: str, examples: Sequence[ReferringExample], segmenter: Segmenter) -> dict[str, float]:
    """Return the mean reward of each policy under a recipe, its weights included.

    Args:
        recipe: name of a recipe of this package.
        examples: examples with masks.
        segmenter: segmenter for the reward `mask`.
    """
    arguments, config, _ = grpo.parse({"config": cli.recipes()[recipe], "use_cpu": True, "report_to": "none"})
    functions = grpo.REWARDS | {grpo.MASK: MaskReward(segmenter)}
    chosen = [rewards.of_template(functions[name], False) for name in arguments.rewards]
    boxes = [true_boxes(example) for example in examples]
    columns = {
        "image": [Image.fromarray(np.asarray(example.image)) for example in examples],
        "image_id": [example.image_id for example in examples],
        "image_size": [size_of(example) for example in examples],
        "boxes": boxes,
        "masks": [list(example.masks or ()) for example in examples],
    }
    means = {}
    for name, policy in POLICIES.items():
        rng = np.random.default_rng(7)  # the same honest answers under every trick
        answers = [policy(example, its, rng) for example, its in zip(examples, boxes, strict=True)]
        values = np.array([function(answers, **columns) for function in chosen], float)
        means[name] = float((np.array(config.reward_weights) @ values).mean())
    return means


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=60, help="examples of each set")
    count = parser.parse_args().examples
    segmenter = GenSegR1.from_pretrained("nano", device="cpu").segmenter
    sets = {"RefScenes": list(refscenes("val", count)), "photographs": list(photographs(count))}
    table = {(recipe, name): scores(recipe, its, segmenter) for recipe in RECIPES for name, its in sets.items()}
    print("| policy |", *(f"{recipe}, {name} |" for recipe, name in table))
    print("|---|" + "---:|" * len(table))
    for policy in POLICIES:
        print(f"| {policy} |", *(f"{column[policy]:.2f} |" for column in table.values()))


if __name__ == "__main__":
    main()
