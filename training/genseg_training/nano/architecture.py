"""Build nano's reasoner and tokenizer: the real classes at a tiny size.

`vision` and `sft` train the reasoner. `segmenter` builds and trains nano's SAM 2.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from importlib import resources
from typing import Any

import torch
import transformers
from genseg_hub.dialects import genseg
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from genseg_training.nano import answers, expressions, scenes

CONTROL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# Ordinary text that Qwen3-VL's tokenizer keeps whole, and fixed pieces of an answer.
WHOLE_TOKENS = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>", "<answer>",
    "</answer>", '{"bbox_2d":[', '],"points":[[', "],[", "]]}",
)  # fmt: skip
FIRST_NUMBER, LAST_NUMBER = 10, 1000  # coordinates that are one token; 0 to 9 are bytes anyway
PIXELS = 256 * 256  # every image is resized to about this many pixels, its aspect ratio kept
PATCH = 16
MERGE = 2


def _corpus(count: int) -> Iterator[str]:
    rng = random.Random("nano-tokenizer")
    for _ in range(count):
        scene = scenes.scene(rng, allow_held_out=False)
        query = expressions.refer(rng, scene, allow_held_out=False)
        yield f"Expression: {query.expression}\n{answers.reasoning(query, scene)}"
    for _ in range(count // 10):
        yield genseg.INSTRUCTIONS + "\nsystem\nuser\nassistant\n"


def build_tokenizer(vocabulary: int = 768) -> Tokenizer:
    """Train byte-level BPE over RefScenes' words, and add Qwen3-VL's control tokens.

    Args:
        vocabulary: tokens of the BPE, without control, number and whole tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.Split(Regex(r" ?\p{L}+|[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(1500), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL_TOKENS])
    numbers = tuple(str(number) for number in range(FIRST_NUMBER, LAST_NUMBER + 1))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in WHOLE_TOKENS + numbers])
    return tokenizer


def build_processor() -> transformers.Qwen3VLProcessor:
    """Build a Qwen3VLProcessor with Qwen3-VL's chat template.

    The processor resizes each image to about 256 x 256 pixels.
    """
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=4096,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
    )
    vision: dict[str, Any] = {
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": PIXELS, "longest_edge": PIXELS},
    }
    template = resources.files("trl").joinpath("chat_templates", "qwen3_vl.jinja").read_text()
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**vision),
        video_processor=transformers.Qwen3VLVideoProcessor(**vision),
        tokenizer=tokenizer,
        chat_template=template,
    )


def number_tokens(tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (ids, values) of the coordinate tokens, int64[991] each.

    Args:
        tokenizer: tokenizer from `build_processor`.
    """
    values = torch.arange(FIRST_NUMBER, LAST_NUMBER + 1)
    return torch.tensor([tokenizer.convert_tokens_to_ids(str(v)) for v in values.tolist()]), values


def _waves(positions: torch.Tensor, channels: int) -> torch.Tensor:
    """Return smooth sin-cos features of positions in [0, 1]: float32[n, channels]."""
    frequencies = math.pi * 1.6 ** torch.arange(channels // 2).float() / 2
    frequencies = frequencies[frequencies < math.pi * 60]
    frequencies = frequencies.repeat(channels // 2 // len(frequencies) + 1)[: channels // 2]
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def build_reasoner(tokenizer, seed: int = 0) -> transformers.Qwen3VLForConditionalGeneration:
    """Build an untrained Qwen3-VL of about 4 million parameters.

    Position embeddings of the vision tower and embeddings of the number tokens start as sin-cos waves of their position
    or number. Everything else is random.

    Args:
        tokenizer: tokenizer from `build_processor`.
        seed: seed of the random weights.
    """
    torch.manual_seed(seed)
    ids = tokenizer.convert_tokens_to_ids
    width, head, grid, vision_width = 192, 64, 16, 128
    initializer_range = 0.05
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": math.ceil(len(tokenizer) / 16) * 16,
            "hidden_size": width,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": head,
            "max_position_embeddings": 4096,
            "initializer_range": initializer_range,
            # The sections (time, height, width) of the rotary embedding add up to head_dim / 2.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": vision_width,
            "intermediate_size": 512,
            "num_heads": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": width,
            "num_position_embeddings": grid * grid,
            "initializer_range": initializer_range,
            "deepstack_visual_indexes": [1, 2],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = transformers.Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        line = _waves(torch.linspace(0, 1, grid), vision_width // 2) * 0.5
        rows, columns = line[:, None].expand(grid, grid, -1), line[None].expand(grid, grid, -1)
        model.get_parameter("model.visual.pos_embed.weight").copy_(
            torch.cat([rows, columns], -1).reshape(grid * grid, -1)
        )
        number_ids, values = number_tokens(tokenizer)
        embedding = model.get_parameter("model.language_model.embed_tokens.weight")
        embedding[number_ids] = _waves(values / 1000, width) * initializer_range * 1.4
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
        do_sample=False,
        max_new_tokens=320,
    )
    return model
