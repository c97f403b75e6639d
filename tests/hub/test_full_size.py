"""The same classes at full size instead of nano's, with random weights, on a photograph."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from genseg_hub import GenSegR1, ReferringExample, checkpoints, dialects
from genseg_hub.checkpoints.catalog import SAM2_REPOSITORIES
from genseg_hub.errors import CheckpointError
from genseg_hub.images import load_image
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.schema import InstancePrompt
from genseg_hub.segmenters.sam2 import Sam2Segmenter, build_sam2

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "photos" / "images" / "000000000030.jpg"


@pytest.fixture(scope="module")
def large_reasoner(nano):
    """Make a Qwen3-VL of 250 million parameters, with an image processor at Qwen3-VL's own limits."""
    small = nano.reasoner.model.config
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": small.text_config.vocab_size,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 8,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_heads": 12,
            "out_hidden_size": 1024,
            "deepstack_visual_indexes": [2, 4],
        },
        **{name: getattr(small, name) for name in tokens},
    )
    model = transformers.Qwen3VLForConditionalGeneration(config)
    assert sum(p.numel() for p in model.parameters()) > 200e6
    model.generation_config = nano.reasoner.model.generation_config
    processor = transformers.AutoProcessor.from_pretrained(checkpoints.pull("nano").reasoner)
    processor.image_processor.size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    return TransformersReasoner(model, processor, max_new_tokens=4)


@pytest.fixture(scope="module")
def large_segmenter():
    torch.manual_seed(0)
    return Sam2Segmenter(build_sam2("sam2.1/sam2.1_hiera_l"))


def test_the_pipeline_at_full_size(large_reasoner, large_segmenter):
    model = GenSegR1(large_reasoner, large_segmenter, dialects.get_dialect("qwen3_vl"))
    (prediction,) = model.segment_many([ReferringExample(PHOTO, "the vase")])
    assert prediction.image_size == (640, 428)
    assert prediction.mask.shape == (428, 640)


def test_sam2_large_segments_at_1024_pixels(large_segmenter):
    image = np.asarray(load_image(PHOTO))
    prompts = [
        InstancePrompt((100.0, 50.0, 300.0, 400.0), ((200.0, 200.0), (150.0, 300.0))),
        InstancePrompt((0.0, 0.0, 50.0, 60.0), ()),
    ]
    masks, scores = large_segmenter.segment(image, prompts)
    assert [mask.shape for mask in masks] == [image.shape[:2]] * 2
    assert all(0 <= score <= 1 for score in scores)


def test_a_hub_sam2_is_loaded_from_its_weights_file(monkeypatch, tmp_path):
    """Load a .pt file, in which facebook/sam2.1-* keep their weights."""
    config, name = SAM2_REPOSITORIES["facebook/sam2.1-hiera-tiny"]
    torch.manual_seed(1)
    saved = build_sam2(config)
    torch.save({"model": saved.state_dict()}, tmp_path / name)
    nano = checkpoints.pull("nano")
    pulled = checkpoints.Checkpoint("owner/name", nano.reasoner, tmp_path / name, config, "qwen3_vl")
    monkeypatch.setattr(checkpoints, "pull", lambda *args, **options: pulled)
    loaded = GenSegR1.from_pretrained("owner/name", device="cpu").segmenter
    image = np.asarray(load_image(PHOTO))
    prompts = [InstancePrompt((100.0, 50.0, 300.0, 400.0), ((200.0, 200.0), (150.0, 300.0)))]
    (mask,), scores = loaded.segment(image, prompts)
    (expected,), their_scores = Sam2Segmenter(saved).segment(image, prompts)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(mask, expected)
    assert scores == their_scores


def test_a_weights_file_that_would_run_code_is_refused(monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    config, name = SAM2_REPOSITORIES["facebook/sam2.1-hiera-tiny"]
    torch.save({"model": Evil()}, tmp_path / name)
    nano = checkpoints.pull("nano")
    pulled = checkpoints.Checkpoint("owner/name", nano.reasoner, tmp_path / name, config, "qwen3_vl")
    monkeypatch.setattr(checkpoints, "pull", lambda *args, **options: pulled)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        GenSegR1.from_pretrained("owner/name", device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("repository", sorted(SAM2_REPOSITORIES))
def test_every_sam2_of_the_hub_has_its_configuration_in_the_package(repository):
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    config, weights = SAM2_REPOSITORIES[repository]
    assert HF_MODEL_ID_TO_FILENAMES[repository] == (f"configs/{config}.yaml", weights)
