"""SAM 3 by words: the true class, tiny, with random weights, from its folder to the masks."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, checkpoints, memory
from genseg_hub.checkpoints import fingerprint
from genseg_hub.errors import CheckpointError, SegmenterError
from genseg_hub.options import ReasonerOptions
from genseg_hub.questions import WHOLE_PIXELS
from genseg_hub.schema import Failure, InstancePrompt, ReferringExample, Response
from genseg_hub.segmenters import words as module
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers import sam3_tracker, sam3_words
from tests.helpers.hub_server import WRITER
from tests.helpers.sam3_words import FOUND, NOT_FOUND, picture


@pytest.fixture(scope="module")
def model(sam3_folder):
    return GenSegR1.from_pretrained(str(sam3_folder), device="cpu")


def transformers_own(folder, image, phrase, size):
    """Return scores, boxes and masks (height, width) as Transformers' own processing gives them."""
    model = transformers.Sam3Model.from_pretrained(folder).eval()
    processor = transformers.Sam3Processor.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(image), text=phrase, return_tensors="pt")
    (result,) = processor.image_processor.post_process_instance_segmentation(
        sam3_words.outputs(model, inputs), threshold=0.5, mask_threshold=0.5, target_sizes=[size]
    )
    return result


@pytest.mark.parametrize("phrase", [*FOUND, *NOT_FOUND])
def test_the_masks_are_transformers_own(model, words, sam3_folder, phrase):
    image = picture()
    found, own = model.segment(image, phrase), transformers_own(sam3_folder, image, phrase, image.shape[:2])
    assert bool(found.masks) == (phrase in FOUND)
    assert found.scores == pytest.approx(own["scores"].tolist(), abs=1e-5)
    for mask, other in zip(found.masks, own["masks"], strict=True):
        assert mask.dtype == bool
        assert mask.shape == image.shape[:2]
        # Transformers resizes probabilities, and the authors resize logits: pixels on borders differ, and noise has
        # many. At the model's own size nothing is resized.
        assert (mask == other.numpy().astype(bool)).mean() > 0.8
    (unresized,) = words.find(image, [phrase], size=(32, 32))
    own_masks = transformers_own(sam3_folder, image, phrase, (32, 32))["masks"]
    for mask, other in zip(unresized.masks, own_masks, strict=True):
        assert (mask == other.numpy().astype(bool)).all()
    for instance, box in zip(found.response.instances, own["boxes"].tolist(), strict=True):
        inside = np.clip(box, 0, [140, 90, 140, 90])
        if inside[2] - inside[0] >= 1 and inside[3] - inside[1] >= 1:
            assert instance.box == pytest.approx(inside, abs=0.05)


def test_the_memory_is_forecast_before_loading(model, sam3_folder, tmp_path, monkeypatch):
    """Also as the tool of an agent: weights in float32, and 0.7 GB for an image."""
    weights = load_file(sam3_folder / "model.safetensors").values()
    whole = 4 * sum(tensor.numel() for tensor in weights) + 700_000_000
    stray = shutil.copytree(sam3_folder, tmp_path / "stray")
    (stray / "._model.safetensors").write_bytes(b"of a Mac")
    for name in (str(sam3_folder), f"nano+sam3-agent:{sam3_folder}", f"nano+sam3-agent:{stray}"):
        assert memory.forecast(checkpoints.pull(name), ReasonerOptions(), 4, 100, 1).segmenter == whole

    def loads(*args, **kwargs):
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(memory, "free_bytes", lambda target: 600_000_000)
    monkeypatch.setattr(module.Words, "load", loads)
    with pytest.raises(CheckpointError, match=r"needs about 70\d\.\d MB, and cpu has 600\.0 MB free\. What would"):
        GenSegR1.from_pretrained(str(sam3_folder), device="cpu")


def test_nothing_found_is_no_target(model):
    nothing = model.segment(picture(), NOT_FOUND[0])
    assert nothing.response.no_target
    assert not nothing.mask.any()
    assert nothing.mask.shape == (90, 140)
    assert (nothing.response.reasoning, nothing.response.text, nothing.dialect) == ("", "", "")
    assert nothing.response.tokens == 0


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_stream_answers_as_one_by_one(model, batch_size):
    images = [picture(0), picture(1), picture(0)]
    asked = [ReferringExample(image, phrase) for image in images for phrase in (*FOUND, *NOT_FOUND)]
    asked.insert(5, ReferringExample("no/such/file.png", "dog"))
    asked.insert(9, ReferringExample(images[0], "   "))
    results = list(model.segment_many(asked, batch_size))
    assert [i for i, result in enumerate(results) if isinstance(result, Failure)] == [5, 9]
    for example, result in zip(asked, results, strict=True):
        if not isinstance(result, Failure):
            alone = model.segment(example.image, example.expression)
            assert result.scores == pytest.approx(alone.scores, abs=1e-5)
            assert all((a == b).mean() > 0.999 for a, b in zip(result.masks, alone.masks, strict=True))


def test_a_question_of_the_app_ends_with_the_masks(model):
    states = list(model.ask(picture(), FOUND[0]))
    assert states[-1].prediction.scores == model.segment(picture(), FOUND[0]).scores
    assert all(state.prediction is None for state in states[:-1])


def test_an_image_is_encoded_once_for_all_phrases(words, monkeypatch):
    calls = []
    encode = words._model.get_vision_features
    monkeypatch.setattr(words._model, "get_vision_features", lambda *a, **k: calls.append(1) or encode(*a, **k))
    words.release()
    for phrase in FOUND:
        words.find(picture(), [phrase], key="one")
    assert len(calls) == 1


def test_a_large_image_is_reduced_and_its_masks_are_whole(model):
    small = picture()
    large = np.array(Image.fromarray(small).resize((2100, 1350), Image.Resampling.NEAREST))
    assert large.shape[0] * large.shape[1] > WHOLE_PIXELS
    found = [model.segment(large, phrase) for phrase in FOUND]
    assert any(prediction.masks for prediction in found)
    for prediction in found:
        assert all(mask.shape == (1350, 2100) for mask in prediction.masks)
        for instance in prediction.response.instances:
            x1, y1, x2, y2 = instance.box
            assert 0 <= x1 < x2 <= 2100
            assert 0 <= y1 < y2 <= 1350


def test_a_long_phrase_is_cut_with_a_warning(words, caplog):
    (cut,) = words.find(picture(), ["x" * 50])
    assert "SAM 3 reads 32 of the 52 tokens of 'xxx" in caplog.text
    (shorter,) = words.find(picture(), ["x" * 30 + "y"])  # 31 letters: the last one becomes the end
    assert len(cut.masks) == len(shorter.masks)
    caplog.clear()
    words.find(picture(), ["x" * 30])
    assert not caplog.text


def test_the_masks_with_the_best_scores_are_kept_where_there_is_no_room(words, monkeypatch):
    phrase = "one person"
    (whole,) = words.find(picture(), [phrase])
    monkeypatch.setattr(module, "MAX_INSTANCES", 2)
    (part,) = words.find(picture(), [phrase])
    assert sorted(part.scores) == sorted(whole.scores)[-2:]
    assert part.left_out == len(whole.scores) - 2 > 0


def test_scores_that_are_no_numbers_are_an_error(sam3_folder):
    broken = module.Words(sam3_words.model(), sam3_words.processor())
    with torch.no_grad():
        broken._model.text_projection.weight.fill_(float("nan"))
    with pytest.raises(SegmenterError, match="a score that is no number"):
        broken.find(picture(), ["dog"])


def test_boxes_of_a_person_are_refused(model):
    moved = Response("", instances=(InstancePrompt((1, 1, 50, 50), ()),))
    with pytest.raises(SegmenterError, match="takes no boxes and no points"):
        model.segment_prompts(picture(), moved)


def test_the_folder_of_a_video_model_holds_the_detector(sam3_folder, model, tmp_path):
    """Load a folder of the kind sam3_video, like facebook/sam3, with prefixed names and further parts."""
    own = json.loads((sam3_folder / "config.json").read_text())
    tracker = sam3_tracker.model()
    config = {
        "model_type": "sam3_video",
        "architectures": ["Sam3VideoModel"],
        "detector_config": own,
        "tracker_config": tracker.config.to_dict() | {"model_type": "sam3_tracker_video", "image_size": 112},
    }
    folder = tmp_path / "video"
    shutil.copytree(sam3_folder, folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {f"detector_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    own_parts = {name: tensor for name, tensor in tracker.state_dict().items() if "vision" not in name}
    weights |= {f"tracker_model.{name}": tensor.clone().contiguous() for name, tensor in own_parts.items()}
    save_file(weights, folder / "model.safetensors")
    checkpoints.check_available(str(folder))
    video = GenSegR1.from_pretrained(str(folder), device="cpu")
    for phrase in FOUND:
        a, b = video.segment(picture(), phrase), model.segment(picture(), phrase)
        assert a.scores == pytest.approx(b.scores, abs=1e-6)
        assert all((x == y).all() for x, y in zip(a.masks, b.masks, strict=True))


def test_weights_that_lack_a_tensor_are_refused(sam3_folder, tmp_path):
    folder = tmp_path / "torn"
    shutil.copytree(sam3_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lack 1 tensors: text_projection\.weight"):
        GenSegR1.from_pretrained(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("{}+nano", {}, "is SAM 3, which makes its own masks; leave the segmenter 'nano' out"),
        ("{}", {"max_pixels": 400, "dtype": "float32"}, "has no reasoner; leave max_pixels, dtype out"),
        ("{}", {"dialect": "qwen3_vl"}, "takes words and has no dialect; leave 'qwen3_vl' out"),
        ("{}", {"server": "http://localhost:1/v1"}, "has no reasoner; leave server out"),
        ("{}", {"revision": "main"}, "has no revisions"),
    ],
)
def test_what_sam3_does_not_have_is_refused(sam3_folder, name, options, message):
    with pytest.raises(CheckpointError, match=message):
        GenSegR1.from_pretrained(name.format(sam3_folder), device="cpu", **options)


def test_a_dialect_in_its_settings_is_refused(sam3_folder, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(sam3_folder, folder)
    (folder / "genseg.json").write_text('{"dialect": "genseg"}')
    with pytest.raises(CheckpointError, match="has no dialect; leave 'genseg' out"):
        checkpoints.check_available(str(folder))


def test_it_is_neither_saved_nor_trained_nor_served(model, sam3_folder, tmp_path):
    with pytest.raises(CheckpointError, match="nothing here changes it: copy"):
        model.save_pretrained(tmp_path / "new")
    with pytest.raises(CheckpointError, match="cannot be trained: it is SAM 3, which has no reasoner"):
        model.checkpoint.check_reasons("trained")
    assert checkpoints.is_sam3(str(sam3_folder))
    assert checkpoints.is_sam3("facebook/sam3")
    assert not checkpoints.is_sam3("nano")


def test_its_fingerprint_is_of_its_files(sam3_folder, tmp_path):
    who = fingerprint.identify(str(sam3_folder))
    assert who == {"model": "by-words0/sam3", "dialect": "", "segmenter": ".", "checksum": who["checksum"]}
    other = sam3_words.save(tmp_path / "by-words0" / "sam3", seed=1)
    assert fingerprint.identify(str(other))["checksum"] != who["checksum"]
    copied = tmp_path / "again" / "sam3"
    shutil.copytree(sam3_folder, copied)
    assert fingerprint.identify(str(copied))["checksum"] == who["checksum"]


def test_a_repository_is_pulled_by_its_name(hub, sam3_folder):
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=WRITER)
    api.create_repo("me/sam3")
    api.upload_folder(repo_id="me/sam3", folder_path=sam3_folder)
    planned = checkpoints.plan("me/sam3")
    assert "model.safetensors" in {file.filename for file in planned.files}
    model = GenSegR1.from_pretrained("me/sam3", device="cpu")
    assert model.checkpoint.takes_words
    assert model.checkpoint.pinned == f"me/sam3@{model.checkpoint.commit}"
    assert fingerprint.identify("me/sam3")["model"] == model.checkpoint.pinned
    assert model.segment(picture(), FOUND[0]).masks
    assert checkpoints.is_sam3("me/sam3")
