"""Scoring a model on referring examples with known masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from genseg_hub.metrics import DEFAULT_POLICY, ReferringMetrics, measure
from genseg_hub.pipeline import GenSegR1
from genseg_hub.schema import Failure, ReferringExample


def evaluate(
    model: GenSegR1,
    examples: Iterable[ReferringExample],
    batch_size: int = 16,
    on_example: Callable[[], Any] = lambda: None,
    policy: str = DEFAULT_POLICY,
) -> dict[str, Any]:
    """Segment examples and score them, over all and by each of their attributes.

    An example that fails, or whose answer cannot be read, counts as answered with nothing and in
    `n_failed`.

    Args:
        examples: with masks; read lazily.
        on_example: called after each example, for a progress bar.
        policy: see `metrics`.

    Returns:
        The figures of `ReferringMetrics.compute` plus `parse_failures` (share of answers with an
        error), `errors` (error of an answer -> count), `failures` (examples that could not be
        segmented at all) and `by` (attribute -> value -> figures).
    """
    overall, errors, failures = ReferringMetrics(policy), Counter[str](), 0
    groups: dict[str, dict[str, ReferringMetrics]] = {}
    kept: list[ReferringExample] = []

    def remember() -> Iterator[ReferringExample]:
        for example in examples:
            if example.masks is None:
                raise ValueError(f"the example {example.example_id!r} has no ground truth; evaluation needs masks")
            kept.append(example)
            yield example

    for result in model.segment_many(remember(), batch_size):
        example = kept.pop(0)
        if isinstance(result, Failure):
            failures += 1
            overlap = measure(example.masks, None, answered=False)
        else:
            mask = result.mask if result.masks else None
            boxes = [instance.box for instance in result.response.instances]
            overlap = measure(example.masks, mask, bool(result.masks) or result.response.no_target, boxes)
            if result.response.error:
                errors[result.response.error.value] += 1
        overall.add(overlap)
        for attribute, value in example.attributes.items():
            group = groups.setdefault(attribute, {}).setdefault(str(value), ReferringMetrics(policy))
            group.add(overlap)
        on_example()
    figures = overall.compute()
    return figures | {
        "parse_failures": errors.total() / max(1, figures["n"]),
        "errors": dict(errors),
        "failures": failures,
        "by": {a: {v: m.compute() for v, m in sorted(values.items())} for a, values in groups.items()},
    }
