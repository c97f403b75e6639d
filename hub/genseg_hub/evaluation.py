"""Scoring a model on referring examples with known masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from genseg_hub.metrics import ReferringMetrics
from genseg_hub.pipeline import GenSegR1
from genseg_hub.schema import Failure, ReferringExample


def evaluate(
    model: GenSegR1,
    examples: Iterable[ReferringExample],
    batch_size: int = 16,
    on_example: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Segment examples and score them, over all and by each of their attributes.

    An example that fails counts as answered with nothing, and in `n_failed`.

    Args:
        examples: with masks; read lazily.
        on_example: called after each example, for a progress bar.

    Returns:
        The figures of `ReferringMetrics.compute` plus `n_failed`, `parse_failures` (share of answers
        with an error), `errors` (error -> count) and `by` (attribute -> value -> figures).
    """
    overall, errors, failed = ReferringMetrics(), Counter[str](), 0
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
            failed += 1
            mask, answered = None, False
        else:
            mask = result.mask if result.masks else None
            answered = bool(result.masks) or result.response.no_target
            if result.response.error:
                errors[result.response.error.value] += 1
        accumulators = [overall]
        for attribute, value in example.attributes.items():
            accumulators.append(groups.setdefault(attribute, {}).setdefault(str(value), ReferringMetrics()))
        for accumulator in accumulators:
            accumulator.update(example.masks, mask, answered)
        on_example()
    figures = overall.compute()
    return figures | {
        "n_failed": failed,
        "parse_failures": errors.total() / max(1, overall.count),
        "errors": dict(errors),
        "by": {a: {v: m.compute() for v, m in sorted(values.items())} for a, values in groups.items()},
    }
