"""A tiny SAM 3 that takes words, with random weights: the true class, its processor and a tokenizer of letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.helpers import sam3_tracker

SIDE = 112
SEED = 123
FOUND = ("a", "cat", "one person", "sky")  # in `picture`, by `model()`
NOT_FOUND = ("dog", "red circle", "the big blue thing", "the cup")
_SMALL = {"hidden_size": 64, "num_attention_heads": 2}
_CONFIG = {
    "vision_config": sam3_tracker.VISION,
    "text_config": {
        "model_type": "clip_text_model",
        "vocab_size": 514,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
        "eos_token_id": 513,
        "bos_token_id": 512,
    },
    "geometry_encoder_config": _SMALL | {"num_layers": 1, "intermediate_size": 64},
    "detr_encoder_config": _SMALL | {"num_layers": 1, "intermediate_size": 64},
    "detr_decoder_config": _SMALL | {"num_layers": 2, "intermediate_size": 64, "num_queries": 8},
    "mask_decoder_config": _SMALL | {"num_upsampling_stages": 3},
}


def model(seed: int = SEED) -> transformers.Sam3Model:
    """Return the model; its scores are spread over both sides of the threshold, so that some queries are kept."""
    torch.manual_seed(seed)
    made = transformers.Sam3Model(transformers.Sam3Config(**_CONFIG)).eval()
    for name, parameter in made.named_parameters():  # the usual small weights would make every answer the same
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2 if "embed" in name else 1.2 / parameter.shape[-1] ** 0.5)
    return made


def processor() -> transformers.Sam3Processor:
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    size = {"height": SIDE, "width": SIDE}
    return transformers.Sam3Processor(transformers.Sam3ImageProcessor(size=size), tokenizer)


def save(folder: Path, seed: int = SEED) -> Path:
    """Write the folder of a `sam3`, as Transformers saves it."""
    model(seed).save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


@torch.no_grad()
def outputs(model: transformers.Sam3Model, inputs: dict[str, torch.Tensor]) -> transformers.utils.ModelOutput:
    """Return what the authors' model gives for a prompt without boxes, by the parts of Transformers' model.

    The prompt is the text and the token of the geometry encoder, which has looked at the image.
    `Sam3Model.forward` leaves the token out if there are no boxes, so both go in as the text here.
    """
    vision = model.vision_encoder(inputs["pixel_values"])
    encoder = model.geometry_encoder
    seen, where = vision.fpn_hidden_states[-2], vision.fpn_position_encoding[-2]
    token = encoder.prompt_layer_norm(encoder.final_proj(encoder.cls_embed.weight[None]))
    for layer in encoder.layers:
        token = layer(token, seen.flatten(2).transpose(1, 2), where.flatten(2).transpose(1, 2), None)
    token = encoder.output_layer_norm(token)
    text = model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    text.pooler_output = torch.cat([text.pooler_output, token], 1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(inputs["attention_mask"][:, :1])], 1)
    return model(vision_embeds=vision, text_embeds=text, attention_mask=mask)


def picture(seed: int = 0) -> np.ndarray:
    """Return uint8[90, 140, 3] of noise; `model()` finds something in it for FOUND."""
    return np.random.default_rng(seed).integers(0, 255, (90, 140, 3), dtype=np.uint8)
