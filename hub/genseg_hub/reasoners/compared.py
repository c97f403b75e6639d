"""Models whose answers are the same by continuous batching and by `generate`."""

from __future__ import annotations

# Types whose texts were compared with `generate`'s; see tests/hub/reasoners/test_families.py.
COMPARED = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "glm4v_moe", "glm46v"}) | {
    *("glm_ocr", "glmga", "paddleocr_vl", "cohere_compass", "cosmos3_edge", "cosmos3_omni"),
}
# Generation settings that greedy decoding does not read, or that continuous batching obeys.
_UNDERSTOOD = {
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "max_length"),
    *("num_beams", "num_return_sequences"),  # `TransformersReasoner` says one of each
    *("bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "transformers_version", "_from_model_config"),
}


def obstacle(model) -> str:
    """Return why a model's answers may differ from `generate`'s; "" if equal.

    Answers are known to be equal under four conditions. The model's type was compared, and all its layers have full
    attention. Its weights are on one device, and all its generation settings are understood.

    Args:
        model: the model, loaded.
    """
    others = {*(getattr(model.config.get_text_config(), "layer_types", None) or ())} - {"full_attention"}
    if others:
        return f"continuous batching is for full attention only, and its layers have {_listed(others)}"
    if model.config.model_type not in COMPARED:
        return "continuous batching was not compared with it"
    if len({*getattr(model, "hf_device_map", {"": 0}).values()}) != 1:
        return "continuous batching needs all weights on one device"
    if unknown := model.generation_config.to_diff_dict().keys() - _UNDERSTOOD:
        return f"continuous batching does not obey its generation settings {_listed(unknown)}"
    return ""


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
