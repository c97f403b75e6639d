"""RefScenes: a fixed benchmark of rendered scenes, and endless training examples."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from genseg_hub.schema import ReferringExample, encode_mask

from genseg_training.nano.expressions import EXPRESSION_KINDS, NEW_KINDS, refer
from genseg_training.nano.scenes import scene

VERSION = "1.0"
SPLITS = {"val": 1, "test": 2}
SCENES_PER_SPLIT, EXPRESSIONS_PER_SCENE = 500, 4
CONTROL = "ordinal"  # the new kind that MIXED_KINDS leaves out, so that neither answers nor rewards show it
_NEW_SHARE = 0.6


def _mixed() -> dict[str, int]:
    rewarded = {kind: weight for kind, weight in NEW_KINDS.items() if kind != CONTROL}
    parts = ((rewarded, _NEW_SHARE), (EXPRESSION_KINDS, 1 - _NEW_SHARE))
    return {k: round(1e4 * share * w / sum(part.values())) for part, share in parts for k, w in part.items()}


# kind -> weight in the draw: new kinds, and old ones so that they are kept
MIXED_KINDS = _mixed()


def refscenes(
    split: str, limit: int | None = None, kinds: Mapping[str, int] = EXPRESSION_KINDS
) -> Iterator[ReferringExample]:
    """Yield the fixed benchmark: 500 scenes with 4 expressions each.

    Args:
        split: "val" or "test".
        limit: stop after this many expressions.
        kinds: as `expressions.refer` takes them. Other kinds give other expressions about the same scenes, which are
            not RefScenes; scenes that support none of the kinds are left out.

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
            try:
                query = refer(rng, drawn, kinds=kinds)
            except ValueError:
                break
            left -= 1
            yield ReferringExample(
                image=drawn.image,
                expression=query.expression,
                masks=tuple(encode_mask(shape.mask) for shape in query.targets),
                example_id=f"refscenes-{split}-{index:03d}-{number}",
                image_id=f"refscenes-{split}-{index:03d}",
                attributes={"kind": query.kind, "held_out": query.held_out},
            )


def training_examples(count: int, seed: int, kinds: Mapping[str, int] = EXPRESSION_KINDS) -> Iterator[ReferringExample]:
    """Yield training examples without held-out combinations.

    A scene has EXPRESSIONS_PER_SCENE examples. Neither RefScenes nor the warm start of nano has these scenes.

    Args:
        count: number of expressions.
        seed: another seed gives other scenes.
        kinds: as `expressions.refer` takes them. A scene gets the kinds that it supports, or else EXPRESSION_KINDS.
    """
    for index in range(count):
        scene_number, number = divmod(index, EXPRESSIONS_PER_SCENE)
        if number == 0:
            rng = random.Random(f"training-{seed}-{scene_number}")
            drawn = scene(rng, allow_held_out=False)
        try:
            query = refer(rng, drawn, allow_held_out=False, kinds=kinds)
        except ValueError:
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
