"""Time and weigh several questions about an image, against plain `generate`.

python benchmarks/shared_prefix.py

The model has random weights, 4 layers, Qwen3-VL's true head sizes and 768 tokens of the image. Both ways answer the
same chats greedily on the same weights, in one process and in turn; their texts are compared. Seconds are of the CPU. A
repetition begins with the other way than the one before, and has a ratio of its own.
Bytes are of keys and values, kept prefixes included, after the first token of each answer.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

from genseg_hub import GenSegR1
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_training.nano.refscenes import refscenes
from PIL import Image
from warm_image import SIZE, WORDS, random_model

WAYS = {"one image": 1, "as many images": None}


def prompts(model: GenSegR1, count: int, images: int) -> list[Prompt]:
    """Return this many questions about this many images."""
    scenes = [example.image for example in refscenes("val", 4 * images)][::4]
    pictures = [Image.fromarray(scene).resize(SIZE, Image.Resampling.BICUBIC) for scene in scenes]
    return [
        Prompt(pictures[i % images], model.dialect.messages(SIZE, f"the {WORDS[i % len(WORDS)]}"), i % images)
        for i in range(count)
    ]


def answers(reasoner, asked: list[Prompt], batch_size: int) -> list[str]:
    """Return the texts of all answers, in the order of the prompts."""
    session, left, found = reasoner.session(batch_size), [*asked], {}
    while len(found) < len(asked):
        if (room := session.room()) and left:
            session.ask([left.pop(0) for _ in range(min(room, len(left)))])
        found |= {id(prompt): answer.text for prompt, answer in session.advance()}
    return [found[id(prompt)] for prompt in asked]


def held(reasoner, asked: list[Prompt]) -> int:
    """Return the bytes of keys and values: of open questions, and of kept prefixes."""
    reasoner.release()
    rows = reasoner.prefill(asked)
    reasoner.step(rows)
    tensors = [*rows.beginnings.keys, *rows.beginnings.values]
    tensors += [part for layer in rows.layers for part in (layer.keys, layer.values)]
    tensors += [part for kept in reasoner.prefixes._kept.values() for part in (*kept.keys, *kept.values)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def main() -> None:
    """Print seconds and bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--expressions", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    model = random_model(GenSegR1.from_pretrained("nano", device="cpu"), arguments.max_new_tokens)
    ours = model.reasoner
    plain = TransformersReasoner(ours.model, ours.processor, arguments.max_new_tokens)
    for name, images in WAYS.items():
        asked = prompts(model, arguments.expressions, images or arguments.expressions)
        seconds: dict[str, list[float]] = {"continuous": [], "generate": []}
        texts = {}
        for repetition in range(arguments.repetitions):
            for way, reasoner in (("continuous", ours), ("generate", plain))[:: (-1) ** repetition]:
                ours.release()
                started = time.process_time()
                texts[way] = answers(reasoner, asked, arguments.batch_size)
                seconds[way].append(time.process_time() - started)
        quick, slow = (median(seconds[way]) for way in ("continuous", "generate"))
        ratios = sorted(b / a for a, b in zip(seconds["continuous"], seconds["generate"], strict=True))
        same = sum(a == b for a, b in zip(texts["continuous"], texts["generate"], strict=True))
        print(
            f"{len(asked)} expressions of {name}, batch size {arguments.batch_size}: {quick:.1f} s, "
            f"generate {slow:.1f} s, {median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
            f"{same} of {len(asked)} texts equal",
            flush=True,
        )
    one, many = (held(ours, prompts(model, count, 1)) for count in (1, arguments.expressions))
    print(
        f"bytes of 1 expression {one / 1e6:.0f} MB, of {arguments.expressions} {many / 1e6:.0f} MB, {many / one:.2f}x"
    )


if __name__ == "__main__":
    main()
