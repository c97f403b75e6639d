"""Analyse a nano checkpoint: its faults, how often it thinks, and its samples.

    python benchmarks/nano_answers.py --model nano-sft

The queries are about rendered scenes that neither training nor RefScenes has. "box" is the reward `box_iou`. An answer
is wrong when its box reward is below 0.6. The first difference between its think part and the true one names the fault:
the number of shapes, an attribute of a shape, a mark, or the decision.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import transformers
from genseg_hub import checkpoints
from genseg_hub.answers import read
from genseg_hub.dialects import genseg
from genseg_hub.evaluation.metrics import box_iou
from genseg_hub.schema import Response
from genseg_training.nano import answers, expressions, scenes
from genseg_training.rewards import box_iou_reward
from PIL import Image
from tqdm import tqdm

WRONG = 0.6
BATCH = 256  # answers that are generated at once
MAX_NEW_TOKENS = 240
_SEEN = re.compile(r"(\w+) (\w+) (\w+)([+*-]) \d+,\d+")


def generate(model, processor, asked: Sequence[tuple[Image.Image, str]], samples: int, temperature: float):
    """Return the texts that answer each (image, expression), list[list[str]].

    Temperature 0 is greedy.
    """
    sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    texts: list[list[str]] = []
    step = BATCH // samples
    for start in tqdm(range(0, len(asked), step), desc=f"{samples} at {temperature}", leave=False):
        part = asked[start : start + step]
        chats = [genseg.messages(image.size, expression) for image, expression in part]
        inputs = processor(
            text=[processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats],
            images=[image for image, _ in part],
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, num_return_sequences=samples, **sampling)
        said = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        texts += [said[i : i + samples] for i in range(0, len(said), samples)]
    return texts


def score(asked, texts: list[list[str]]) -> np.ndarray:
    """Return the box rewards: float64[N, samples]."""
    count = len(texts[0])
    sizes = [drawn.size for drawn, _ in asked for _ in range(count)]
    boxes = [[shape.box for shape in query.targets] for _, query in asked for _ in range(count)]
    return np.array(box_iou_reward([text for row in texts for text in row], sizes, boxes)).reshape(-1, count)


def fault(drawn: scenes.Scene, query: expressions.SceneQuery, text: str) -> str:
    """Name the first fault of a wrong answer."""
    thought, truth = (_SEEN.findall(t) for t in (text.split("</think>")[0], answers.reasoning(query, drawn)))
    if not thought:
        return "did not think"
    if len(thought) != len(truth):
        return "number of shapes"
    if any(a[:3] != b[:3] for a, b in zip(thought, truth, strict=True)):
        return "attribute of a shape"
    return "mark" if any(a != b for a, b in zip(thought, truth, strict=True)) else "decision or box"


def agreement(a: Response, b: Response) -> float:
    """Return how far two answers agree, in [0, 1]."""
    if not a.instances or not b.instances:
        return float(not a.instances and not b.instances)
    ious = np.array([[box_iou(x.box, y.box) for y in b.instances] for x in a.instances])
    return float(ious.max(1).sum() / max(ious.shape))


def majority(sizes: Sequence[tuple[int, int]], texts: list[list[str]]) -> list[int]:
    """Return, for each query, the index of the sample that agrees most with others.

    Args:
        sizes: (width, height) of each query's image.
        texts: the samples of each query.
    """
    chosen = []
    for size, row in zip(sizes, texts, strict=True):
        parsed = [read(genseg, text, size) for text in row]
        chosen.append(int(np.argmax([np.mean([agreement(a, b) for b in parsed]) for a in parsed])))
    return chosen


def main() -> None:
    """Print the analysis of greedy answers and of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--questions", type=int, default=384, help="how many queries")
    parser.add_argument("--temperatures", type=float, nargs="*", default=[0.7])
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    folder = checkpoints.pull(arguments.model).reasoner
    processor = transformers.AutoProcessor.from_pretrained(folder, padding_side="left")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    asked = []
    for index in range(arguments.questions):
        rng = random.Random(f"analyse-{index}")
        drawn = scenes.scene(rng, allow_held_out=False)
        asked.append((drawn, expressions.refer(rng, drawn, allow_held_out=False)))

    shown = [(Image.fromarray(drawn.image), query.expression) for drawn, query in asked]
    sizes = [drawn.size for drawn, _ in asked]
    texts = generate(model, processor, shown, 1, 0.0)
    boxes = score(asked, texts)[:, 0]
    thinks = np.mean(["<think></think>" not in row[0] for row in texts])
    faults = Counter(fault(*q, row[0]) for q, row, box in zip(asked, texts, boxes, strict=True) if box < WRONG)
    print(f"{arguments.model}, greedy: box {boxes.mean():.3f}, thinks in {thinks:.0%} of {len(asked)} answers")
    print(f"  wrong: {faults.total()}, of which {dict(faults.most_common())}")
    torch.manual_seed(0)
    for temperature in arguments.temperatures:
        texts = generate(model, processor, shown, 8, temperature)
        boxes = score(asked, texts)
        thinks = np.array([["<think></think>" not in text for text in row] for row in texts])
        best = boxes[np.arange(len(asked)), majority(sizes, texts)]
        print(f"8 samples at {temperature}: box {boxes.mean():.3f}, best of 8 {boxes.max(1).mean():.3f}, "
              f"majority of 8 {best.mean():.3f}")  # fmt: skip
        for label, rows in (("samples that think", thinks), ("other samples", ~thinks)):
            if rows.any():
                print(f"  {label}: {rows.mean():.0%}, box {boxes[rows].mean():.3f}")


if __name__ == "__main__":
    main()
