"""A reasoner that vLLM computes, without a server.

vLLM batches the open prompts by itself, keeps the beginnings of prompts, and looks at an image once. Its engine runs in
a process beside this one, so that its memory is freed with the reasoner. With VLLM_ENABLE_V1_MULTIPROCESSING=0 the
engine runs in this process and ends with it, however this process ends.

vLLM is not a requirement of this package. Nothing here imports it before a checkpoint is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import weakref
from collections.abc import Collection, Generator, Sequence
from typing import Any

from genseg_hub.checkpoints import Checkpoint
from genseg_hub.errors import CheckpointError, EngineDiedError
from genseg_hub.extras import install_command
from genseg_hub.reasoners.base import THOUGHT, Generation, Prompt
from genseg_hub.reasoners.serving import MAX_MODEL_LEN

# Share of a GPU that vLLM takes at most; its own default.
_MOST = 0.92
# Bytes that PyTorch and CUDA take beside the two models.
_BESIDE = 1_000_000_000
# Keys and values on a CPU, where vLLM would take nearly all memory; VLLM_CPU_KVCACHE_SPACE counts before.
_CPU_CACHE = 4 << 30


class VllmReasoner:
    """A VLM that vLLM computes; greedy answers, or sampled ones.

    Args:
        llm: vLLM's `LLM`.
        processor: processor of the checkpoint, for its chat template and its tokenizer.
        max_new_tokens: token limit of an answer.
        ends: tokens that end an answer.
        penalty: penalty of repeated tokens, as the checkpoint's generation_config.json states it.
        opens_thought: whether the chat template opens the thought in the prompt, see `genseg_hub.thinking`.
    """

    takes_cores = False
    temperature = 0.0  # see `base.Sampling`

    def __init__(
        self,
        llm: Any,
        processor: Any,
        max_new_tokens: int,
        ends: Collection[int],
        penalty: float = 1.0,
        opens_thought: bool = False,
    ):
        self.processor = processor
        self._llm, self._max_new_tokens = llm, max_new_tokens
        self._ends, self._penalty = sorted(ends), penalty
        self._begin = THOUGHT if opens_thought else ""

    def session(self, batch_size: int) -> _Requests:
        """See `base.Reasoner`."""
        return _Requests(self, batch_size)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """See `base.Reasoner`; the whole answer comes at once."""
        request = self.enqueue(prompt)
        finished: dict[str, Generation] = {}
        try:
            while request not in finished:
                yield self._begin
                finished |= self.step()
        except GeneratorExit:
            self.abort([request])
            raise
        yield finished[request]

    def release(self) -> None:
        """Do nothing, because vLLM keeps within the memory that it has taken."""

    def enqueue(self, prompt: Prompt) -> str:
        """Give a prompt to the engine, and return the name of the request.

        Raises:
            Exception: the prompt cannot be answered, for example because it is too long.
        """
        from vllm import SamplingParams

        text = self.processor.apply_chat_template(prompt.chat, tokenize=False, add_generation_prompt=True)
        (tokens,) = self.processor.tokenizer([text])["input_ids"]
        params = SamplingParams(
            temperature=self.temperature,
            top_p=1.0,
            top_k=-1,
            repetition_penalty=self._penalty,
            max_tokens=self._max_new_tokens,
            stop_token_ids=self._ends,
            detokenize=False,
        )
        asked = {"prompt_token_ids": tokens, "multi_modal_data": {"image": prompt.image}}
        (name,) = self._llm.enqueue([asked], params, use_tqdm=False)
        return name.partition("-")[0]  # vLLM appends random letters that its outputs leave out

    def step(self) -> dict[str, Generation]:
        """Let the engine work for one step, and return the finished answers.

        The keys are the names of their requests.

        Raises:
            EngineDiedError: the engine answers nothing from now on.
        """
        try:
            outputs = self._llm.llm_engine.step()
        except Exception as error:
            raise EngineDiedError(f"vLLM's engine stopped: {type(error).__name__}: {error}") from error
        return {output.request_id: self._read(output.outputs[0]) for output in outputs if output.finished}

    def abort(self, requests: Collection[str]) -> None:
        """Stop requests that nobody waits for any more."""
        self._llm.llm_engine.abort_request([*requests])

    def _read(self, answer: Any) -> Generation:
        text = self.processor.tokenizer.decode(
            answer.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        cut, count = answer.finish_reason == "length", len(answer.token_ids)
        return Generation(self._begin + text, cut, tokens=count)


class _Requests:
    """A session: each prompt is one request to the engine.

    Args:
        reasoner: reasoner whose requests they are.
        batch_size: open requests at once.
    """

    def __init__(self, reasoner: VllmReasoner, batch_size: int):
        self._reasoner, self._batch_size = reasoner, batch_size
        self._open: dict[str, Prompt] = {}
        self._refused: list[tuple[Prompt, Generation | Exception]] = []
        weakref.finalize(self, reasoner.abort, self._open).atexit = False

    def room(self) -> int:
        return self._batch_size - len(self._open) - len(self._refused)

    def ask(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            try:
                self._open[self._reasoner.enqueue(prompt)] = prompt
            except Exception as error:  # noqa: BLE001  the prompt's answer
                self._refused.append((prompt, error))

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        answers, self._refused = self._refused, []
        if self._open:
            finished = self._reasoner.step()
            answers += [(self._open.pop(name), answer) for name, answer in finished.items() if name in self._open]
        return answers


def version_for(architectures: Collection[str]) -> str | None:
    """Return the installed vLLM's version if it computes this kind of model, or None.

    Args:
        architectures: architectures of the checkpoint's config.json.
    """
    if importlib.util.find_spec("vllm") is None:
        return None
    _prepare()
    import vllm

    return vllm.__version__ if set(architectures) & set(vllm.ModelRegistry.get_supported_archs()) else None


def load(
    checkpoint: Checkpoint,
    processor: Any,
    target: Any,
    dtype: str,
    max_new_tokens: int,
    opens_thought: bool,
    limits: dict[str, int],
    reserved: int,
) -> VllmReasoner:
    """Load the reasoner of a checkpoint into vLLM.

    Args:
        checkpoint: checkpoint with the reasoner's files on this disk.
        processor: processor of the checkpoint.
        target: torch.device; the first GPU, or the CPU with a vLLM for CPUs.
        dtype: dtype of the weights, such as "bfloat16"; "auto" for the stored one.
        max_new_tokens: token limit of an answer.
        opens_thought: whether the chat template opens the thought in the prompt.
        limits: `min_pixels` and `max_pixels` of the processor; empty for the processor's own.
        reserved: bytes of the GPU that the segmenter needs.

    Raises:
        CheckpointError: vLLM is not installed, computes on another device, or cannot load the checkpoint.
    """
    import transformers

    if importlib.util.find_spec("vllm") is None:
        raise CheckpointError(f"vLLM is not installed here: {install_command('vllm')}, or leave the backend vllm out")
    if target.index:
        raise CheckpointError(f"vLLM takes the first GPU and not {target}; set CUDA_VISIBLE_DEVICES={target.index}")
    _prepare()
    import vllm
    from vllm.platforms import current_platform

    if current_platform.device_type != target.type:
        raise CheckpointError(
            f"vLLM {vllm.__version__} computes on {current_platform.device_type} and not on {target.type}; choose that "
            "device, or leave the backend vllm out"
        )
    config = transformers.AutoConfig.from_pretrained(checkpoint.reasoner, trust_remote_code=False)
    try:
        generation = transformers.GenerationConfig.from_pretrained(checkpoint.reasoner)
    except OSError:  # the file is optional
        generation = transformers.GenerationConfig.from_model_config(config)
    ends = generation.eos_token_id
    longest = config.get_text_config().max_position_embeddings or MAX_MODEL_LEN
    try:
        llm = vllm.LLM(
            str(checkpoint.reasoner.resolve()),
            load_format="safetensors",
            trust_remote_code=False,
            dtype=dtype,
            max_model_len=min(MAX_MODEL_LEN, longest),
            limit_mm_per_prompt={"image": 1, "video": 0},
            mm_processor_kwargs=limits or None,
            **_memory(target, reserved),
        )
    except Exception as error:  # vLLM, and a stranger's files, can raise errors of any type
        raise CheckpointError(
            f"vLLM {vllm.__version__} cannot load {checkpoint.name}: {error}; take the backend transformers instead"
        ) from error
    penalty = generation.repetition_penalty or 1.0
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return VllmReasoner(llm, processor, max_new_tokens, ends, penalty, opens_thought)


def _prepare() -> None:
    """Set the environment that vLLM reads when it is imported."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM would report to its makers
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def _memory(target: Any, reserved: int) -> dict[str, Any]:
    """Return vLLM's options of memory.

    vLLM gets the part of a GPU that the segmenter leaves, and a fixed part of a CPU's memory.
    """
    import torch

    if target.type != "cuda":
        return {"kv_cache_memory_bytes": _CPU_CACHE, "enforce_eager": True}
    free, total = torch.cuda.mem_get_info(target)
    return {"gpu_memory_utilization": max(0.1, min(_MOST, (free - reserved - _BESIDE) / total))}
