"""Nano's architecture and tokenizer can be made again."""

from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_training.nano import architecture
from safetensors import safe_open
from transformers import AutoProcessor


def test_nano_is_built_as_it_is_embedded():
    processor, embedded = architecture.build_processor(), AutoProcessor.from_pretrained(EMBEDDED["nano"])
    assert processor.tokenizer.get_vocab() == embedded.tokenizer.get_vocab()
    assert processor.chat_template == embedded.chat_template
    assert processor.image_processor.to_dict() == embedded.image_processor.to_dict()
    built = architecture.build_reasoner(processor.tokenizer).state_dict()
    with safe_open(EMBEDDED["nano"] / "model.safetensors", "pt") as weights:
        assert all(list(built[name].shape) == weights.get_slice(name).get_shape() for name in weights.keys())  # noqa: SIM118
