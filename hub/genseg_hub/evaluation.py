"""Scoring a model on referring examples with known masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from genseg_hub.metrics import DEFAULT_POLICY, ReferringMetrics, measure
from genseg_hub.pipeline import GenSegR1
from genseg_hub.schema import Failure, Prediction, ReferringExample


class Scores:
    """The figures of examples, over all and by each of their attributes; several can be merged.

    Args:
        policy: see `metrics`.
    """

    def __init__(self, policy: str = DEFAULT_POLICY):
        self.overall = ReferringMetrics(policy)
        self._groups: dict[tuple[str, str], ReferringMetrics] = {}
        self._errors = Counter[str]()
        self._failures = 0

    def add(self, example: ReferringExample, result: Prediction | Failure) -> dict[str, Any]:
        """Add one result. An example that failed, or whose answer cannot be read, counts as answered with nothing
        and in `n_failed`.

        Returns:
            Its row: `example_id`, `image_id`, `expression`, its attributes, `iou`, and `intersection`, `target_area`
            and `prediction_area` in pixels.
        """
        if isinstance(result, Failure):
            self._failures += 1
            overlap = measure(example.masks, None, answered=False, ignore=example.ignore)
        else:
            mask = result.mask if result.masks else None
            boxes = [instance.box for instance in result.response.instances]
            answered = bool(result.masks) or result.response.no_target
            overlap = measure(example.masks, mask, answered, boxes, example.ignore)
            if result.response.error:
                self._errors[result.response.error.value] += 1
        iou = float(self.overall.add(overlap)[0])
        for attribute, value in example.attributes.items():
            self._group((attribute, str(value))).add(overlap)
        return {
            "example_id": example.example_id,
            "image_id": example.image_id,
            "expression": example.expression,
            **example.attributes,
            "iou": iou,
            "intersection": overlap.intersection,
            "target_area": overlap.target_area,
            "prediction_area": overlap.prediction_area,
        }

    def merge(self, other: Scores) -> None:
        """Add what another one counted, under the same policy."""
        self.overall.merge(other.overall)
        for key, metrics in other._groups.items():
            self._group(key).merge(metrics)
        self._errors += other._errors
        self._failures += other._failures

    def compute(self) -> dict[str, Any]:
        """The figures of `ReferringMetrics.compute` plus `parse_failures` (share of answers with an error), `errors`
        (error of an answer -> count), `failures` (examples that could not be segmented at all) and `by` (attribute ->
        value -> figures)."""
        figures = self.overall.compute()
        attributes = dict.fromkeys(attribute for attribute, _ in self._groups)
        by = {
            attribute: {value: self._groups[a, value].compute() for a, value in sorted(self._groups) if a == attribute}
            for attribute in attributes
        }
        return figures | {
            "parse_failures": self._errors.total() / max(1, figures["n"]),
            "errors": dict(self._errors),
            "failures": self._failures,
            "by": by,
        }

    def _group(self, key: tuple[str, str]) -> ReferringMetrics:
        return self._groups.setdefault(key, ReferringMetrics(self.overall.policy.name))


def evaluate(
    model: GenSegR1,
    examples: Iterable[ReferringExample],
    batch_size: int = 16,
    on_result: Callable[[ReferringExample, Prediction | Failure, dict[str, Any]], Any] = lambda *_: None,
    policy: str = DEFAULT_POLICY,
) -> Scores:
    """Segment examples and score them.

    Args:
        examples: with masks; read lazily.
        on_result: called after each example with it, its result and its row (`Scores.add`).

    Raises:
        ValueError: for an example without ground truth.
    """
    scores = Scores(policy)
    kept: list[ReferringExample] = []

    def remember() -> Iterator[ReferringExample]:
        for example in examples:
            if example.masks is None:
                raise ValueError(f"the example {example.example_id!r} has no ground truth; evaluation needs masks")
            kept.append(example)
            yield example

    for result in model.segment_many(remember(), batch_size):
        example = kept.pop(0)
        row = scores.add(example, result)
        on_result(example, result, row)
    return scores
