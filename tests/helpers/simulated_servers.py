"""Servers that people have on a laptop, simulated: their lists, their answers and their refusals have the true shapes.

The answers are nano's, asked in this process in place of the model that the server names.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from genseg_hub.dialects import genseg
from genseg_hub.reasoners.base import Prompt, Reasoner

from tests.helpers.chat_server import ChatServer, Reply, expression, serving, shown
from tests.helpers.reasoners import ask

KEY = "sk-or-v1-0123"


def _listed(names: list[str], **more: Any) -> dict:
    return {"object": "list", "data": [{"id": name, "object": "model", **more} for name in names]}


LISTS: dict[str, dict] = {
    "ollama": _listed(
        ["qwen3-vl:8b-instruct", "llama3.2:latest", "nomic-embed-text:latest"], created=1764374400, owned_by="library"
    ),
    "lmstudio": _listed(
        ["qwen/qwen3-vl-8b", "openai/gpt-oss-20b", "text-embedding-nomic-embed-text-v1.5"],
        owned_by="organization_owner",
    ),
    "llama.cpp": _listed(
        ["Qwen3VL-8B-Instruct-Q4_K_M.gguf"],  # as `-m` was given: a path for a file in another folder
        aliases=[],
        tags=[],
        created=1764374400,
        owned_by="llamacpp",
        meta={
            "vocab_type": 2,
            "n_vocab": 151936,
            "n_ctx": 20480,
            "n_ctx_train": 262144,
            "n_embd": 16384,
            "n_params": 8190735360,
            "size": 5027787776,
            "ftype": "Q4_K - Medium",
        },
    )
    | {
        "models": [
            {
                "name": "Qwen3VL-8B-Instruct-Q4_K_M.gguf",
                "model": "Qwen3VL-8B-Instruct-Q4_K_M.gguf",
                "modified_at": "",
                "size": "",
                "digest": "",
                "type": "model",
                "description": "",
                "tags": [""],
                "capabilities": ["completion", "multimodal"],  # without --mmproj only "completion"
                "parameters": "",
                "details": {"parent_model": "", "format": "gguf", "family": "", "families": [""]},
            }
        ]
    },
    "mlx-vlm": _listed(["mlx-community/Qwen3-VL-8B-Instruct-4bit"], created=1764374400),
    "openrouter": {
        "data": [
            {
                "id": name,
                "canonical_slug": name,
                "hugging_face_id": hub_id,
                "name": f"Maker: {name}",
                "created": 1760463308,
                "context_length": 131072,
                "architecture": {
                    "modality": "text+image->text" if sees else "text->text",
                    "input_modalities": ["image", "text"] if sees else ["text"],
                    "output_modalities": ["text"],
                    "tokenizer": "Qwen3",
                    "instruct_type": None,
                },
                "pricing": {"prompt": "0.00000008", "completion": "0.0000005"},
                "supported_parameters": ["max_tokens", "temperature"],
            }
            for name, hub_id, sees in (
                ("qwen/qwen3-vl-8b-instruct", "Qwen/Qwen3-VL-8B-Instruct", True),
                ("qwen/qwen3-vl-8b-thinking", "Qwen/Qwen3-VL-8B-Thinking", True),
                ("qwen/qwen3-8b", "Qwen/Qwen3-8B", False),
                ("google/gemini-2.5-flash", "", True),
                *((f"maker/model-{number}", None, number % 2 == 0) for number in range(300)),
            )
        ]
    },
    "gateway": _listed(["qwen3-vl-8b-instruct"], created=1764374400, owned_by="gateway"),
    "vllm": _listed(["served"], created=1764374400, owned_by="vllm", root="/weights/nano", parent=None),
}


def _completion(message: dict, finish_reason: str = "stop", choice: dict | None = None, **more: Any) -> Reply:
    chosen = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **(choice or {})}
    return 200, {}, {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "choices": [chosen], **more}


def _ollama(request: dict, thought: str, text: str) -> Reply:
    return _completion({"content": text, "reasoning": thought}, model=request["model"], system_fingerprint="fp_ollama")


def _lmstudio(request: dict, thought: str, text: str) -> Reply:
    message = {"content": text, "reasoning_content": thought, "tool_calls": []}
    return _completion(message, choice={"logprobs": None}, model=request["model"], stats={})


def _llama_cpp(request: dict, thought: str, text: str) -> Reply:
    more = {"model": request["model"], "system_fingerprint": "b0-unknown", "timings": {"predicted_per_second": 9.5}}
    return _completion({"content": text, "reasoning_content": thought}, **more)


def _mlx_vlm(request: dict, thought: str, text: str) -> Reply:
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": f"<think>{thought}</think>{text}"}}
    usage = {"input_tokens": 300, "output_tokens": 60, "total_tokens": 360, "peak_memory": 6.5}
    return 200, {}, {"model": request["model"], "choices": [choice], "usage": usage}


def _openrouter(request: dict, thought: str, text: str) -> Reply:
    details = [{"type": "reasoning.text", "text": thought, "index": 0}]
    message = {"content": text, "refusal": None, "reasoning": thought, "reasoning_details": details}
    return _completion(message, choice={"native_finish_reason": "stop"}, provider="Maker", model=request["model"])


def _gateway(request: dict, thought: str, text: str) -> Reply:
    """Stream lists of text parts, after the requests that `_refusal` refuses."""
    whole = f"<think>{thought}</think>{text}"
    deltas: list[dict] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": [{"type": "text", "text": whole[at : at + 7]}]} for at in range(0, len(whole), 7)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "eos"})
    events = [{"id": "1", "object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
    events.append({"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 1}})
    lines = [json.dumps(event) for event in events] + ["[DONE]"]
    return 200, {"Content-Type": "text/event-stream"}, "".join(f"data: {line}\n\n" for line in lines).encode()


def _refusal(request: dict) -> Reply | None:
    """Return what gateways refuse, one thing after the other, in words that were reported."""
    system = [message["content"] for message in request["messages"] if message["role"] == "system"]
    if "max_tokens" in request:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        error = {
            "message": text,
            "type": "invalid_request_error",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        }
        return 400, {}, {"error": error}
    if "temperature" in request:
        detail = {"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}
        return 422, {}, {"detail": [{**detail, "input": 0}]}
    if any(isinstance(content, list) for content in system):
        return (
            422,
            {},
            {"error": {"message": "messages[0]: invalid type: sequence, expected a string at line 1 column 9"}},
        )
    if system:
        return 400, {}, {"error": {"message": "Developer instruction is not enabled for models/gemma-3-27b-it"}}
    if shown(request).format == "PNG":
        return 413, {"Content-Type": "text/html"}, b"<html><h1>413 Request Entity Too Large</h1>nginx</html>"
    if not request.get("stream"):
        text = "This model only support stream mode, please enable the stream parameter to access the model."
        return 400, {}, {"error": {"code": "invalid_parameter_error", "param": None, "message": text}}
    return None


_ANSWERS: dict[str, Callable[[dict, str, str], Reply]] = {
    "ollama": _ollama,
    "lmstudio": _lmstudio,
    "llama.cpp": _llama_cpp,
    "mlx-vlm": _mlx_vlm,
    "openrouter": _openrouter,
    "gateway": _gateway,
}
KINDS = tuple(_ANSWERS)


def nanos_answer(reasoner: Reasoner, request: dict) -> tuple[str, str]:
    """Return nano's thought and answer about the image and the expression of a request."""
    image = shown(request).convert("RGB")
    words = expression(request).rpartition("Expression: ")[2]
    (answer,) = ask(reasoner, [Prompt(image, genseg.messages(image.size, words))])
    assert not isinstance(answer, Exception)
    thought, _, text = answer.text.removeprefix("<think>").partition("</think>")
    return thought, text.removeprefix("<answer>").removesuffix("</answer>")


@contextmanager
def simulated(kind: str, reasoner: Reasoner):
    """Start a simulated server.

    Args:
        kind: one of KINDS.
        reasoner: nano's.
    """
    alone = threading.Lock()
    known = [model["id"] for model in LISTS[kind]["data"]]

    def reply(request: dict) -> Reply:
        if kind == "openrouter" and server.keys[-1] != f"Bearer {KEY}":
            return 401, {}, {"error": {"message": "No auth credentials found", "code": 401}}
        if request["model"] not in known and kind != "llama.cpp":  # it answers to every name
            error = {"message": f"model '{request['model']}' not found", "type": "not_found_error", "param": None}
            return 404, {}, {"error": error}
        if kind == "gateway" and (refusal := _refusal(request)):
            return refusal
        with alone:
            return _ANSWERS[kind](request, *nanos_answer(reasoner, request))

    server: ChatServer
    with serving(reply) as server:
        server.models = (200, {}, LISTS[kind])
        yield server
