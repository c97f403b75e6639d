"""Score predictions on referring examples with known masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from genseg_hub.costs import Costs
from genseg_hub.evaluation.metrics import DEFAULT_POLICY, ReferringMetrics, measure
from genseg_hub.pipeline import GenSegR1
from genseg_hub.schema import Failure, Prediction, ReferringExample

MAX_REASONS = 10
MAX_GROUPS = 100  # values of an attribute; figures of more groups help nobody
_IDS = re.compile(r"(.*_)?ids?", re.IGNORECASE)


class Scores:
    """Figures of examples, over all of them and for each value of their attributes.

    Ids (attributes named `id` or `..._id`) and attributes with more than MAX_GROUPS values make no groups.

    Args:
        policy: a name in `metrics.POLICIES`.
    """

    def __init__(self, policy: str = DEFAULT_POLICY):
        self.overall = ReferringMetrics(policy)
        self._groups: dict[str, dict[str, ReferringMetrics]] = {}
        self._ungrouped: set[str] = set()
        self._errors = Counter[str]()
        self._failures = Counter[str]()
        self._in_words = 0
        self._costs = Costs()

    def add(self, example: ReferringExample, result: Prediction | Failure, own_boxes: bool = True) -> dict[str, Any]:
        """Add one result.

        A Failure and an unreadable answer count as an empty prediction and in `n_failed`.

        Args:
            example: example with masks.
            result: result of the example.
            own_boxes: whether the instances' boxes are the model's own, for `box_miou`. Otherwise, and if an instance
                has points only, the mask's tight box counts.

        Returns:
            The example's row: `example_id`, `image_id`, `expression`, its attributes, `iou`, `box_iou`, and
            `intersection`, `target_area` and `prediction_area` in pixels.

        Raises:
            ValueError: a mask has another size than the target's masks.
        """
        if isinstance(result, Failure):
            self._failures[result.message] += 1
            overlap = measure(example.masks, None, answered=False, ignore=example.ignore)
        else:
            mask = result.mask if result.masks else None
            boxes = [instance.box for instance in result.response.instances if instance.box] if own_boxes else []
            boxes = boxes if len(boxes) == len(result.response.instances) else []
            answered = bool(result.masks) or result.response.no_target
            overlap = measure(example.masks, mask, answered, boxes, example.ignore)
            if result.response.error:
                self._errors[result.response.error.value] += 1
            self._in_words += result.response.no_target_in_words
            self._costs.add(result)
        iou = self.overall.add_one(overlap)
        for attribute, value in example.attributes.items():
            if group := self._group(attribute, str(value)):
                group.add_one(overlap)
        return {
            "example_id": example.example_id,
            "image_id": example.image_id,
            "expression": example.expression,
            **example.attributes,
            "iou": iou,
            "box_iou": overlap.box_iou,
            "intersection": overlap.intersection,
            "target_area": overlap.target_area,
            "prediction_area": overlap.prediction_area,
        }

    def merge(self, other: Scores) -> None:
        """Add the results of other scores under the same policy."""
        self.overall.merge(other.overall)
        for attribute in other._ungrouped:
            self._give_up(attribute)
        for attribute, values in other._groups.items():
            for value, metrics in values.items():
                if group := self._group(attribute, value):
                    group.merge(metrics)
        self._errors += other._errors
        self._failures += other._failures
        self._in_words += other._in_words
        self._costs.merge(other._costs)

    def compute(self) -> dict[str, Any]:
        """Return the figures.

        Returns:
            The figures of `ReferringMetrics.compute`, and these keys. `parse_failures`: share of answers with an error.
                `errors`: error of an answer -> count. `failures`: number of examples without a prediction.
                `failure_reasons`: message of a failure -> count, of the MAX_REASONS commonest. `no_target_in_words`:
                number of no-target answers that were read from words, a null or an empty box. `cost`: see
                `Costs.compute`. `by`: attribute -> value -> figures. `ungrouped`: attributes with more than MAX_GROUPS
                values.
        """
        figures = self.overall.compute()
        return figures | {
            "parse_failures": self._errors.total() / max(1, figures["n"]),
            "errors": dict(self._errors),
            "failures": self._failures.total(),
            "failure_reasons": dict(self._failures.most_common(MAX_REASONS)),
            "no_target_in_words": self._in_words,
            "cost": self._costs.compute(),
            "by": {
                attribute: {value: metrics.compute() for value, metrics in sorted(values.items())}
                for attribute, values in self._groups.items()
            },
            "ungrouped": sorted(self._ungrouped),
        }

    def _group(self, attribute: str, value: str) -> ReferringMetrics | None:
        if attribute in self._ungrouped or _IDS.fullmatch(attribute):
            return None
        values = self._groups.setdefault(attribute, {})
        if value not in values and len(values) == MAX_GROUPS:
            self._give_up(attribute)
            return None
        return values.setdefault(value, ReferringMetrics(self.overall.policy.name))

    def _give_up(self, attribute: str) -> None:
        self._groups.pop(attribute, None)
        self._ungrouped.add(attribute)


def evaluate(
    model: GenSegR1,
    examples: Iterable[ReferringExample],
    batch_size: int = 16,
    on_result: Callable[[ReferringExample, Prediction | Failure, dict[str, Any]], Any] = lambda *_: None,
    policy: str = DEFAULT_POLICY,
) -> Scores:
    """Segment examples and score them.

    Args:
        model: model to score.
        examples: examples with masks; read lazily.
        batch_size: expressions that the reasoner answers at once.
        on_result: called after each example with the example, its result and its row (`Scores.add`).
        policy: a name in `metrics.POLICIES`.

    Raises:
        ValueError: an example has no ground truth.
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
