"""Reasoner that asks the training's own vLLM for the policy's greedy answers.

Only a vLLM on the GPU of its own process is used: `vllm_mode: colocate`, one GPU for each engine, no sleep mode. In
other modes all processes must ask together, which an evaluation of unequal shares cannot.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from genseg_hub.reasoners.base import THOUGHT, Generation, Prompt
from genseg_hub.reasoners.transformers import Batches, end_tokens
from trl import GRPOConfig

_GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": None, "repetition_penalty": 1.0}


def usable(config: GRPOConfig) -> bool:
    """Return whether held-out examples can be answered by the vLLM of a run."""
    return bool(
        config.use_vllm
        and config.vllm_mode == "colocate"
        and config.vllm_tensor_parallel_size == 1
        and not config.vllm_enable_sleep_mode
    )


class VllmReasoner:
    """Reasoner by vLLM, see `base.Reasoner`.

    Args:
        vllm: TRL's `VLLMGeneration`, with the weights of this step, and corrected (`vllm_prompts.correct`).
        model: the policy, for its end tokens.
        processor: processor of the policy.
        opens_thought: whether the chat template opens the thought in the prompt.
    """

    takes_cores = False

    def __init__(self, vllm: Any, model: Any, processor: Any, opens_thought: bool):
        self._vllm, self._processor = vllm, processor
        self._ends = {*end_tokens(model)}
        self._begin = THOUGHT if opens_thought else ""

    def session(self, batch_size: int) -> Batches:
        """See `base.Reasoner`."""
        return Batches(self, batch_size)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """See `base.Reasoner`; the whole answer comes at once."""
        yield self.generate([prompt])[0]

    def release(self) -> None:
        """Do nothing, because nothing is kept."""

    def generate(self, batch: Sequence[Prompt]) -> list[Generation]:
        """Generate the answers of one batch.

        Args:
            batch: the prompts.
        """
        images = [prompt.image for prompt in batch]  # read once, because a picture may have dropped its pixels
        texts = [self._processor.apply_chat_template(p.chat, tokenize=False, add_generation_prompt=True) for p in batch]
        tokens = self._processor(text=texts, images=images, padding=False)["input_ids"]
        with _greedy(self._vllm):
            _, answers, *_ = self._vllm.generate(
                prompts=[list(ids) for ids in tokens], images=[[image] for image in images], num_generations=1
            )
        decoded = self._processor.batch_decode(answers, skip_special_tokens=True)
        return [
            Generation(self._begin + text, not ids or ids[-1] not in self._ends, tokens=len(ids))
            for text, ids in zip(decoded, map(list, answers), strict=True)
        ]


@contextmanager
def _greedy(vllm: Any):
    """Set vLLM's sampling to greedy, and set it back."""
    before = {name: getattr(vllm, name) for name in _GREEDY}
    for name, value in _GREEDY.items():
        setattr(vllm, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vllm, name, value)
