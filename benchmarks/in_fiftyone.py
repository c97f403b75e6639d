"""300 expressions of RefScenes, three per image, from a FiftyOne dataset to masks in MongoDB.

python benchmarks/in_fiftyone.py

`segment_view`, which "Referring segment" runs, against `apply_model` with a model that works as FiftyOne's built-in
qwen3-vl zoo models do: it generates an answer per image, without batches. Those give boxes for one prompt per dataset;
here theirs asks each sample's own expression and goes on to masks with SAM 2, as its user would by applying SAM 2 next.
Both have the same weights (nano) and store the same labels.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_HOME = tempfile.mkdtemp(prefix="genseg-benchmark-")
atexit.register(shutil.rmtree, _HOME, True)  # before FiftyOne is imported: after it has stopped its database
os.environ |= {
    "HOME": _HOME,
    "FIFTYONE_DATABASE_DIR": f"{_HOME}/mongo",
    "FIFTYONE_DATABASE_NAME": f"genseg-benchmark-{os.getpid()}",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    "FIFTYONE_DO_NOT_TRACK": "1",
}

import fiftyone as fo  # noqa: E402
import fiftyone.core.models as fom  # noqa: E402
from genseg_hub import GenSegR1, Prediction  # noqa: E402
from genseg_hub.reasoners.base import Prompt  # noqa: E402
from genseg_hub.reasoners.transformers import TransformersReasoner  # noqa: E402
from genseg_hub.schema import encode_mask  # noqa: E402
from PIL import Image  # noqa: E402
from pipeline import BATCH_SIZE, EXPRESSIONS, PER_IMAGE, Roads, files, same_masks  # noqa: E402
from side_by_side import compare, faster, report  # noqa: E402

from fiftyone_genseg import labels  # noqa: E402
from fiftyone_genseg.segmentation import OVERWRITE, segment_view  # noqa: E402
from fiftyone_genseg.segmentation.engines import in_process  # noqa: E402


class OnePerImage(fom.SamplesMixin, fom.Model):
    """`generate` for each image as it comes."""

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
        image, expression = Image.fromarray(arg), sample[self.needs_fields["expression_field"]]
        chat = self._model.dialect.messages(image.size, expression)
        (answer,) = self._reasoner.generate([Prompt(image, chat)])
        response = self._model.dialect.parse(answer.text, image.size, answer.truncated)
        masks, scores = self._model.segmenter.segment(arg, response.instances)
        found = Prediction(response, tuple(masks), tuple(scores), image.size)
        return fo.Detections(detections=labels.detections(found, expression, "nano"))


def stored(dataset: fo.Dataset, field: str) -> list:
    """The union mask of each sample, as RLE."""
    found = []
    for sample in dataset:
        with Image.open(sample.filepath) as image:
            size = image.size
        found.append(encode_mask(labels.union_mask(sample[field], size)))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = GenSegR1.from_pretrained("nano", device="cpu")
        examples = files(Path(folder))
        dataset = fo.Dataset()
        dataset.add_samples([fo.Sample(filepath=e.image, expression=e.expression) for e in examples], progress=False)
        simple = OnePerImage(model)
        list(Roads(model, examples[:8]).model.segment_many(examples[:8]))  # warm

        def ours() -> list:
            engine = in_process(model)
            for _ in segment_view(
                dataset,
                engine,
                "nano",
                "ours",
                expression_field="expression",
                existing=OVERWRITE,
                batch_size=BATCH_SIZE,
            ):
                pass
            return "ours"

        def theirs() -> list:
            dataset.apply_model(simple, label_field="theirs", expression_field="expression", progress=False)
            return "theirs"

        def check(a: str, b: str) -> None:
            dataset.reload()
            same_masks(stored(dataset, a), stored(dataset, b))

        seconds = compare(ours, theirs, check, repetitions=3)
        work = f"{EXPRESSIONS} expressions, {PER_IMAGE} per image, through FiftyOne into MongoDB"
        against = "`apply_model` with a model that generates per image (as the qwen3-vl zoo models)"
        report([faster("3", work, against, 3, *seconds, note="three repetitions")])
        dataset.delete()


if __name__ == "__main__":
    main()
