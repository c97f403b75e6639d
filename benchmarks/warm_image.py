"""Time the second question about an image, with and without a warm model.

python benchmarks/warm_image.py

A warm model keeps prefixes and embeddings of the first question. Seconds are medians: of the clock, and of the CPU,
which other programs disturb less. The picture has 1024 x 768 pixels.
Nano sees it with its own 64 tokens, as always. The other model has random weights, a few layers, Qwen3-VL's true head
sizes and 768 tokens of the image; its answers end after a few tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import transformers
from genseg_hub import GenSegR1, ReferringExample
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_training.nano.refscenes import refscenes
from PIL import Image

SIZE = (1024, 768)
# Qwen3-VL-4B's heads, with 4 of its 36 layers and 6 of its 24 in the vision tower.
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "head_dim": 128,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
VISION = {"hidden_size": 1024, "intermediate_size": 2048, "num_heads": 16, "depth": 6, "out_hidden_size": 1024}
WORDS = ("star", "circle", "square", "triangle", "red shape", "blue shape", "green shape", "largest shape")


def random_model(nano: GenSegR1, max_new_tokens: int) -> GenSegR1:
    """Return a Qwen3-VL of few layers with random weights, and nano's segmenter."""
    config = transformers.AutoConfig.from_pretrained(EMBEDDED["nano"])
    settings = config.to_dict()
    settings["text_config"] |= TEXT
    settings["vision_config"] |= VISION
    torch.manual_seed(0)
    config = transformers.Qwen3VLConfig.from_dict(settings | {"dtype": "float32"})
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config = nano.reasoner.model.generation_config
    pixels = SIZE[0] * SIZE[1]
    processor = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"], min_pixels=pixels, max_pixels=pixels)
    return GenSegR1(ContinuousReasoner(model, processor, max_new_tokens), nano.segmenter, nano.dialect)


class Seconds(list[tuple[float, float]]):
    """Seconds of repeated calls, by the clock and of the CPU."""

    def of(self, run: Callable[[], object]) -> None:
        """Add the seconds of a call."""
        clock, cpu = time.perf_counter(), time.process_time()
        run()
        self.append((time.perf_counter() - clock, time.process_time() - cpu))

    @property
    def cpu(self) -> float:
        """Return the median seconds of the CPU."""
        return median(cpu for _, cpu in self)

    def __str__(self) -> str:
        return f"{median(clock for clock, _ in self):.3f} s, {self.cpu:.3f} s of CPU"


def questions(name: str, model: GenSegR1, picture: Path, repetitions: int) -> None:
    """Print the seconds of a first and a second question.

    The second question is also asked without kept prefixes and embeddings.
    """
    model.segment(picture, "the shape")  # warm up
    cold, warm, again = Seconds(), Seconds(), Seconds()
    early, late = Seconds(), Seconds()
    for _ in range(repetitions):
        model.release()
        cold.of(lambda: model.segment(picture, "the red star"))
        warm.of(lambda: model.segment(picture, "the blue circle"))
        early.of(lambda: first_text(model, picture))
        model.release()
        again.of(lambda: model.segment(picture, "the blue circle"))
        model.release()
        late.of(lambda: first_text(model, picture))
    print(f"{name}, first question: {cold}")
    print(f"{name}, second question: {warm}")
    print(f"{name}, second question with nothing kept: {again}")
    print(f"{name}, what is kept makes the second question {again.cpu / warm.cpu:.2f}x as fast")
    print(f"{name}, until the first text of an answer: {early}; with nothing kept: {late}", flush=True)


def first_text(model: GenSegR1, picture: Path) -> None:
    """Ask, and stop at the first state with text."""
    states = model.ask(picture, "the green triangle")
    next(state for state in states if state.text)
    states.close()


def prefixes(model: GenSegR1, picture: Path, count: int, batch_size: int) -> int:
    """Return how often the reasoner looks at an image with so many expressions."""
    looked = []
    visual = model.reasoner.model.model.visual
    forward = visual.forward

    def counting(*args, grid_thw, **options):
        looked.append(len(grid_thw))
        return forward(*args, grid_thw=grid_thw, **options)

    asked = [f"the {WORDS[i % len(WORDS)]}{' or another' * (i // len(WORDS))}" for i in range(count)]
    model.release()
    visual.forward = counting
    try:
        list(model.segment_many([ReferringExample(str(picture), words) for words in asked], batch_size))
    finally:
        visual.forward = forward
    return sum(looked)


def main() -> None:
    """Print the seconds of questions and the prefix computations of an image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=8, help="token limit of the random model")
    arguments = parser.parse_args()
    nano = GenSegR1.from_pretrained("nano", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "scene.png"
        scene = next(iter(refscenes("val", 1))).image
        Image.fromarray(scene).resize(SIZE, Image.Resampling.BICUBIC).save(picture)
        questions("nano", nano, picture, arguments.repetitions)
        questions("random Qwen3-VL", random_model(nano, arguments.max_new_tokens), picture, arguments.repetitions)
        for count in (8, 32):
            found = prefixes(nano, picture, count, arguments.batch_size)
            print(f"nano, {count} expressions of an image, batch size {arguments.batch_size}: {found} prefixes")


if __name__ == "__main__":
    main()
