"""Feed every dialect random and mutated answers.

python benchmarks/fuzz_parsers.py --answers 100000

No dialect may raise an error. Every box must lie in the image, and every point near the image.
"""

import argparse
import random
import string
import time
from collections import Counter

from genseg_hub import answers, dialects
from genseg_training.nano.answers import answer
from genseg_training.nano.expressions import refer
from genseg_training.nano.scenes import scene

PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "```json",
    "```",
    "[",
    "]",
    "{",
    "}",
    '"bbox_2d":',
    '"points":',
    '"bbox":',
    '"point_2d":',
    "<bbox>",
    "</bbox>",
    "<labels>[1,0]</labels>",
]
PIECES += [
    "1e999",
    "-1",
    "NaN",
    "Infinity",
    "null",
    "true",
    ",",
    ":",
    '"',
    "\\u0000",
    "\x00",
    "\ud800",
    "9" * 400,
    "1234567890",
    "1e39",
    "é",
    "🦊",
]


def mutated(rng: random.Random, text: str) -> str:
    """Return a text with random insertions, deletions and repetitions, cut at random."""
    characters = list(text)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(characters) + 1)
        match rng.randrange(4):
            case 0:
                characters[at:at] = rng.choice(PIECES)
            case 1:
                del characters[at : at + rng.randint(1, 30)]
            case 2:
                characters[at : at + 1] = rng.choice(string.printable)
            case 3:
                end = min(len(characters), at + rng.randint(1, 60))
                characters[at:at] = characters[at:end] * rng.randint(1, 4)
    return "".join(characters[: rng.randint(0, 3000)])


def random_answer(rng: random.Random, real: list[str]) -> str | bytes:
    """Return random bytes, random pieces of markup, or a mutated real answer."""
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randint(0, 300))
        case 1:
            return "".join(rng.choices(PIECES, k=rng.randint(0, 40)))
        case _:
            return mutated(rng, rng.choice(real))


def main() -> None:
    """Print, for each dialect, how its answers were read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    real = []
    for _ in range(200):
        drawn = scene(rng)
        real.append(answer(refer(rng, drawn), drawn))
    for name in dialects.names():
        dialect, outcomes, started = dialects.get_dialect(name), Counter(), time.monotonic()
        for _ in range(options.answers):
            size = rng.randint(1, 4000), rng.randint(1, 4000)
            response = answers.read(dialect, random_answer(rng, real), size, truncated=rng.random() < 0.2)
            outcomes[response.error.value if response.error else "clean"] += 1
            response.text.encode()  # raises for a lone surrogate
            for instance in response.instances:
                x1, y1, x2, y2 = instance.box or (0, 0, *size)
                assert 0 <= x1 < x2 <= size[0], response
                assert 0 <= y1 < y2 <= size[1], response
                for x, y in (*instance.points, *instance.negative_points):
                    assert -size[0] <= x <= 2 * size[0], response
                    assert -size[1] <= y <= 2 * size[1], response
        rate = options.answers / (time.monotonic() - started)
        print(
            f"{name}: {options.answers} answers, {rate:.0f} per second, nothing raised: {dict(outcomes.most_common())}"
        )


if __name__ == "__main__":
    main()
