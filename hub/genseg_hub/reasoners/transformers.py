"""A reasoner in this process that uses Transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Protocol

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from genseg_hub.reasoners.base import THOUGHT, Generation, Prompt
from genseg_hub.reasoners.following import follow

TOKENS_PER_STATE = 4  # of a streamed answer, because decoding the text at each token costs


class TransformersReasoner:
    """Any `AutoModelForImageTextToText` in this process, by `generate`.

    The reasoner answers batch after batch. `continuous_batching.ContinuousReasoner` gives the same answers faster.
    Weights that are divided among processes need this class, because all processes must take the same number of steps.

    Args:
        model: the model, on its device, in its dtype.
        processor: its processor.
        max_new_tokens: token limit of an answer.
        opens_thought: whether the chat template opens the thought in the prompt, see `genseg_hub.thinking`.
    """

    takes_cores = False  # a step is a whole batch
    temperature = 0.0  # see `base.Sampling`

    def __init__(self, model, processor, max_new_tokens: int, opens_thought: bool = False):
        self.model = model.eval()
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        self.begin = THOUGHT if opens_thought else ""
        processor.tokenizer.padding_side = "left"

    def session(self, batch_size: int) -> Batches:
        """See `base.Reasoner`."""
        return Batches(self, batch_size)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """See `base.Reasoner`."""
        texts: SimpleQueue[str | None] = SimpleQueue()
        stopped = Event()

        def watch(tokens: torch.Tensor) -> bool:
            if tokens.shape[1] and tokens.shape[1] % TOKENS_PER_STATE == 0:
                texts.put(self.begin + self._decode(tokens)[0].rstrip("\ufffd"))  # a character may be half generated
            return stopped.is_set()

        with ThreadPoolExecutor(1, thread_name_prefix="generate") as worker:
            answer = worker.submit(self.generate, [prompt], watch)
            try:
                yield from follow(answer, texts)
                yield answer.result()[0]
            finally:
                stopped.set()

    def release(self) -> None:
        """Do nothing, because nothing is kept."""

    @torch.no_grad()  # not inference_mode: FSDP gathers the training weights here
    def generate(
        self, batch: Sequence[Prompt], watch: Callable[[torch.Tensor], bool] | None = None
    ) -> list[Generation]:
        """Generate the answers of one batch.

        Args:
            batch: the prompts.
            watch: takes the generated tokens int64[prompts, tokens] after each token; True stops the generation.
        """
        texts = [
            self.processor.apply_chat_template(prompt.chat, tokenize=False, add_generation_prompt=True)
            for prompt in batch
        ]
        inputs = self.processor(
            text=texts, images=[prompt.image for prompt in batch], padding=True, return_tensors="pt"
        ).to(self.model.device)
        start = inputs["input_ids"].shape[1]
        # A checkpoint's generation settings may sample or ask for 100,000 beams; segmentation must be reproducible.
        samples = self.temperature > 0
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=samples,
            temperature=self.temperature if samples else None,
            top_p=1.0 if samples else None,
            top_k=0 if samples else None,
            num_beams=1,
            num_return_sequences=1,
            stopping_criteria=StoppingCriteriaList([_Watching(watch, start)] if watch else []),
        )[:, start:]
        ends = torch.tensor(end_tokens(self.model), device=tokens.device)
        is_end = torch.isin(tokens, ends)
        finished = is_end.any(1).tolist()
        counts = (is_end.cumsum(1) - is_end.int() == 0).sum(1).tolist()  # what follows the first end is padding
        decoded = self._decode(tokens)
        sizes = shown_sizes(inputs, self.processor, len(batch))
        return [
            Generation(self.begin + text, not done, size, count)
            for text, done, size, count in zip(decoded, finished, sizes, counts, strict=True)
        ]

    def _decode(self, tokens: torch.Tensor) -> list[str]:
        return self.processor.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class _Watching(StoppingCriteria):
    """Show the generated tokens to a function that can stop the generation.

    Args:
        watch: see `TransformersReasoner.generate`.
        start: number of the prompt's tokens.
    """

    def __init__(self, watch: Callable[[torch.Tensor], bool], start: int):
        self._watch, self._start = watch, start

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        stop = self._watch(input_ids[:, self._start :])
        return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)


class Generates(Protocol):
    """A reasoner that answers one batch after the other."""

    def generate(self, batch: Sequence[Prompt], /) -> list[Generation]:
        """Generate the answers of one batch."""


class Batches:
    """A session of batches.

    A failing batch is halved until the failing prompt is alone.

    Args:
        reasoner: reasoner that generates the answers of a batch.
        batch_size: prompts of a batch.
    """

    def __init__(self, reasoner: Generates, batch_size: int):
        self._reasoner, self._batch_size = reasoner, batch_size
        self._open: list[Prompt] = []

    def room(self) -> int:
        """See `base.Session`."""
        return self._batch_size - len(self._open)

    def ask(self, prompts: Sequence[Prompt]) -> None:
        """See `base.Session`."""
        self._open += prompts

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        """See `base.Session`."""
        batch, self._open = self._open, []
        return self._answer(batch)

    def _answer(self, batch: Sequence[Prompt]) -> list[tuple[Prompt, Generation | Exception]]:
        try:
            return list(zip(batch, self._reasoner.generate(batch), strict=True))
        except Exception as error:  # noqa: BLE001  the error is the answer
            error.__traceback__ = None  # it would keep the failed batch's tensors alive
            if len(batch) == 1:
                return [(batch[0], error)]
        middle = len(batch) // 2
        return self._answer(batch[:middle]) + self._answer(batch[middle:])


def end_tokens(model) -> list[int]:
    """Return the tokens that end an answer of the model."""
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def shown_sizes(inputs, processor, count: int) -> list[tuple[int, int] | None]:
    """Return each image's (width, height) as a Qwen-VL processor resized it.

    The sizes are in pixels. Other processors give None.

    Args:
        inputs: the processor's result for the images.
        processor: processor of the checkpoint.
        count: number of images.
    """
    grids, patch = inputs.get("image_grid_thw"), getattr(processor.image_processor, "patch_size", None)
    if grids is None or not isinstance(patch, int):
        return [None] * count
    return [(width * patch, height * patch) for _, height, width in grids.tolist()]
