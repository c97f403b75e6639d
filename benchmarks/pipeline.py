"""Time 300 expressions of RefScenes from files to COCO RLE against two other ways.

python benchmarks/pipeline.py

Each image has three expressions. The other ways are small loops that work as the public scripts of their models, with
the same checkpoint (nano):
- one query at a time, as Seg-R1: `generate` for a batch of one, an embedding of the image for each query, and one
  decoding of SAM 2 per box; the masks are OR-ed;
- batch generate, then SAM 2 query by query, as the evaluation scripts of Seg-Zero and VisionReasoner.
A third row compares the pipeline with its models alone: `generate` in batches of the same size, then SAM 2 on the same
prompts with one embedding per image.
"""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np
from genseg_hub import GenSegR1, Prediction, ReferringExample
from genseg_hub.answers import read
from genseg_hub.images import load_image
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import Rle, encode_mask
from genseg_training.nano.refscenes import refscenes
from PIL import Image
from pycocotools import mask as coco_mask
from side_by_side import REPETITIONS, Row, compare, faster, parser, report

EXPRESSIONS, PER_IMAGE, BATCH_SIZE = 300, 3, 32


def files(folder: Path, expressions: int = EXPRESSIONS, per_image: int = PER_IMAGE) -> list[ReferringExample]:
    """Write scenes as PNG files and return the first expressions of each."""
    found = []
    for image_id, of_one in groupby(refscenes("val"), key=lambda example: example.image_id):
        scene = list(of_one)[:per_image]
        Image.fromarray(scene[0].image).save(folder / f"{image_id}.png")
        found += [ReferringExample(str(folder / f"{image_id}.png"), example.expression) for example in scene]
        if len(found) >= expressions:
            break
    return found[:expressions]


class Roads:
    """The ways from examples to RLE, all with the weights of one model.

    Args:
        model: model with nano's weights.
        examples: their images are files.
    """

    def __init__(self, model: GenSegR1, examples: list[ReferringExample]):
        own = model.reasoner
        self.model, self.examples = model, examples
        self.simple = TransformersReasoner(own.model, own.processor, own.max_new_tokens)
        self.predictor = model.segmenter._predictor

    def ours(self) -> list[Rle]:
        """Segment with this project's pipeline."""
        results = self.model.segment_many(self.examples, BATCH_SIZE)
        return [encode_mask(result.mask) for result in results if isinstance(result, Prediction)]

    def one_query_at_a_time(self) -> list[Rle]:
        """Segment one expression after the other."""
        return [
            self._sam_query_by_query(example, answer)
            for example in self.examples
            for answer in self._generate([example])
        ]

    def batches_then_sam_query_by_query(self) -> list[Rle]:
        """Answer in batches and segment one expression after the other."""
        found = []
        for start in range(0, len(self.examples), BATCH_SIZE):
            batch = self.examples[start : start + BATCH_SIZE]
            found += [self._sam_query_by_query(e, a) for e, a in zip(batch, self._generate(batch), strict=True)]
        return found

    def generate_alone(self) -> list:
        """Answer in batches, without masks."""
        answers = []
        for start in range(0, len(self.examples), BATCH_SIZE):
            answers += self._generate(self.examples[start : start + BATCH_SIZE])
        return answers

    def sam_alone(self, responses: list) -> None:
        """Segment responses with one embedding per image and one decoding per expression."""
        for example, response in zip(self.examples, responses, strict=True):
            if response.instances:
                self.model.segmenter.segment(np.array(load_image(example.image)), response.instances, example.image)

    def responses(self) -> list:
        """Return the parsed answers."""
        return [
            read(self.model.dialect, answer.text, load_image(example.image).size, answer.truncated)
            for example, answer in zip(self.examples, self.generate_alone(), strict=True)
        ]

    def _generate(self, batch: list[ReferringExample]) -> list:
        images = [load_image(example.image) for example in batch]
        chats = [self.model.dialect.messages(i.size, e.expression) for i, e in zip(images, batch, strict=True)]
        return self.simple.generate([Prompt(image, chat) for image, chat in zip(images, chats, strict=True)])

    def _sam_query_by_query(self, example: ReferringExample, answer) -> Rle:
        image = load_image(example.image)
        union = np.zeros((image.height, image.width), dtype=bool)
        instances = read(self.model.dialect, answer.text, image.size, answer.truncated).instances
        if instances:
            self.predictor.set_image(np.array(image))
        for instance in instances:
            masks, _, _ = self.predictor.predict(
                point_coords=np.array(instance.points, dtype=np.float32),
                point_labels=np.ones(len(instance.points)),
                box=np.array(instance.box, dtype=np.float32) if instance.box else None,
                multimask_output=False,
            )
            union |= masks[0] > 0
        return encode_mask(union)


def same_masks(ours: list[Rle], theirs: list[Rle]) -> None:
    """Raise unless every expression has an IoU above 0.999; two empty masks agree."""
    assert len(ours) == len(theirs) > 0
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        either = coco_mask.area(coco_mask.merge([a, b]))
        both = coco_mask.area(coco_mask.merge([a, b], intersect=True))
        assert both >= 0.999 * either, f"expression {number}: IoU {both / either:.4f}"


def main() -> None:
    """Time the ways in pairs and report the rows."""
    options = parser(__doc__).parse_args()
    expressions, repetitions, more = (24, 1, 1) if options.quick else (EXPRESSIONS, 3, REPETITIONS)
    with tempfile.TemporaryDirectory() as folder:
        roads = Roads(GenSegR1.from_pretrained("nano", device="cpu"), files(Path(folder), expressions))
        list(roads.model.segment_many(roads.examples[:8]))  # warm
        work = f"{expressions} expressions, {PER_IMAGE} per image, to RLE"
        one = compare(roads.ours, roads.one_query_at_a_time, same_masks, repetitions)
        rows = [faster("1", work, "one query at a time (as Seg-R1)", 4, *one, note=f"repetitions: {repetitions}")]
        batched = compare(roads.ours, roads.batches_then_sam_query_by_query, same_masks, more)
        against = "batch generate, then SAM 2 query by query (as Seg-Zero, VisionReasoner)"
        rows.append(faster("2", work, against, 2, *batched))
        responses = roads.responses()
        generate, sam = compare(
            roads.generate_alone, lambda: roads.sam_alone(responses), lambda a, b: None, repetitions
        )
        parts = [g + s for g, s in zip(generate, sam, strict=True)]
        overhead = median(batched[0]) / median(parts) - 1
        note = f"`generate` alone {median(generate):.2f} s, SAM 2 alone {median(sam):.2f} s"
        rows.append(
            Row(
                "4",
                "our pipeline",
                "its models alone",
                "<= +10 %",
                batched[0],
                parts,
                f"{overhead:+.0%}",
                overhead <= 0.1,
                note,
            )
        )
        report(rows, options.out)


if __name__ == "__main__":
    main()
