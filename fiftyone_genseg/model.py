"""GenSeg-R1 as a `fiftyone.Model`, for `dataset.apply_model`."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
from genseg_hub import GenSegR1
from genseg_hub.schema import Failure, ReferringExample

from fiftyone_genseg import labels


class ReferringSegmentationModel(fom.SamplesMixin, fom.Model):
    """Segments one expression on all images, or each sample's own.

    An image that cannot be segmented gets no label and a warning in the log; the operator
    "Referring segment" records the reason on the sample and resumes, prefer it for long runs.

    Args:
        checkpoint: "nano", a Hub id (also owner/name@revision) or a folder.
        expression: asked of every image. Leave it out to pass `expression_field=` to `apply_model`.
        device: see `GenSegR1.from_pretrained`.
        revision: branch, tag or commit of a Hub id.

    Example:
        >>> model = ReferringSegmentationModel("nano", "the red circle")
        >>> dataset.apply_model(model, label_field="red_circles", batch_size=8)
        >>> model = ReferringSegmentationModel("nano")
        >>> dataset.apply_model(model, label_field="genseg", expression_field="expression", batch_size=8)
    """

    def __init__(
        self, checkpoint: str = "nano", expression: str | None = None, device: str = "auto", revision: str | None = None
    ):
        super().__init__()
        self.expression = expression
        self._model = GenSegR1.from_pretrained(checkpoint, device=device, revision=revision)
        self.checkpoint = self._model.checkpoint.pinned if self._model.checkpoint else checkpoint

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def transforms(self) -> None:
        return None

    @property
    def preprocess(self) -> bool:
        return False

    @property
    def ragged_batches(self) -> bool:
        """False: images of a batch may have any sizes."""
        return False

    def predict(self, arg: np.ndarray, sample: fo.Sample | None = None) -> fo.Detections | None:
        """Masks of one image, uint8[H, W, 3]; see `predict_all`."""
        return self.predict_all([arg], None if sample is None else [sample])[0]

    def predict_all(
        self, args: Sequence[np.ndarray], samples: Sequence[fo.Sample] | None = None
    ) -> list[fo.Detections | None]:
        """One `Detections` per image, empty for no-target, None where segmentation failed.

        Raises:
            ValueError: when there is neither an expression nor an `expression_field`.
        """
        expressions = self._expressions(samples, len(args))
        examples = [
            ReferringExample(np.ascontiguousarray(image[..., :3]) if image.ndim == 3 else image, expression)
            for image, expression in zip(args, expressions, strict=True)
        ]
        results: list[fo.Detections | None] = []
        for result, expression in zip(
            self._model.segment_many(examples, max(1, len(examples))), expressions, strict=True
        ):
            if isinstance(result, Failure):
                fom.logger.warning("%r was not segmented: %s", expression, result.message)
                results.append(None)
            else:
                results.append(fo.Detections(detections=labels.detections(result, expression, self.checkpoint)))
        return results

    def _expressions(self, samples: Sequence[fo.Sample] | None, count: int) -> list[str]:
        field = self.needs_fields.get("expression_field")
        if field and samples is not None:
            return [sample[field] or "" for sample in samples]
        if not self.expression:
            raise ValueError(
                "there is no expression: pass expression=... to the model or expression_field=... to apply_model"
            )
        return [self.expression] * count
