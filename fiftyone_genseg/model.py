"""GenSeg-R1 as a `fiftyone.Model`, for `dataset.apply_model`.

FiftyOne opens images itself unless a model brings its own `GetItem`, and an image that it cannot open takes the whole
batch with it. This model's only hands the path on: images are opened as everywhere in this project, neighbours with the
same one share it, and a bad one fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
from genseg_hub import GenSegR1
from genseg_hub.schema import Failure, ImageLike, ReferringExample

from fiftyone_genseg import labels

_ONE_SOURCE = (
    "there must be one source of expressions: expression=... for the model (the same for all images), or "
    "expression_field=... for the model or for apply_model (the field with each sample's own)"
)


class ReferringSegmentationModel(fom.TorchModelMixin, fom.SupportsGetItem, fom.Model):
    """Segments one expression on all images, or each sample's own.

    An image that cannot be segmented gets no label and a warning in the log, also with
    `skip_failures=False`; the operator "Referring segment" records the reason on the sample and
    resumes, prefer it for long runs. FiftyOne's workers have only paths to fetch: `num_workers=0`
    saves starting them.

    Args:
        checkpoint: "nano", a Hub id (also owner/name@revision) or a folder.
        expression: asked of every image. The attribute of that name may be set again between runs.
        expression_field: string field of the samples that holds each one's own; `apply_model` takes it, too.
        device: see `GenSegR1.from_pretrained`.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: for both an expression and a field.
        CheckpointError: see `GenSegR1.from_pretrained`.

    Example:
        >>> model = ReferringSegmentationModel("nano", "the red circle")
        >>> dataset.apply_model(model, label_field="red_circles", batch_size=8)
        >>> model = ReferringSegmentationModel("nano")
        >>> dataset.apply_model(model, label_field="genseg", expression_field="expression", batch_size=8)
    """

    # What FiftyOne asks of a model
    config = None
    media_type = "image"
    transforms = None
    preprocess = False
    ragged_batches = False  # images of a batch may have any sizes
    has_collate_fn = True  # a batch is the list that it is
    _using_gpu = False  # nothing to pin: paths are what the data loader hands over

    def __init__(
        self,
        checkpoint: str = "nano",
        expression: str | None = None,
        expression_field: str | None = None,
        device: str = "auto",
        revision: str | None = None,
    ):
        if expression and expression_field:
            raise ValueError(_ONE_SOURCE)
        self.expression, self.expression_field = expression, expression_field
        self._model = GenSegR1.from_pretrained(checkpoint, device=device, revision=revision)
        self.checkpoint = self._model.checkpoint.pinned if self._model.checkpoint else checkpoint

    def build_get_item(self, field_mapping: Mapping[str, str] | None = None) -> fout.GetItem:
        """What the data loader calls for each sample.

        Args:
            field_mapping: `apply_model`'s `expression_field`, when given; None to see what could be given.

        Raises:
            ValueError: unless there is exactly one source of expressions; before any sample is touched.
        """
        fields = {"expression_field": self.expression_field} if self.expression_field else {}
        fields |= {key: field for key, field in (field_mapping or {}).items() if field}
        expression = (self.expression or "").strip()
        has_field, must_have_one = "expression_field" in fields, field_mapping is not None
        if (expression and has_field) or (must_have_one and not expression and not has_field):
            raise ValueError(_ONE_SOURCE)
        return _GetExample(expression, fields)

    def predict(self, arg: ReferringExample | ImageLike) -> fo.Detections | None:
        """The masks on one image; see `predict_all`."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Sequence[ReferringExample | ImageLike]) -> list[fo.Detections | None]:
        """One `Detections` per image, empty for no-target, None where segmentation failed.

        Args:
            args: images (path, PIL image or uint8[H, W, 3]) to ask the model's expression of, or referring examples.

        Raises:
            ValueError: for images without an expression of the model.
        """
        examples = [arg if isinstance(arg, ReferringExample) else self._example(arg) for arg in args]
        results: list[fo.Detections | None] = []
        for example, result in zip(examples, self._model.segment_many(examples, max(1, len(examples))), strict=True):
            if isinstance(result, Failure):
                image = example.image if isinstance(example.image, str) else "an image"
                fom.logger.warning("%s was not segmented for %.200r: %s", image, example.expression, result.message)
                results.append(None)
            else:
                results.append(fo.Detections(detections=labels.detections(result, example.expression, self.checkpoint)))
        return results

    def _example(self, image: ImageLike) -> ReferringExample:
        if not self.expression:
            raise ValueError(_ONE_SOURCE)
        return ReferringExample(image, self.expression)


class _GetExample(fout.GetItem):
    """A sample's path and expression; opening the image is left to the model, whose failures are per example."""

    def __init__(self, expression: str, field_mapping: Mapping[str, str]):
        self._expression = expression
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        return ["filepath"] if self._expression else ["filepath", "expression_field"]

    def __call__(self, d: dict[str, Any]) -> ReferringExample:
        return ReferringExample(d["filepath"], self._expression or d["expression_field"] or "")
