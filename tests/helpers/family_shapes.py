"""Configuration, special tokens and processor of each family at tiny size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import transformers

from tests.helpers import family_templates as templates

_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
_EXPERTS |= {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "first_k_dense_replace": 1}
_LINEAR = {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2}
_LINEAR |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
_VISION_SMALL = {"depth": 2, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 64}
_NEW_VISION = {**_VISION_SMALL, "num_position_embeddings": 64}
_DEEP_VISION = {**_NEW_VISION, "deepstack_visual_indexes": [0]}
_OLD_VISION = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4}
_WINDOWS = {**_VISION_SMALL, "fullatt_block_indexes": [1]}
_SIGLIP = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4}
_AUDIO = {"encoder_layers": 1, "d_model": 64, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "output_dim": 64}
_DSA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 16, "v_head_dim": 16}
_DSA |= {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 2, "hc_mult": 2}
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
WHOLE_ROPE = {"partial_rotary_factor": 1.0}

_QWEN = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
_QWEN |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
_GLM = {"image_token_id": "<|image|>", "video_token_id": "<|video|>"}
_GLM |= {"image_start_token_id": "<|begin_of_image|>", "image_end_token_id": "<|end_of_image|>"}
_GLM |= {"video_start_token_id": "<|begin_of_video|>", "video_end_token_id": "<|end_of_video|>"}
_GLM_NAMES = {"image_token": "<|image|>", "video_token": "<|video|>"}
_GLM_TOKENS = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|begin_of_box|>", "<|end_of_box|>")
_BAIDU = {"image_token_id": "<|IMAGE_PLACEHOLDER|>", "video_token_id": "<|video@placeholder|>"}
_BAIDU_NAMES = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|video@placeholder|>"}
_BAIDU_NAMES |= {"image_start_token": "<|IMAGE_START|>", "image_end_token": "<|IMAGE_END|>"}
_BAIDU_NAMES |= {"video_start_token": "<|VIDEO_START|>", "video_end_token": "<|VIDEO_END|>"}
_HUNYUAN_START, _HUNYUAN_IMAGE, _HUNYUAN_END = templates.HUNYUAN_IMAGE
_HUNYUAN_NAMES = {"image_token": _HUNYUAN_IMAGE, "image_start_token": _HUNYUAN_START, "image_end_token": _HUNYUAN_END}
_HUNYUAN_TOKENS = (templates.HUNYUAN_BEGIN, templates.HUNYUAN_USER, templates.HUNYUAN_SYSTEM)
_COHERE_TURNS = ("START_OF_TURN", "END_OF_TURN", "USER", "SYSTEM", "CHATBOT")
_MINICPM_NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
_MINICPM_NAMES |= {"image_start_token": "<image>", "image_end_token": "</image>"}
_MINICPM_NAMES |= {"slice_start_token": "<slice>", "slice_end_token": "</slice>"}
_MINICPM_NAMES |= {"image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>"}
_OMNI_NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "audio_token": "<|audio_pad|>"}
_OMNI_NAMES |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
_OMNI_NAMES |= {"audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
_OLD_OMNI_NAMES = {"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "audio_token": "<|AUDIO|>"}
_OLD_OMNI_NAMES |= {"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>"}
_OLD_OMNI_NAMES |= {"audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}

_TINY = {"size": {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}}
_OLD_TINY = {"min_pixels": 28 * 28, "max_pixels": 112 * 112}
_GLM_TINY = {"size": {"shortest_edge": 28 * 28 * 2, "longest_edge": 112 * 112 * 2}}


@dataclass(frozen=True)
class Family:
    """A family of checkpoints at tiny size.

    Attributes:
        template: chat template.
        processor: classes of the whole processor and of its parts, by the names of the parts.
        images: options of the image processor.
        videos: options of the video processor.
        text: options of the text model.
        vision: options of the vision tower.
        ids: token ids of the configuration, such as {"image_token_id": "<|image|>"}.
        names: special tokens that the tokenizer knows by name, such as {"image_token": "<|image|>"}.
        tokens: other special tokens of the template.
        rope: options of the rotary embedding.
        further: other options of the configuration.
    """

    template: str
    processor: dict[str, str]
    images: dict[str, Any]
    text: dict[str, Any]
    vision: dict[str, Any]
    ids: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    rope: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    videos: dict[str, Any] = field(default_factory=dict)

    def make_processor(self, tokenizer) -> Any:
        """Return the processor."""
        parts = {part: getattr(transformers, name) for part, name in self.processor.items()}
        whole = parts.pop("whole")
        options = {"image_processor": self.images, "video_processor": self.videos}
        made = {part: kind(**options.get(part, {})) for part, kind in parts.items()}
        return whole(**made, tokenizer=tokenizer, chat_template=self.template)


def _parts(whole: str, images: str, videos: str | None = None, **others: str) -> dict[str, str]:
    video = {"video_processor": f"{videos}VideoProcessor"} if videos else {}
    return {"whole": f"{whole}Processor", "image_processor": f"{images}ImageProcessor", **video, **others}


_QWEN3 = partial(
    Family, processor=_parts("Qwen3VL", "Qwen2VL", "Qwen3VL"), images={**_TINY, "patch_size": 16}, ids=_QWEN
)
_LINEAR_QWEN = partial(_QWEN3, templates.of_trl("qwen3_5_think"), vision=_NEW_VISION, rope=WHOLE_ROPE)
_GLM_V = partial(
    Family, templates.GLM, vision=_VISION_SMALL, ids=_GLM, names=_GLM_NAMES, tokens=_GLM_TOKENS, rope=WHOLE_ROPE
)

_ALL = {
    "qwen2_vl": Family(
        templates.of_trl("qwen2_5_vl"), _parts("Qwen2VL", "Qwen2VL", "Qwen2VL"), _OLD_TINY, {}, _OLD_VISION, _QWEN
    ),
    "qwen2_5_vl": Family(
        templates.of_trl("qwen2_5_vl"), _parts("Qwen2_5_VL", "Qwen2VL", "Qwen2VL"), _OLD_TINY, {}, _WINDOWS, _QWEN
    ),
    "qwen3_vl": _QWEN3(templates.of_trl("qwen3_vl"), text={"head_dim": 16}, vision=_DEEP_VISION),
    "qwen3_vl_moe": _QWEN3(templates.of_trl("qwen3_vl"), text={"head_dim": 16, **_EXPERTS}, vision=_DEEP_VISION),
    "qwen3_5": _LINEAR_QWEN(text={"head_dim": 16, **_LINEAR, "initializer_range": 0.05}),  # more answers differ
    "qwen3_5_moe": _LINEAR_QWEN(text={"head_dim": 16, **_LINEAR, **_EXPERTS}),
    "qwen4_exp": _LINEAR_QWEN(
        text={"head_dim": 16, **_LINEAR, **_EXPERTS, "hc_lowrank": 8, "hc_count": 2}
        | {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16}
        | {"indexer_budget": 8, "indexer_compress_ratio": 2}
    ),
    "cosmos3_omni": _QWEN3(templates.of_trl("qwen3_vl"), text={"head_dim": 16}, vision=_DEEP_VISION),
    "cosmos3_edge": Family(
        templates.CHATML,
        _parts("Cosmos3Edge", "Cosmos3Edge", "Cosmos3Edge"),
        _TINY,
        {"head_dim": 16},
        {**_SIGLIP, "num_patches": 16},
        _QWEN,
        further={"projector_hidden_size": 64},
    ),
    "qwen2_5_omni_thinker": Family(
        templates.QWEN2_5_OMNI,
        _parts("Qwen2_5Omni", "Qwen2VL", "Qwen2VL", feature_extractor="WhisperFeatureExtractor"),
        _OLD_TINY,
        {},
        _WINDOWS,
        {"image_token_index": "<|IMAGE|>", "video_token_index": "<|VIDEO|>", "audio_token_index": "<|AUDIO|>"}
        | {"vision_start_token_id": "<|vision_bos|>", "vision_end_token_id": "<|vision_eos|>"}
        | {"audio_start_token_id": "<|audio_bos|>", "audio_end_token_id": "<|audio_eos|>"},
        _OLD_OMNI_NAMES,
        further={"audio_config": _AUDIO},
    ),
    "qwen3_omni_moe_thinker": Family(
        templates.CHATML,
        _parts("Qwen3OmniMoe", "Qwen2VL", "Qwen2VL", feature_extractor="WhisperFeatureExtractor"),
        {**_TINY, "patch_size": 16},
        {"head_dim": 16, **_EXPERTS},
        _DEEP_VISION,
        {**_QWEN, "audio_token_id": "<|audio_pad|>", "audio_start_token_id": "<|audio_start|>"},
        _OMNI_NAMES,
        further={"audio_config": {**_AUDIO, "downsample_hidden_size": 8}},
    ),
    "glm4v": _GLM_V(processor=_parts("Glm4v", "Glm4v", "Glm4v"), images=_GLM_TINY, text={}),
    "glm4v_moe": _GLM_V(processor=_parts("Glm4v", "Glm4v", "Glm4v"), images=_GLM_TINY, text=_EXPERTS),
    "glm46v": _GLM_V(processor=_parts("Glm46V", "Glm46V", "Glm46V"), images=_GLM_TINY, text={}),
    "glm_ocr": _GLM_V(processor=_parts("Glm46V", "Glm46V", "Glm46V"), images=_GLM_TINY, text={"head_dim": 16}),
    "glmga": _GLM_V(processor=_parts("Glm46V", "Glmga", "Glmga"), images=_GLM_TINY, text={}),
    "paddleocr_vl": Family(
        templates.PADDLE_OCR,
        _parts("PaddleOCRVL", "PaddleOCRVL"),
        _TINY,
        {"head_dim": 16},
        _SIGLIP,
        {**_BAIDU, "vision_start_token_id": "<|IMAGE_START|>", "vision_end_token_id": "<|IMAGE_END|>"},
        {k: v for k, v in _BAIDU_NAMES.items() if not k.startswith("video_")},
        ("<|begin_of_sentence|>", "<|video@placeholder|>"),
    ),
    "ernie4_5_vl_moe": Family(
        templates.ERNIE,
        _parts("Ernie4_5_VLMoe", "Ernie4_5_VLMoe", "Ernie4_5_VLMoe"),
        _TINY,
        {"moe_intermediate_size": [32, 32], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
        | {"mlp_layer_types": ["sparse", "sparse"]},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4},
        {**_BAIDU, "image_start_token_id": "<|IMAGE_START|>", "image_end_token_id": "<|IMAGE_END|>"}
        | {"video_start_token_id": "<|VIDEO_START|>", "video_end_token_id": "<|VIDEO_END|>"},
        _BAIDU_NAMES,
        ("<|begin_of_sentence|>",),
        rope={"mrope_section": [3, 3, 2]},
        videos={"draw_on_frames": False},  # drawing needs a font
    ),
    "hunyuan_vl": Family(
        templates.HUNYUAN,
        _parts("HunYuanVL", "HunYuanVL"),
        _TINY,
        {"head_dim": 16},
        {**_SIGLIP, "out_hidden_size": 64, "max_image_size": 128, "min_image_size": 32},
        {"image_token_id": _HUNYUAN_IMAGE, "im_start_id": _HUNYUAN_START, "im_end_id": _HUNYUAN_END},
        _HUNYUAN_NAMES,
        _HUNYUAN_TOKENS,
        rope={"mrope_section": [2, 2, 2, 2]},
    ),
    "hy_v4_vl": Family(
        templates.HY_V4,
        _parts("HYV4VL", "HYV4VL", "HYV4VL"),
        _TINY,
        {**_DSA, **_EXPERTS},
        {**_SIGLIP, "out_hidden_size": 64, "max_image_size": 128},
        {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
        tokens=(_HUNYUAN_START, _HUNYUAN_END, *_HUNYUAN_TOKENS),
    ),
    "minicpmv4_7": Family(
        templates.MINICPM,
        _parts("MiniCPMV4_7", "MiniCPMV4_6", "MiniCPMV4_6"),
        {"scale_resolution": 56, "max_slice_nums": 2},
        {"head_dim": 16, **_LINEAR, "model_type": "qwen3_5_text"},
        {**_SIGLIP, "patch_size": 14, "image_size": 56},
        {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "image_start_id": "<image>"}
        | {"image_end_id": "</image>", "slice_start_id": "<slice>", "slice_end_id": "</slice>", "newline_id": "\n"},
        _MINICPM_NAMES,
        rope=WHOLE_ROPE,
        further={"insert_layer_id": 0},
    ),
    "cohere_compass": Family(
        templates.COHERE,
        _parts("CohereCompass", "CohereCompass", "CohereCompass"),
        {**_TINY, "patch_size": 16},
        {"rope_parameters": {kind: _ROPE for kind in ("full_attention", "sliding_attention")}},
        _DEEP_VISION,
        {"image_token_id": "<|IMAGE_PAD|>", "video_token_id": "<|VIDEO_PAD|>"}
        | {"vision_start_token_id": "<|VISION_START|>", "vision_end_token_id": "<|VISION_END|>"},
        {"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
        ("<BOS_TOKEN>", *(f"<|{name}_TOKEN|>" for name in _COHERE_TURNS)),
    ),
}
# The families of the installed Transformers
FAMILIES = {model_type: family for model_type, family in _ALL.items() if model_type in transformers.CONFIG_MAPPING}
