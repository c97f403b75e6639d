"""Unambiguous referring expressions about rendered scenes.

This module knows the words for shapes. It does not know models, prompts or answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from genseg_training.nano.scenes import COLORS, HELD_OUT, KINDS, SIZES, Scene, Shape

# kind -> weight in the draw
EXPRESSION_KINDS = {"attribute": 32, "relation": 25, "extreme": 13, "several": 15, "no_target": 15}
# Kinds that no nano was ever shown an answer to; neither RefScenes nor the tokenizer's corpus has them.
NEW_KINDS = {"pair": 20, "except": 20, "negation": 25, "several_relation": 30, "ordinal": 15}
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITES = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
# word -> (axis, sign); the extreme shape has the smallest sign * centre[axis]
EXTREMES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
_SIDES = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
_COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_ORDINALS = {2: "second", 3: "third"}
_TRIES = 500
_MARGIN = 0.03  # expressions do not compare positions that are closer than this share of the canvas
Attributes = tuple[str | None, str | None, str | None]  # size, colour, kind; None is "any"
# Expression, targets from left to right, and the attributes of the description and of a relation's reference.
_Query = tuple[str, tuple[Shape, ...], tuple[Attributes, ...]]


@dataclass(frozen=True, eq=False)
class SceneQuery:
    """An expression about a scene, and the shapes that it refers to.

    Attributes:
        kind: a key of EXPRESSION_KINDS or NEW_KINDS.
        expression: the words.
        targets: shapes that the expression refers to, from left to right.
        held_out: whether a target is, or the words name, a held-out pair of colour and kind.
        described: attributes that the expression names for its targets; of "pair", for the first named target.
        reference: attributes of the shape that a relation starts from, or of the shapes that "except" and "negation"
            exclude; None without such a shape.
    """

    kind: str
    expression: str
    targets: tuple[Shape, ...]
    held_out: bool
    described: Attributes
    reference: Attributes | None


def refer(
    rng: random.Random, scene: Scene, allow_held_out: bool = True, kinds: Mapping[str, int] = EXPRESSION_KINDS
) -> SceneQuery:
    """Draw one unambiguous query about a scene.

    The weights decide the kind. If the scene cannot support it (an extreme among one shape), another kind is drawn.

    Args:
        rng: the only source of randomness.
        scene: scene with the shapes.
        allow_held_out: whether the pairs of HELD_OUT may appear.
        kinds: kind -> weight in the draw; keys of EXPRESSION_KINDS or NEW_KINDS.

    Raises:
        ValueError: the scene supports none of the kinds. Every scene supports EXPRESSION_KINDS.
    """
    for _ in range(_TRIES):
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
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
    raise ValueError(f"a scene of {len(scene.shapes)} shapes supports none of {', '.join(kinds)}: draw another scene")


def _attribute(rng: random.Random, scene: Scene) -> _Query | None:
    """Name attributes that one shape alone has; None if others share them."""
    target = rng.choice(scene.shapes)
    attributes = _some_attributes(rng, target)
    if sum(matches(shape, attributes) for shape in scene.shapes) == 1:
        return f"the {_name(attributes)}", (target,), (attributes,)
    return None


def _relation(rng: random.Random, scene: Scene) -> _Query | None:
    """Name a shape by its place beside another; None if ambiguous."""
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
    """Name the outermost of several shapes; None if two are about as far out."""
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
    """Name all shapes with some attributes; None if there are fewer than two."""
    attributes: Attributes = (
        (None, None, None) if rng.random() < 0.2 else _some_attributes(rng, rng.choice(scene.shapes))
    )
    hits = tuple(shape for shape in scene.shapes if matches(shape, attributes))
    if len(hits) < 2:
        return None
    quantifiers = ["all", f"the {_COUNT_WORDS[len(hits)]}"] + (["both"] if len(hits) == 2 else [])
    return f"{rng.choice(quantifiers)} {_name(attributes, plural=True)}", hits, (attributes,)


def _no_target(rng: random.Random, scene: Scene) -> _Query | None:
    """Describe a near miss, which is no shape of the scene; None if it exists.

    One attribute of a shape, or the relation, is changed.
    """
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


def _pair(rng: random.Random, scene: Scene) -> _Query | None:
    """Name two shapes by attributes that each alone has; None if shared."""
    if len(scene.shapes) < 2:
        return None
    pair = rng.sample(scene.shapes, 2)
    names = [_some_attributes(rng, shape) for shape in pair]
    if any(sum(matches(shape, name) for shape in scene.shapes) != 1 for name in names):
        return None
    targets = tuple(shape for shape in scene.shapes if shape in pair)
    return f"the {_name(names[0])} and the {_name(names[1])}", targets, (names[0],)


def _except(rng: random.Random, scene: Scene) -> _Query | None:
    """Name all shapes with some attribute but one of them; None if none is left."""
    excluded = rng.choice(scene.shapes)
    attributes: Attributes = rng.choice(
        ((None, None, None), (None, excluded.color, None), (None, None, excluded.kind), (excluded.size, None, None))
    )
    name = _some_attributes(rng, excluded)
    targets = tuple(s for s in scene.shapes if matches(s, attributes) and s is not excluded)
    if sum(matches(shape, name) for shape in scene.shapes) != 1 or not targets:
        return None
    return f"all {_name(attributes, plural=True)} except the {_name(name)}", targets, (attributes, name)


def _negation(rng: random.Random, scene: Scene) -> _Query | None:
    """Name the one shape that lacks an attribute of its like; None for several."""
    target, other = (rng.choice(scene.shapes) for _ in range(2))
    axis = rng.randrange(3)
    wrong = (other.size, other.color, other.kind)[axis]
    shared = rng.choice([i for i in range(3) if i != axis])
    alike = (target.size, target.color, target.kind)[shared]
    attributes: Attributes = tuple(alike if i == shared else None for i in range(3))  # type: ignore[assignment]
    excluded: Attributes = tuple(wrong if i == axis else attributes[i] for i in range(3))  # type: ignore[assignment]
    candidates = [shape for shape in scene.shapes if matches(shape, attributes)]
    hits = tuple(shape for shape in candidates if not matches(shape, excluded))
    if len(hits) != 1 or len(candidates) < 2:
        return None
    return f"the {_name(attributes)} that is not {'a ' if axis == 2 else ''}{wrong}", hits, (attributes, excluded)


def _several_relation(rng: random.Random, scene: Scene) -> _Query | None:
    """Name all shapes with some attributes beside another shape.

    Return None for fewer than two, or if the words are ambiguous.
    """
    anchor, like = (rng.choice(scene.shapes) for _ in range(2))
    attributes: Attributes = (None, None, None) if rng.random() < 0.3 else _some_attributes(rng, like)
    name = _some_attributes(rng, anchor)
    if sum(matches(shape, name) for shape in scene.shapes) != 1:
        return None
    word = rng.choice(RELATIONS)
    candidates = [shape for shape in scene.shapes if shape is not anchor and matches(shape, attributes)]
    hits = tuple(shape for shape in candidates if _is_relation(word, shape, anchor, scene.size))
    if len(hits) < 2 or any(
        shape not in hits and not _is_relation(OPPOSITES[word], shape, anchor, scene.size) for shape in candidates
    ):
        return None
    quantifiers = ["all", f"the {_COUNT_WORDS[len(hits)]}"] + (["both"] if len(hits) == 2 else [])
    words = f"{rng.choice(quantifiers)} {_name(attributes, plural=True)} {word} the {_name(name)}"
    return words, hits, (attributes, name)


def _ordinal(rng: random.Random, scene: Scene) -> _Query | None:
    """Name the second or third shape from one side.

    Return None if its neighbours are about as far from that side.
    """
    like = rng.choice(scene.shapes)
    attributes: Attributes = rng.choice(
        ((None, None, None), (None, like.color, None), (None, None, like.kind), (like.size, None, None))
    )
    side, rank = rng.choice(list(_SIDES)), rng.choice(list(_ORDINALS))
    axis, sign = _SIDES[side]
    candidates = sorted(
        (shape for shape in scene.shapes if matches(shape, attributes)), key=lambda shape: sign * shape.center[axis]
    )
    if len(candidates) < rank:
        return None
    places = [sign * shape.center[axis] for shape in candidates]
    if any(b - a <= _MARGIN * scene.size[axis] for a, b in pairwise(places[: rank + 1])):
        return None
    return f"the {_ORDINALS[rank]} {_name(attributes)} from the {side}", (candidates[rank - 1],), (attributes,)


_FORMS: dict[str, Callable[[random.Random, Scene], _Query | None]] = {
    "attribute": _attribute,
    "relation": _relation,
    "extreme": _extreme,
    "several": _several,
    "no_target": _no_target,
    "pair": _pair,
    "except": _except,
    "negation": _negation,
    "several_relation": _several_relation,
    "ordinal": _ordinal,
}


def matches(shape: Shape, attributes: Attributes) -> bool:
    """Return whether a shape has all of the attributes.

    Args:
        shape: shape to look at.
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
