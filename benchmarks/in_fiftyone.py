"""Time 300 expressions of RefScenes from a FiftyOne dataset to masks in MongoDB.

python benchmarks/in_fiftyone.py

`segment_view`, which "Referring segment" runs, is compared with `apply_model` and a model that works as FiftyOne's
built-in qwen3-vl zoo models: it generates one answer per image, without batches. The zoo models give boxes for one
prompt per dataset. Here their model asks each sample's own expression and adds masks with SAM 2, as a user would by
applying SAM 2 next. Both have the same weights (nano) and store the same labels. Each image has three expressions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from own_database import fo  # isort: skip
import fiftyone.core.models as fom
from genseg_hub import GenSegR1, Prediction, answers
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import encode_mask
from PIL import Image
from pipeline import BATCH_SIZE, EXPRESSIONS, PER_IMAGE, files, same_masks
from side_by_side import compare, faster, parser, report

from fiftyone_genseg import labels
from fiftyone_genseg.segmentation.engines.local import local_engine
from fiftyone_genseg.segmentation.request import OVERWRITE, SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view


class OnePerImage(fom.SamplesMixin, fom.Model):
    """A model that calls `generate` for each image as it comes."""

    def __init__(self, model: GenSegR1):
        super().__init__()
        self._model = model
        own = model.reasoner
        self._reasoner = TransformersReasoner(own.model, own.processor, own.max_new_tokens)

    media_type = "image"
    transforms = None
    preprocess = False
    ragged_batches = True

    def predict(self, arg, sample=None) -> fo.Detections:
        """Answer the sample's expression and segment it."""
        image, expression = Image.fromarray(arg), sample[self.needs_fields["expression_field"]]
        chat = self._model.dialect.messages(image.size, expression)
        (answer,) = self._reasoner.generate([Prompt(image, chat)])
        response = answers.read(self._model.dialect, answer.text, image.size, answer.truncated)
        masks, scores = self._model.segmenter.segment(arg, response.instances)
        found = Prediction(response, tuple(masks), tuple(scores), image.size)
        attributes = {"label": labels.LABEL, "expression": expression, "checkpoint": "nano"}
        return fo.Detections(detections=labels.detections(found, **attributes))


def stored(dataset: fo.Dataset, field: str) -> list:
    """Return the union mask of each sample, as RLE."""
    found = []
    for sample in dataset:
        with Image.open(sample.filepath) as image:
            size = image.size
        found.append(encode_mask(labels.union_mask(sample[field], size)))
    return found


def main() -> None:
    """Time both ways on one dataset and report the row."""
    options = parser(__doc__).parse_args()
    expressions, repetitions = (24, 1) if options.quick else (EXPRESSIONS, 3)
    with tempfile.TemporaryDirectory() as folder:
        model = GenSegR1.from_pretrained("nano", device="cpu")
        examples = files(Path(folder), expressions)
        dataset = fo.Dataset()
        dataset.add_samples([fo.Sample(filepath=e.image, expression=e.expression) for e in examples], progress=False)
        simple = OnePerImage(model)
        list(model.segment_many(examples[:8]))  # warm

        def ours() -> list:
            request = SegmentRequest(
                expression_field="expression", output_field="ours", existing=OVERWRITE, batch_size=BATCH_SIZE
            )
            for _ in segment_view(dataset, request, local_engine(model)):
                pass
            return "ours"

        def theirs() -> list:
            dataset.apply_model(simple, label_field="theirs", expression_field="expression", progress=False)
            return "theirs"

        def check(a: str, b: str) -> None:
            dataset.reload()
            same_masks(stored(dataset, a), stored(dataset, b))

        seconds = compare(ours, theirs, check, repetitions)
        work = f"{expressions} expressions, {PER_IMAGE} per image, through FiftyOne into MongoDB"
        against = "`apply_model` with a model that generates per image (as the qwen3-vl zoo models)"
        report([faster("3", work, against, 3, *seconds, note=f"repetitions: {repetitions}")], options.out)
        dataset.delete()


if __name__ == "__main__":
    main()
