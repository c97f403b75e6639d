"""SAM 3 by words beside FiftyOne's own zoo model: the same weights give the same detections."""

from types import SimpleNamespace

import fiftyone.utils.sam as fosam
import fiftyone.utils.sam3 as fosam3
import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1
from PIL import Image

from fiftyone_genseg import labels
from tests.helpers import sam3_words
from tests.helpers.sam3_words import FOUND, NOT_FOUND, picture

PHRASES = [*FOUND, *NOT_FOUND]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sam3_words.save(tmp_path_factory.mktemp("zoo") / "sam3")


def as_the_zoo_reads(folder, image, phrases, monkeypatch):
    """Return FiftyOne's detections of the model's raw output; one query for each phrase, as its zoo model makes them.

    The package sam3 gives FiftyOne the model and one function, which is PyTorch's for inputs that are not empty.
    """
    interpolate = SimpleNamespace(data_misc=SimpleNamespace(interpolate=torch.nn.functional.interpolate))
    monkeypatch.setattr(fosam3, "sam3", SimpleNamespace(model=interpolate))
    model = transformers.Sam3Model.from_pretrained(folder).eval()
    processor = transformers.Sam3Processor.from_pretrained(folder)
    inputs = [processor(images=Image.fromarray(image), text=phrase, return_tensors="pt") for phrase in phrases]
    raw = [sam3_words.outputs(model, one) for one in inputs]
    output = {
        "pred_logits": torch.cat([one.pred_logits for one in raw])[..., None],
        "pred_masks": torch.cat([one.pred_masks for one in raw]),
        "presence_logit_dec": torch.cat([one.presence_logits for one in raw]),
    }
    size = image.shape[:2]
    concepts = fosam3.SAM3ConceptSegmenterOutputProcessor()([output], [size], query_texts=[list(phrases)])
    said = [one["detection_labels"] for one in concepts]
    (found,) = fosam.SAMSegmenterOutputProcessor()(concepts, [size], labels=said)
    return found.detections


def test_detections_are_those_of_fiftyones_zoo(folder, monkeypatch):
    image = picture()
    zoo = as_the_zoo_reads(folder, image, PHRASES, monkeypatch)
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    ours = []
    for phrase in PHRASES:
        ours += labels.detections(model.segment(image, phrase), label=phrase)
    assert len({detection.label for detection in zoo}) == len(FOUND)
    assert [detection.label for detection in ours] == [detection.label for detection in zoo]
    for mine, other in zip(ours, zoo, strict=True):
        assert mine.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert mine.bounding_box == pytest.approx(other.bounding_box)
        assert (np.asarray(mine.mask) == np.asarray(other.mask)).all()
