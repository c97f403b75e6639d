"""GenSeg-R1 as a `fiftyone.Model`, for `dataset.apply_model`.

FiftyOne opens images itself unless a model brings its own `GetItem`, and one image that it cannot open fails the whole
batch. The `GetItem` of this model passes on the path. The pipeline then opens the image: neighbours share one image,
and a bad image fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
from genseg_hub import GenSegR1
from genseg_hub.checkpoints.catalog import NANO
from genseg_hub.schema import Failure, ImageLike, Prediction, ReferringExample, normalize_expression

from fiftyone_genseg import labels, overlays

_ONE_SOURCE = (
    "there must be one source of expressions: expression=... for the model (the same for all images), or "
    "expression_field=... for the model or for apply_model (the field with each sample's own); prompt and prompt_field "
    "are other names of the two"
)


class ReferringSegmentationModel(fom.TorchModelMixin, fom.SupportsGetItem, fom.Model):
    """A model that segments one expression on all images, or each sample's own.

    An image that cannot be segmented gets no label and a warning in the log, even with `skip_failures=False`. Use the
    operator "Referring segment" for long runs, because it records the reason on the sample and resumes. FiftyOne's
    workers fetch nothing but paths: `num_workers=0` saves the time to start them.

    Args:
        checkpoint: "nano", a Hub id (also owner/name@revision) or a folder; None for nano, or with `server` for the
            server's own model.
        expression: asked of every image. The attribute `expression` may be set again between runs.
        expression_field: string field with each sample's own expression; `apply_model` takes it, too.
        prompt: `expression` by the name that other models of FiftyOne use.
        prompt_field: `expression_field` by the name that other models of FiftyOne use; `apply_model` takes it, too.
        device: see `GenSegR1.from_pretrained`.
        revision: branch, tag or commit of a Hub id.
        options: other options of `GenSegR1.from_pretrained`, such as `max_pixels`, `quantization` and `server`.

    Raises:
        ValueError: both an expression and a field are given.
        CheckpointError: see `GenSegR1.from_pretrained`.

    Examples:
        >>> model = ReferringSegmentationModel("nano", "the red circle")
        >>> dataset.apply_model(model, label_field="red_circles", batch_size=8)
        >>> model = ReferringSegmentationModel("nano")
        >>> dataset.apply_model(model, label_field="genseg", expression_field="expression", batch_size=8)
    """

    # Attributes that FiftyOne reads
    config = None
    media_type = "image"
    transforms = None
    preprocess = False
    ragged_batches = False  # images of a batch may have any sizes
    has_collate_fn = True  # a batch is a list of examples
    _using_gpu = False  # the data loader passes on paths, so there is no memory to pin

    def __init__(
        self,
        checkpoint: str | None = None,
        expression: str | None = None,
        expression_field: str | None = None,
        device: str = "auto",
        revision: str | None = None,
        prompt: str | None = None,
        prompt_field: str | None = None,
        **options: Any,
    ):
        if sum(map(bool, (expression, expression_field, prompt, prompt_field))) > 1:
            raise ValueError(_ONE_SOURCE)
        self.expression, self.expression_field = expression or prompt, expression_field or prompt_field
        self._model = GenSegR1.from_pretrained(
            checkpoint or (None if options.get("server") else NANO), device=device, revision=revision, **options
        )
        self.checkpoint = self._model.checkpoint.pinned if self._model.checkpoint else str(checkpoint)

    def build_get_item(self, field_mapping: Mapping[str, str] | None = None) -> fout.GetItem:
        """Return the function that the data loader calls for each sample.

        Args:
            field_mapping: {"expression_field": ...} or {"prompt_field": ...} as `apply_model` got it; None to ask which
                keys are required.

        Raises:
            ValueError: before any sample is touched, unless there is exactly one source of expressions.
        """
        fields = {"expression_field": self.expression_field} if self.expression_field else {}
        fields |= {key: field for key, field in (field_mapping or {}).items() if field}
        has_both = {"expression_field", "prompt_field"} <= fields.keys()
        if "prompt_field" in fields:
            fields["expression_field"] = fields.pop("prompt_field")
        expression = normalize_expression(self.expression or "")
        has_field, must_have_one = "expression_field" in fields, field_mapping is not None
        if has_both or (expression and has_field) or (must_have_one and not expression and not has_field):
            raise ValueError(_ONE_SOURCE)
        return _GetExample(expression, fields)

    def predict(self, arg: ReferringExample | ImageLike) -> fo.Detections | None:
        """Return the masks on one image; see `predict_all`."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Sequence[ReferringExample | ImageLike]) -> list[fo.Detections | None]:
        """Return one `Detections` per image, empty for no-target, None for a failure.

        The attribute `reasoning` of a `Detections` is the think part of the answer. A model has one field, so the
        prompts of each mask are its attributes `prompt_box` (relative xywh) and `points` (relative xy).

        Args:
            args: referring examples, or images (path, PIL image or uint8[H, W, 3]) for the model's own expression.

        Raises:
            ValueError: images are given and the model has no expression.
        """
        examples = [arg if isinstance(arg, ReferringExample) else self._example(arg) for arg in args]
        results: list[fo.Detections | None] = []
        for example, result in zip(examples, self._model.segment_many(examples, max(1, len(examples))), strict=True):
            if isinstance(result, Failure):
                image = example.image if isinstance(example.image, str) else "an image"
                fom.logger.warning("%s was not segmented for %.200r: %s", image, example.expression, result.message)
                results.append(None)
            else:
                found = self._masks(result, normalize_expression(example.expression))
                results.append(fo.Detections(detections=found, reasoning=result.response.reasoning))
        return results

    def _masks(self, result: Prediction, expression: str) -> list[fo.Detection]:
        """Return the masks of an expression, with their prompts.

        An expression that the model asks of every image becomes their label.
        """
        label = expression if self.expression else labels.LABEL
        found = labels.detections(result, label=label, expression=expression, checkpoint=self.checkpoint)
        for detection in found:
            prompt = result.response.instances[detection.index - 1]
            detection["prompt_box"] = overlays.relative_box(prompt.box, result.image_size)
            detection["points"] = overlays.relative_points(prompt.points, result.image_size)
        return found

    def _example(self, image: ImageLike) -> ReferringExample:
        if not self.expression:
            raise ValueError(_ONE_SOURCE)
        return ReferringExample(image, self.expression)


class _GetExample(fout.GetItem):
    """A sample's path and expression, for a model that opens the image itself."""

    def __init__(self, expression: str, field_mapping: Mapping[str, str]):
        self._expression = expression
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        return ["filepath"] if self._expression else ["filepath", "expression_field"]

    def __call__(self, d: dict[str, Any]) -> ReferringExample:
        return ReferringExample(d["filepath"], self._expression or d["expression_field"] or "")
