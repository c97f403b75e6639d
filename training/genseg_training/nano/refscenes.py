"""RefScenes: the fixed benchmark of rendered scenes, and the endless training examples beside it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from genseg_hub.schema import ReferringExample, encode_mask

from genseg_training.nano.expressions import refer
from genseg_training.nano.scenes import scene

VERSION = "1.0"
SPLITS = {"val": 1, "test": 2}
SCENES_PER_SPLIT, EXPRESSIONS_PER_SCENE = 500, 4


def refscenes(split: str, limit: int | None = None) -> Iterator[ReferringExample]:
    """Yield the fixed benchmark: 500 scenes with 4 expressions each.

    Args:
        split: "val" or "test".
        limit: stop after this many expressions.

    Yields:
        ReferringExample with attributes `kind` (a key of `expressions.EXPRESSION_KINDS`) and `held_out`.

    Raises:
        ValueError: for another split; `training_examples` gives examples to train on.
    """
    if split not in SPLITS:
        raise ValueError(f"RefScenes has no fixed split {split!r}; choose one of {', '.join(SPLITS)}")
    left = SCENES_PER_SPLIT * EXPRESSIONS_PER_SCENE if limit is None else limit
    for index in range(SCENES_PER_SPLIT):
        rng = random.Random(f"refscenes-{VERSION}-{split}-{index}")
        drawn = scene(rng)
        for number in range(EXPRESSIONS_PER_SCENE):
            if left <= 0:
                return
            left -= 1
            query = refer(rng, drawn)
            yield ReferringExample(
                image=drawn.image,
                expression=query.expression,
                masks=tuple(encode_mask(shape.mask) for shape in query.targets),
                example_id=f"refscenes-{split}-{index:03d}-{number}",
                image_id=f"refscenes-{split}-{index:03d}",
                attributes={"kind": query.kind, "held_out": query.held_out},
            )


def training_examples(count: int, seed: int) -> Iterator[ReferringExample]:
    """Yield training examples without held-out combinations, EXPRESSIONS_PER_SCENE per scene.

    Neither RefScenes nor the warm start of nano has these scenes.

    Args:
        count: how many expressions.
        seed: another seed gives other scenes.
    """
    for index in range(count):
        scene_number, number = divmod(index, EXPRESSIONS_PER_SCENE)
        if number == 0:
            rng = random.Random(f"training-{seed}-{scene_number}")
            drawn = scene(rng, allow_held_out=False)
        query = refer(rng, drawn, allow_held_out=False)
        image_id = f"training-{seed}-{scene_number}"
        yield ReferringExample(
            image=drawn.image,
            expression=query.expression,
            masks=tuple(encode_mask(shape.mask) for shape in query.targets),
            example_id=f"{image_id}-{number}",
            image_id=image_id,
            attributes={"kind": query.kind},
        )
