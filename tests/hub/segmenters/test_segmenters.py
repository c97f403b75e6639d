"""Transformers' SAM 2 and SAM 3 in place of the sam2 package: the same masks, chosen by name, from anyone's folder."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.errors import CheckpointError
from genseg_hub.images import load_image
from genseg_hub.publishing import publish
from genseg_hub.schema import InstancePrompt, ReferringExample, decode_mask
from genseg_hub.segmenters.loading import load_segmenter
from genseg_hub.segmenters.sam2 import Sam2Segmenter, build_sam2, load_sam2
from genseg_hub.segmenters.transformers import TransformersSegmenter
from genseg_training.nano import answers, refscenes
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import PHOTOS
from tests.helpers import sam2_in_transformers, sam3_tracker
from tests.helpers.checkpoints import NANO, run
from tests.helpers.hub_server import WRITER

REPO = "me/sam"


@pytest.fixture(scope="module")
def sam2_folder(tmp_path_factory):
    """nano's trained SAM 2 as Transformers saves it."""
    return sam2_in_transformers.save(load_sam2(NANO / "segmenter"), tmp_path_factory.mktemp("sam2") / "nano")


@pytest.fixture(scope="module")
def sam2(sam2_folder):
    return load_segmenter(sam2_folder, None, "cpu")


@pytest.fixture(scope="module")
def sam3_folder(tmp_path_factory):
    return sam3_tracker.save(tmp_path_factory.mktemp("sam3") / "tracker")


@pytest.fixture(scope="module")
def sam3(sam3_folder):
    return load_segmenter(sam3_folder, None, "cpu")


def photo(name: str) -> np.ndarray:
    return np.array(load_image(PHOTOS / "images" / name))


def prompts(image: np.ndarray, seed: int) -> list[InstancePrompt]:
    """Boxes anywhere, with 0 to 2 points inside and 0 to 2 anywhere that are not meant."""
    rng, (height, width) = np.random.default_rng(seed), image.shape[:2]
    made = []
    for inside, outside in ((0, 0), (1, 0), (2, 0), (1, 1), (2, 2), (0, 1)):
        (x1, x2), (y1, y2) = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
        points = tuple((rng.uniform(x1, x2), rng.uniform(y1, y2)) for _ in range(inside))
        others = tuple((rng.uniform(0, width), rng.uniform(0, height)) for _ in range(outside))
        made.append(InstancePrompt((x1, y1, x2, y2), points, negative_points=others))
    return made


def referring() -> ReferringExample:
    return next(example for example in refscenes.refscenes("val", 20) if example.masks)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


def assert_same(ours: tuple[list, list], theirs: tuple[list, list]) -> None:
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert a.dtype == b.dtype == bool
        assert iou(a, b) > 0.99
    assert ours[1] == pytest.approx(theirs[1], abs=1e-3)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("name", ["000000000030.jpg", "000000000089.jpg"])
def test_a_trained_sam2_gives_the_masks_of_the_sam2_package(sam2, nano, name, multimask):
    image = photo(name)
    asked = prompts(image, 1)
    theirs = nano.segmenter.segment(image, asked, multimask=multimask)
    assert sum(mask.any() for mask in theirs[0]) >= 5
    assert_same(sam2.segment(image, asked, multimask=multimask), theirs)


def test_a_random_sam2_of_metas_architecture_gives_the_masks_of_the_sam2_package():
    """SAM 2.1 tiny; at half of its 1024 pixels, for the time."""
    torch.manual_seed(3)
    model = build_sam2("sam2.1/sam2.1_hiera_t", {"image_size": 512})
    size = {"height": 512, "width": 512}
    processor = transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=size))
    ours = TransformersSegmenter(sam2_in_transformers.convert(model), processor)
    image = photo("000000000030.jpg")
    asked = prompts(image, 2)
    theirs = Sam2Segmenter(model).segment(image, asked, multimask=True)
    assert all(0.01 < mask.mean() < 0.99 for mask in theirs[0])
    assert_same(ours.segment(image, asked, multimask=True), theirs)


def test_pixels_are_those_of_the_authors(sam2, sam3, nano):
    """The sam2 package keeps fractions of grey levels when it resizes; SAM 3's code and the processors round."""
    image = photo("000000000030.jpg")
    for segmenter, expected in (
        (sam2, nano.segmenter._predictor._transforms(image)),
        (sam3, sam3._processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0]),
    ):
        given: list[torch.Tensor] = []

        def keep(module, inputs, given=given):
            given.append(inputs[0][0])

        with segmenter._model.vision_encoder.register_forward_pre_hook(keep):
            segmenter.segment(image, prompts(image, 1)[:1])
        assert torch.allclose(given[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["sam2", "sam3"])
def test_whatever_stands_beside_it_an_instance_has_the_mask_that_it_has_alone(kind, request, monkeypatch):
    segmenter = request.getfixturevalue(kind)
    image = photo("000000000030.jpg")
    asked = [*prompts(image, 1), *prompts(image, 2)]
    together = segmenter.segment(image, asked)
    for prompt, mask, score in zip(asked, *together, strict=True):
        (alone,), (its,) = segmenter.segment(image, [prompt])
        assert (mask != alone).mean() < 1e-3
        assert score == pytest.approx(its, abs=1e-4)
    monkeypatch.setattr("genseg_hub.segmenter._MAX_VALUES", 1)  # no memory for two at once
    one_by_one = segmenter.segment(image, asked)
    assert all((a != b).mean() < 1e-3 for a, b in zip(one_by_one[0], together[0], strict=True))


@pytest.mark.parametrize("kind", ["sam2", "sam3"])
def test_an_image_is_embedded_once(kind, request):
    segmenter, first, second = request.getfixturevalue(kind), photo("000000000030.jpg"), photo("000000000089.jpg")
    embedded = []
    with segmenter._model.vision_encoder.register_forward_hook(lambda *_: embedded.append(1)):
        for image, key in ((first, "a"), (first, "a"), (second, "b"), (second, None), (second, None)):
            masks, scores = segmenter.segment(image, prompts(image, 1), key)
            assert [mask.shape for mask in masks] == [image.shape[:2]] * 6
            assert all(0 <= score <= 1 for score in scores)
        assert segmenter.segment(second, [], "b") == ([], [])
    assert len(embedded) == 4


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (1, 1), (3, 3)])
def test_images_of_three_rows_are_not_taken_for_channels(sam2, nano, shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    asked = [InstancePrompt((0.0, 0.0, float(shape[1]), float(shape[0])), ())]
    assert_same(sam2.segment(image, asked), nano.segmenter.segment(image, asked))


def test_an_embedding_of_16_bits_costs_no_quality(sam2, nano):
    """As on a GPU; on rendered scenes, which nano's SAM 2 was trained for."""
    half = TransformersSegmenter(sam2._model, sam2._processor, torch.bfloat16)
    examples = list(refscenes.refscenes("val", 24))
    expected = answers.segmenter_miou(nano.segmenter, examples)
    assert answers.segmenter_miou(sam2, examples) == pytest.approx(expected, abs=1e-3)
    assert answers.segmenter_miou(half, examples) == pytest.approx(expected, abs=0.01)
    assert not any(parameter.dtype == torch.bfloat16 for parameter in half._model.parameters())


def test_sam3_is_the_segmenter_of_a_checkpoint(folder, sam3_folder, nano):
    """Words to masks, from a checkpoint's folder with SAM 3 in it."""
    shutil.rmtree(folder / "segmenter")
    shutil.copytree(sam3_folder, folder / "segmenter")
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    assert isinstance(model.segmenter._model, transformers.Sam3TrackerModel)
    scene = referring()
    mine, other = (m.segment(scene.image, scene.expression) for m in (model, nano))
    assert mine.response == other.response
    assert [mask.shape for mask in mine.masks] == [mask.shape for mask in other.masks] != []
    assert model.checkpoint.pinned == str(folder)


def test_the_folder_of_a_video_model_holds_the_image_model(sam2_folder, sam2, tmp_path):
    """facebook/sam2.1-* call themselves sam2_video."""
    config = json.loads((sam2_folder / "config.json").read_text())
    small = {"memory_attention_num_layers": 1, "memory_attention_feed_forward_hidden_size": 64, "image_size": 256}
    widths = ("memory_attention", "memory_encoder")
    video = transformers.Sam2VideoModel(
        transformers.Sam2VideoConfig(
            **{name: config[name] for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")},
            **small,
            **{f"{name}_hidden_size": 64 for name in widths},
            memory_attention_rope_feat_sizes=[16, 16],
            memory_encoder_output_channels=16,
            mask_downsampler_embed_dim=64,
            memory_fuser_embed_dim=64,
        )
    )
    video.load_state_dict(sam2._model.state_dict(), strict=False)
    video.save_pretrained(tmp_path)
    transformers.Sam2VideoProcessor(
        sam2._processor.image_processor, transformers.Sam2VideoVideoProcessor()
    ).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    image = photo("000000000030.jpg")
    asked = prompts(image, 1)
    assert_same(load_segmenter(tmp_path, None, "cpu").segment(image, asked), sam2.segment(image, asked))


def test_the_folder_of_sam3_holds_the_tracker(sam3_folder, sam3, nano, tmp_path):
    """facebook/sam3 calls itself sam3_video and prefixes the names; other parts of it are left alone."""
    tracker = json.loads((sam3_folder / "config.json").read_text())
    config = {
        "model_type": "sam3_video",
        "tracker_config": tracker | {"model_type": "sam3_tracker_video", "image_size": 112},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    transformers.Sam3VideoProcessor(
        sam3._processor.image_processor, transformers.Sam2VideoVideoProcessor(), nano.reasoner.processor.tokenizer
    ).save_pretrained(tmp_path)
    prefixes = {
        "vision_encoder.backbone.": "detector_model.vision_encoder.backbone.",
        "vision_encoder.neck.": "tracker_neck.",
    }
    tensors = {
        "detector_model.detr_decoder.query_embed.weight": torch.zeros(2, 2),
        "tracker_model.memory_encoder.x": torch.zeros(2),
    }
    for name, tensor in sam3._model.state_dict().items():
        own = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        tensors[prefixes[own] + name.removeprefix(own) if own else f"tracker_model.{name}"] = tensor.clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    image = photo("000000000030.jpg")
    asked = prompts(image, 1)
    assert_same(load_segmenter(tmp_path, None, "cpu").segment(image, asked), sam3.segment(image, asked))


def _without(folder: Path, part: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if part not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: _without(f, "iou_prediction_head"), "lack 6 tensors: mask_decoder.iou_prediction_head"),
        (lambda f: _change(f / "config.json", model_type="sam3"), "is of the kind 'sam3'; a segmenter is one of sam2,"),
        (lambda f: _change(f / "config.json", model_type=["sam2"]), "is of the kind"),
        (lambda f: (f / "config.json").write_text("[]"), "is no JSON object"),
        (lambda f: (f / "config.json").write_text("{"), "config.json of the segmenter .*other cannot be read"),
        (lambda f: _change(f / "config.json", vision_config={"attn_implementation": "me/it"}), "attention 'me/it'"),
        (lambda f: (f / "processor_config.json").unlink(), "cannot be loaded from .*other"),
        (
            lambda f: _change(f / "processor_config.json", target_size=1024),
            "takes images of 256 pixels and its processor makes 256 x 256, with coordinates up to 1024",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"damaged"), "cannot be loaded from .*other"),
        (_pickled, "lacks model.safetensors"),
    ],
)
def test_a_folder_that_is_no_segmenter_is_explained(sam2_folder, tmp_path, spoil, message):
    folder = shutil.copytree(sam2_folder, tmp_path / "other")
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        GenSegR1.from_pretrained("nano", device="cpu", segmenter=str(folder))


@pytest.mark.parametrize("file", ["config.json", "processor_config.json"])
def test_a_segmenter_brings_no_code(sam2_folder, tmp_path, monkeypatch, file):
    folder = shutil.copytree(sam2_folder, tmp_path / "other")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForMaskGeneration", "AutoProcessor", "AutoImageProcessor")
    auto_map = {name: "evil.Evil" for name in names}
    config = json.loads((folder / file).read_text())
    for part in (config, config.get("image_processor", {})):
        part["auto_map"] = auto_map
    (folder / file).write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    load_segmenter(folder, None, "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("nano",), ("nano", None)),
        (("nano", "me/sam"), ("nano", "me/sam")),
        (("nano+me/sam@v1",), ("nano", "me/sam@v1")),
        (("me/a@v2+./b+c",), ("me/a@v2", "./b+c")),
        (("{a}+x+me/sam",), ("{a}+x", "me/sam")),
        (("{a}+x",), ("{a}+x", None)),
        (("{a}+x", "nano"), ("{a}+x", "nano")),
    ],
)
def test_a_name_may_carry_a_segmenter(tmp_path, given, expected):
    (tmp_path / "a+x").mkdir()
    here = str(tmp_path / "a")
    given, expected = ([part and part.format(a=here) for part in parts] for parts in (given, expected))
    assert list(checkpoints.split_segmenter(*given)) == expected


@pytest.mark.parametrize(
    ("name", "segmenter", "message"),
    [
        ("nano+", None, "must be checkpoint.segmenter"),
        ("nano+me/sam", "me/sam", "with the segmenter given once"),
        ("nano", "sam3", "the segmenter 'sam3' is neither a usable folder nor a Hub id"),
        ("nano", "./nowhere", "the segmenter './nowhere' is neither"),
        ("nano", "me/sam@", "must be owner/name@revision"),
        ("nano", "a b/c", "is not a Hub id"),
        ("nano", "x\0/y", "is not a Hub id"),
        ("+me/sam", None, "there is no checkpoint ''"),
    ],
)
def test_a_wrong_segmenter_is_explained(name, segmenter, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.pull(name, segmenter=segmenter, local_files_only=True)
    if segmenter and "+" not in name:
        with pytest.raises(CheckpointError, match=message):
            checkpoints.check_name(f"{name}+{segmenter}")


@pytest.mark.parametrize(
    "segmenter", ["../outside", "{0}/outside", "link", "a\0b", "n" * 300, "segmenter/../../outside"]
)
def test_a_checkpoint_names_no_segmenter_outside_its_folder(folder, tmp_path, segmenter):
    shutil.copytree(folder / "segmenter", tmp_path / "outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    _change(folder / checkpoints.SETTINGS_FILE, segmenter=segmenter.format(tmp_path))
    with pytest.raises(CheckpointError, match=r"is neither a usable folder nor a Hub id|is not a folder"):
        checkpoints.pull(str(folder), local_files_only=True)


def test_a_segmenter_of_the_hub_serves_any_checkpoint_and_is_pinned(hub, sam2_folder, nano, tmp_path):
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=WRITER)
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=sam2_folder).oid
    name = f"nano+{REPO}"
    planned = checkpoints.plan(name)
    assert {file.filename for file in planned.files} == {"config.json", "model.safetensors", "processor_config.json"}
    folder = shutil.copytree(NANO, tmp_path / "folder", ignore=shutil.ignore_patterns("segmenter"))
    _change(folder / checkpoints.SETTINGS_FILE, segmenter=REPO)
    assert {file.filename for file in checkpoints.plan(str(folder)).files} == {file.filename for file in planned.files}
    assert not checkpoints.is_on_disk(name)
    pulled = run("pull", name)
    assert pulled.exit_code == 0, pulled.output
    assert checkpoints.is_on_disk(name)
    model = GenSegR1.from_pretrained("nano", device="cpu", segmenter=REPO)
    assert model.checkpoint.pinned == f"nano+{REPO}@{first}"
    assert model.checkpoint.segmenter_id == REPO
    assert isinstance(model.segmenter, TransformersSegmenter)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=REPO)
    again = GenSegR1.from_pretrained(model.checkpoint.pinned, device="cpu")
    assert again.checkpoint.pinned == model.checkpoint.pinned == f"nano+{again.checkpoint.segmenter_id}"
    scene = referring()
    for a, b in zip(*(m.segment(scene.image, scene.expression).masks for m in (again, nano)), strict=True):
        assert iou(a, b) > 0.99


def test_a_checkpoint_with_sam3_is_published_whole(hub, folder, sam3_folder):
    shutil.rmtree(folder / "segmenter")
    shutil.copytree(sam3_folder, folder / "segmenter")
    publish.push(folder, "me/words")
    model = GenSegR1.from_pretrained("me/words", device="cpu")
    assert isinstance(model.segmenter._model, transformers.Sam3TrackerModel)


def test_genseg_segment_takes_a_segmenter(sam2_folder, tmp_path):
    scene = referring()
    Image.fromarray(np.array(load_image(scene.image))).save(tmp_path / "scene.png")
    command = ("segment", tmp_path / "scene.png", scene.expression, "--json", "--device", "cpu")
    given = [json.loads(run(*command, *extra).stdout) for extra in ((), ("--segmenter", sam2_folder))]
    assert [result["model"] for result in given] == ["nano", f"nano+{sam2_folder}"]
    masks = [[decode_mask(instance["mask"]) for instance in result["instances"]] for result in given]
    assert masks[0]
    for a, b in zip(*masks, strict=True):
        assert iou(a, b) > 0.99


def test_threads_that_share_a_segmenter_get_their_own_masks(nano):
    asked = [(scene.image, prompts(scene.image, seed)) for seed, scene in enumerate(refscenes.refscenes("val", 40))]
    alone = [nano.segmenter.segment(*one, key=i // 4)[0] for i, one in enumerate(asked)]

    def thread(order):
        return {i: nano.segmenter.segment(*asked[i], key=i // 4)[0] for i in order}

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(thread, (range(40), range(39, -1, -1))):
            assert all(np.array_equal(found[i], masks) for i, masks in enumerate(alone))
