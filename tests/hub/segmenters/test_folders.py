"""Folders of segmenters: folders of larger models, damaged folders, and folders with a stranger's code."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from genseg_hub import GenSegR1
from genseg_hub.errors import CheckpointError
from genseg_hub.segmenters.loading import load_segmenter
from safetensors.torch import load_file, save_file

from tests.helpers.segmenting import assert_same, photo, prompts


def test_the_folder_of_a_video_model_holds_the_image_model(sam2_folder, sam2_parts, sam2, tmp_path):
    """Load a folder of the kind sam2_video, like the folders of facebook/sam2.1-*."""
    model, processor = sam2_parts
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
    video.load_state_dict(model.state_dict(), strict=False)
    video.save_pretrained(tmp_path)
    transformers.Sam2VideoProcessor(processor.image_processor, transformers.Sam2VideoVideoProcessor()).save_pretrained(
        tmp_path
    )
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    image = photo()
    asked = prompts(image, 1)
    assert_same(load_segmenter(tmp_path, None, "cpu").segment(image, asked), sam2.segment(image, asked))


def test_the_folder_of_sam3_holds_the_tracker(sam3_folder, sam3_parts, sam3, nano, tmp_path):
    """Load a folder of the kind sam3_video, like facebook/sam3, with prefixed names and further parts."""
    model, processor = sam3_parts
    tracker = json.loads((sam3_folder / "config.json").read_text())
    config = {
        "model_type": "sam3_video",
        "tracker_config": tracker | {"model_type": "sam3_tracker_video", "image_size": 112},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    transformers.Sam3VideoProcessor(
        processor.image_processor, transformers.Sam2VideoVideoProcessor(), nano.reasoner.processor.tokenizer
    ).save_pretrained(tmp_path)
    prefixes = {
        "vision_encoder.backbone.": "detector_model.vision_encoder.backbone.",
        "vision_encoder.neck.": "tracker_neck.",
    }
    tensors = {
        "detector_model.detr_decoder.query_embed.weight": torch.zeros(2, 2),
        "tracker_model.memory_encoder.x": torch.zeros(2),
    }
    for name, tensor in model.state_dict().items():
        own = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        tensors[prefixes[own] + name.removeprefix(own) if own else f"tracker_model.{name}"] = tensor.clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    image = photo()
    asked = prompts(image, 1)
    assert_same(load_segmenter(tmp_path, None, "cpu").segment(image, asked), sam3.segment(image, asked))


def without(folder: Path, part: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if part not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: without(f, "iou_prediction_head"), "lack 6 tensors: mask_decoder.iou_prediction_head"),
        (lambda f: change(f / "config.json", model_type="sam3"), "is of the kind 'sam3'; a segmenter is one of sam2,"),
        (lambda f: change(f / "config.json", model_type=["sam2"]), "is of the kind"),
        (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
        (lambda f: (f / "config.json").write_text("{"), "config.json of the segmenter .*other cannot be read"),
        (lambda f: change(f / "config.json", vision_config={"attn_implementation": "me/it"}), "attention 'me/it'"),
        (lambda f: (f / "processor_config.json").unlink(), "cannot be loaded from .*other"),
        (
            lambda f: change(f / "processor_config.json", target_size=1024),
            "takes images of 256 pixels and its processor makes 256 x 256, with coordinates up to 1024",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"damaged"), "cannot be loaded from .*other"),
        (pickled, "lacks model.safetensors"),
    ],
)
def test_a_folder_that_is_no_segmenter_is_explained(sam2_folder, tmp_path, spoil, message):
    folder = shutil.copytree(sam2_folder, tmp_path / "other")
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        GenSegR1.from_pretrained("nano", device="cpu", segmenter=str(folder))


@pytest.mark.parametrize("file", ["config.json", "processor_config.json"])
def test_code_in_a_segmenters_folder_does_not_run(sam2_folder, tmp_path, monkeypatch, file):
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
