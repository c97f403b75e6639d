"""Unambiguous referring expressions about rendered scenes.

This module knows the words for shapes. It does not know models, prompts or answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from genseg_training.nano.scenes import COLORS, HELD_OUT, KINDS, SIZES, Scene, Shape

# kind -> weight in the draw
EXPRESSION_KINDS = {"attribute": 32, "relation": 25, "extreme": 13, "several": 15, "no_target": 15}
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITES = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
# word -> (axis, sign); the extreme shape has the smallest sign * centre[axis]
EXTREMES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
_COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_MARGIN = 0.03  # expressions do not compare positions that are closer than this share of the canvas
Attributes = tuple[str | None, str | None, str | None]  # size, colour, kind; None is "any"
# Expression, targets from left to right, and the attributes of the description and of a relation's reference.
_Query = tuple[str, tuple[Shape, ...], tuple[Attributes, ...]]


@dataclass(frozen=True, eq=False)
class SceneQuery:
    """An expression about a scene, and the shapes that it refers to.

    Attributes:
        kind: a key of EXPRESSION_KINDS.
        expression: the words.
        targets: shapes that the expression refers to, from left to right.
        held_out: whether a target is, or the words name, a held-out pair of colour and kind.
        described: attributes that the expression names for its targets.
        reference: attributes of the shape that a relation starts from; None without a relation.
    """

    kind: str
    expression: str
    targets: tuple[Shape, ...]
    held_out: bool
    described: Attributes
    reference: Attributes | None


def refer(rng: random.Random, scene: Scene, allow_held_out: bool = True) -> SceneQuery:
    """Draw one unambiguous query about a scene.

    The weights of EXPRESSION_KINDS decide the kind. Where the scene cannot support it (an extreme among one shape),
    another kind is drawn.

    Args:
        rng: the only source of randomness.
        scene: with the shapes.
        allow_held_out: whether the pairs of HELD_OUT may appear.
    """
    while True:
        (kind,) = rng.choices(list(EXPRESSION_KINDS), list(EXPRESSION_KINDS.values()))
        for _ in range(8):
            query = _FORMS[kind](rng, scene)
            if query is None:
                continue
            expression, targets, named = query
            held_out = any(map(_names_held_out, named)) or any(shape.held_out for shape in targets)
            if held_out and not allow_held_out:
                continue
            reference = named[1] if len(named) > 1 else None
            return SceneQuery(kind, expression, targets, held_out, named[0], reference)


def _attribute(rng: random.Random, scene: Scene) -> _Query | None:
    """Name attributes that one shape alone has; None where others share them."""
    target = rng.choice(scene.shapes)
    attributes = _some_attributes(rng, target)
    if sum(matches(shape, attributes) for shape in scene.shapes) == 1:
        return f"the {_name(attributes)}", (target,), (attributes,)
    return None


def _relation(rng: random.Random, scene: Scene) -> _Query | None:
    """Name a shape by its place beside another; None where the words would be ambiguous."""
    if len(scene.shapes) < 2:
        return None
    target, anchor = rng.sample(scene.shapes, 2)
    attributes, anchor_attributes = _some_attributes(rng, target), _some_attributes(rng, anchor)
    if sum(matches(shape, anchor_attributes) for shape in scene.shapes) != 1:
        return None
    word = rng.choice(RELATIONS)
    candidates = [shape for shape in scene.shapes if shape is not anchor and matches(shape, attributes)]
    hits = [shape for shape in candidates if _is_relation(word, shape, anchor, scene.size)]
    clear = all(shape in hits or _is_relation(OPPOSITES[word], shape, anchor, scene.size) for shape in candidates)
    if hits == [target] and clear:
        return (
            f"the {_name(attributes)} {word} the {_name(anchor_attributes)}",
            (target,),
            (attributes, anchor_attributes),
        )
    return None


def _extreme(rng: random.Random, scene: Scene) -> _Query | None:
    """Name the outermost of several shapes; None where two are about as far out."""
    like = rng.choice(scene.shapes)
    attributes: Attributes = rng.choice(
        ((None, None, None), (None, like.color, None), (None, None, like.kind), (like.size, None, None))
    )
    candidates = [shape for shape in scene.shapes if matches(shape, attributes)]
    if len(candidates) < 2:
        return None
    word = rng.choice(list(EXTREMES))
    axis, sign = EXTREMES[word]
    candidates.sort(key=lambda shape: sign * shape.center[axis])
    if abs(candidates[1].center[axis] - candidates[0].center[axis]) > _MARGIN * scene.size[axis]:
        return f"the {word} {_name(attributes)}", (candidates[0],), (attributes,)
    return None


def _several(rng: random.Random, scene: Scene) -> _Query | None:
    """Name all shapes with some attributes; None where there are fewer than two."""
    attributes: Attributes = (
        (None, None, None) if rng.random() < 0.2 else _some_attributes(rng, rng.choice(scene.shapes))
    )
    hits = tuple(shape for shape in scene.shapes if matches(shape, attributes))
    if len(hits) < 2:
        return None
    quantifiers = ["all", f"the {_COUNT_WORDS[len(hits)]}"] + (["both"] if len(hits) == 2 else [])
    return f"{rng.choice(quantifiers)} {_name(attributes, plural=True)}", hits, (attributes,)


def _no_target(rng: random.Random, scene: Scene) -> _Query | None:
    """Describe a near miss: a shape of the scene with one attribute, or the relation, changed; None where it exists."""
    like = rng.choice(scene.shapes)
    attributes = _some_attributes(rng, like)
    form = rng.choice(("the", "the", "the", "all", "extreme", "relation"))
    if form == "relation":
        anchor = rng.choice(scene.shapes)
        anchor_attributes = _some_attributes(rng, anchor)
        if anchor is like or sum(matches(shape, anchor_attributes) for shape in scene.shapes) != 1:
            return None
        word = rng.choice(RELATIONS)
        candidates = [shape for shape in scene.shapes if shape is not anchor and matches(shape, attributes)]
        if all(_is_relation(OPPOSITES[word], shape, anchor, scene.size) for shape in candidates):
            names = attributes, anchor_attributes
            return f"the {_name(attributes)} {word} the {_name(anchor_attributes)}", (), names
        return None
    changed = rng.choice([i for i in range(3) if attributes[i]])
    other = rng.choice((SIZES, list(COLORS), KINDS)[changed])
    wrong: Attributes = (
        other if changed == 0 else attributes[0],
        other if changed == 1 else attributes[1],
        other if changed == 2 else attributes[2],
    )
    if any(matches(shape, wrong) for shape in scene.shapes):
        return None
    if form == "all":
        return f"all {_name(wrong, plural=True)}", (), (wrong,)
    if form == "extreme":
        return f"the {rng.choice(list(EXTREMES))} {_name(wrong)}", (), (wrong,)
    return f"the {_name(wrong)}", (), (wrong,)


_FORMS: dict[str, Callable[[random.Random, Scene], _Query | None]] = {
    "attribute": _attribute,
    "relation": _relation,
    "extreme": _extreme,
    "several": _several,
    "no_target": _no_target,
}


def matches(shape: Shape, attributes: Attributes) -> bool:
    """Return whether a shape has all of the attributes.

    Args:
        shape: to look at.
        attributes: None is "any".
    """
    return all(a is None or a == b for a, b in zip(attributes, (shape.size, shape.color, shape.kind), strict=True))


def _name(attributes: Attributes, plural: bool = False) -> str:
    """Return the words for attributes, such as "large red star"."""
    size, color, kind = attributes
    noun = kind or "shape"
    if plural:
        noun += "es" if noun == "cross" else "s"
    return " ".join(word for word in (size, color, noun) if word)


def _some_attributes(rng: random.Random, shape: Shape) -> Attributes:
    """Draw one or more of a shape's attributes."""
    while True:
        attributes = (
            shape.size if rng.random() < 0.4 else None,
            shape.color if rng.random() < 0.75 else None,
            shape.kind if rng.random() < 0.75 else None,
        )
        if any(attributes):
            return attributes


def _is_relation(word: str, a: Shape, b: Shape, size: tuple[int, int]) -> bool:
    """Return whether shape a is clearly in a relation to shape b."""
    dx, dy = (a.center[0] - b.center[0]) / size[0], (a.center[1] - b.center[1]) / size[1]
    offset = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[word]
    return offset > _MARGIN


def _names_held_out(attributes: Attributes) -> bool:
    return (attributes[1], attributes[2]) in HELD_OUT
