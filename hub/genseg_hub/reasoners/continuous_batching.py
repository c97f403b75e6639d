"""Continuous batching with a shared image prefix, for the Qwen-VL architectures.

Batched `generate` is slow for referring expressions, because a batch runs until its longest answer ends, and because
every expression computes its image again. Here a row that has ended makes room for the next prompt at once. The
beginning of a prompt, through its image, is computed once for all expressions of the image, and kept for later ones.

The keys and values of a beginning are held once for all rows that share it. Keys and values of the rest of a prompt and
of its answer are a row's own: rows that began at different times are right-aligned, and the columns before are masked.
Positions are passed explicitly, so alignment does not change the answers.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Generator, Hashable, Iterator, Sequence

import torch

from genseg_hub.reasoners._rows import Layer, Rows, cache, join, padded
from genseg_hub.reasoners.base import THOUGHT, Generation, Prompt
from genseg_hub.reasoners.prefixes import Prefix, Prefixes, common, is_memory_error
from genseg_hub.reasoners.shared_attention import NAME, Beginnings, stack
from genseg_hub.reasoners.transformers import TOKENS_PER_STATE, end_tokens, shown_sizes


class ContinuousReasoner:
    """A model of `compared.COMPARED` in this process, by continuous batching.

    The answers are the greedy answers of `TransformersReasoner`, but come faster.

    Args:
        model: the model without an obstacle, on its device, in its dtype, whole (not divided among processes).
        processor: its processor.
        max_new_tokens: token limit of an answer.
        opens_thought: whether the chat template opens the thought in the prompt, see `genseg_hub.thinking`.
    """

    temperature = 0.0  # see `base.Sampling`

    def __init__(self, model, processor, max_new_tokens: int, opens_thought: bool = False):
        self.model = model.eval()
        model.set_attn_implementation({"text_config": NAME})
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        self.prefixes = Prefixes()
        self._begin = THOUGHT if opens_thought else ""
        self._ends = set(end_tokens(model))
        self._penalty = model.generation_config.repetition_penalty or 1.0
        # Transformers renamed the argument in 5.24, and vLLM 0.33 wants an earlier Transformers.
        self._cache = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    @property
    def takes_cores(self) -> bool:
        """See `base.Reasoner`."""
        return self.model.device.type == "cpu"

    def session(self, batch_size: int) -> _Rolling:
        """See `base.Reasoner`."""
        self.prefixes.resume()
        return _Rolling(self, batch_size)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """See `base.Reasoner`."""
        session = self.session(1)
        session.ask([prompt])
        while not (answers := session.advance()):
            tokens = session.tokens()
            if tokens and len(tokens) % TOKENS_PER_STATE == 0:
                yield self.read(tokens, None).text.rstrip("\ufffd")  # a character may be half generated
        ((_, answer),) = answers
        if isinstance(answer, Exception):
            raise answer
        yield answer

    def release(self) -> None:
        """See `base.Reasoner`."""
        self.prefixes.forget()

    def is_over(self, tokens: list[int]) -> bool:
        """Return whether an answer is complete."""
        return tokens[-1] in self._ends or len(tokens) >= self.max_new_tokens

    def read(self, tokens: list[int], shown: tuple[int, int] | None) -> Generation:
        """Return generated tokens as text."""
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generation(self._begin + text, tokens[-1] not in self._ends, shown, len(tokens))

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt]) -> Rows:
        """Return the rows of prompts, with the first token of each answer.

        A first pass computes the prefix of each image that has none, and a second pass the rest of each prompt. Images
        with one prompt each need one pass only.
        """
        token = self.processor.image_token
        texts = [
            self.processor.apply_chat_template(prompt.chat, tokenize=False, add_generation_prompt=True)
            for prompt in prompts
        ]
        groups: dict[Hashable, list[int]] = {}  # an image and the words before it -> its prompts
        for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            groups.setdefault((prompt.image_key, text.partition(token)[0]), []).append(i)
        prefixes = {key: kept for key in groups if (kept := self.prefixes.get(key))}
        new = [key for key in groups if key not in prefixes]
        counts = {key: prefix.image_tokens for key, prefix in prefixes.items()}
        if new:
            images = self.processor.image_processor(
                images=[prompts[groups[key][0]].image for key in new], return_tensors="pt"
            )
            sizes = images["image_grid_thw"].prod(1) // self.processor.image_processor.merge_size**2
            counts |= dict(zip(new, sizes.tolist(), strict=True))
        for key, numbers in groups.items():
            for i in numbers:
                texts[i] = texts[i].replace(token, token * counts[key], 1)
        token_ids = [torch.tensor(row) for row in self.processor.tokenizer(texts)["input_ids"]]
        alone = len(new) == len(prompts)
        if new:
            heads = [token_ids[groups[key][0]] for key in new]
            if not alone:
                shared = [common([token_ids[i] for i in groups[key]]) for key in new]
                heads = [ids[:count] for ids, count in zip(heads, shared, strict=True)]
            looked, mask, logits, shifts = self._look(heads, images)
            parts = zip(new, heads, shifts, shown_sizes(images, self.processor, len(new)), strict=True)
            made = {
                key: Prefix.of_row(row, looked, ids, counts[key], shift, size)
                for row, (key, ids, shift, size) in enumerate(parts)
            }
            self.prefixes.keep(made)
            prefixes |= made
        its = {i: key for key, numbers in groups.items() for i in numbers}  # prompt -> its image
        taken = {key: len(prefixes[key].ids) for key in new} | {
            key: common([token_ids[i] for i in numbers], prefixes[key].ids)
            for key, numbers in groups.items()
            if key not in new
        }
        names = [(key, prefixes[key].ids[: taken[key]].numpy().tobytes()) for key in groups]
        of = [[*groups].index(its[i]) for i in range(len(prompts))]
        if len(new) == len(groups):
            beginnings = Beginnings(names, [one.keys for one in looked], [one.values for one in looked], mask, of)
        else:
            columns = [(prefixes[key].keys, prefixes[key].values, taken[key]) for key in groups]
            beginnings = stack(names, columns, of)
        position = torch.tensor(
            [len(ids) + prefixes[its[i]].shift for i, ids in enumerate(token_ids)], device=beginnings.mask.device
        )
        layers, mask = [Layer() for _ in beginnings.keys], beginnings.mask.new_ones(len(prompts), 0)
        if not alone:
            rest = [ids[taken[its[i]] :] for i, ids in enumerate(token_ids)]
            mask, logits = self._go_on(rest, position, beginnings, layers)
        seen = None
        if self._penalty != 1:
            seen = torch.zeros(len(prompts), logits.shape[-1], dtype=torch.bool, device=mask.device)
            for row, ids in zip(seen, token_ids, strict=True):
                row[ids.to(mask.device)] = True
        tokens: list[list[int]] = [[] for _ in prompts]
        shown = [prefixes[its[i]].shown for i in range(len(prompts))]
        rows = Rows([*prompts], tokens, beginnings, layers, mask, position, position, seen, shown)
        self._take(rows, logits)
        return rows

    def _look(self, heads: list[torch.Tensor], images) -> tuple[list[Layer], torch.Tensor, torch.Tensor, list[int]]:
        """Compute tokens that begin with an image.

        Returns:
            Layers, mask, logits of the last tokens, and the shift of each row; see `Prefix`.
        """
        device = self.model.device
        layers = [Layer() for _ in range(self.model.config.get_text_config().num_hidden_layers)]
        ids, mask = padded(heads, device)
        grids = images["image_grid_thw"].to(device)
        positions, deltas = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self.processor.image_token_id).int(),
            image_grid_thw=grids,
            attention_mask=mask.long(),
        )
        logits = self.model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=positions,
            pixel_values=images["pixel_values"].to(device),
            image_grid_thw=grids,
            **{self._cache: cache(layers)},
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return layers, mask, logits, deltas[:, 0].tolist()

    def _go_on(
        self, rest: list[torch.Tensor], ends: torch.Tensor, beginnings: Beginnings, layers: list[Layer]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the rest of prompts after their beginnings.

        Args:
            rest: tokens of each row.
            ends: int64[rows]: the position after each prompt.
            beginnings: beginnings of the rows.
            layers: empty ones, which are filled.

        Returns:
            Mask, and logits of the last tokens.
        """
        ids, own = padded(rest, ends.device)
        after = own.flip(1).long().cumsum(1).flip(1)  # tokens from this one to the end
        with beginnings.attended():
            logits = self.model(
                input_ids=ids,
                attention_mask=own.new_ones(own.shape[1], own.shape[1]).tril() & own[:, None, None],
                position_ids=(ends[:, None] - after).expand(3, -1, -1),
                **{self._cache: cache(layers)},
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return own, logits

    @torch.inference_mode()
    def step(self, rows: Rows) -> None:
        """Generate one token in each row."""
        rows.mask = torch.nn.functional.pad(rows.mask, (0, 1), value=True)
        with rows.beginnings.attended():
            logits = self.model(
                input_ids=rows.last[:, None],
                attention_mask=rows.mask[:, None, None],
                position_ids=rows.position[None, :, None].expand(3, -1, -1),
                **{self._cache: cache(rows.layers)},
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        rows.position = rows.position + 1
        self._take(rows, logits)

    join = staticmethod(join)

    def _take(self, rows: Rows, logits: torch.Tensor) -> None:
        """Append the likeliest or a sampled token of each row.

        The penalty on repetition is as in CTRL (arXiv 1909.05858).
        """
        if rows.seen is not None:
            logits = logits.float()
            punished = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            logits = torch.where(rows.seen, punished, logits)
        if self.temperature:
            rows.last = torch.multinomial(torch.softmax(logits.float() / self.temperature, -1), 1)[:, 0]
        else:
            rows.last = logits.argmax(-1)
        if rows.seen is not None:
            rows.seen.scatter_(1, rows.last[:, None], True)
        for tokens, token in zip(rows.tokens, rows.last.tolist(), strict=True):
            tokens.append(token)


class _Rolling:
    """A session in which each complete row makes room.

    After an error it continues with half as many rows.
    """

    def __init__(self, reasoner: ContinuousReasoner, batch_size: int):
        self._reasoner, self._batch_size = reasoner, batch_size
        self._rows: Rows | None = None
        self._again: deque[Prompt] = deque()
        self._answers: list[tuple[Prompt, Generation | Exception]] = []

    def room(self) -> int:
        free = self._batch_size - len(self._again) - (len(self._rows.open()) if self._rows else 0)
        # Every `ask` costs a pass of the whole model, so wait for several free rows
        return free if free >= max(1, self._batch_size // 4) else 0

    def ask(self, prompts: Sequence[Prompt]) -> None:
        parts = [(self._rows, self._rows.open())] if self._rows and self._rows.open() else []
        for begun in self._begin(prompts):
            self._close(begun)
            if begun.open():
                parts.append((begun, begun.open()))
        self._join(parts)

    def tokens(self) -> list[int]:
        """Return the generated tokens of the only prompt."""
        return self._rows.tokens[0] if self._rows else []

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        if not (self._rows and self._rows.open()) and self._again:
            self.ask([self._again.popleft() for _ in range(min(len(self._again), self._batch_size))])
        if self._rows and self._rows.open() and 2 * len(self._rows.open()) <= len(self._rows.prompts):
            self._join([(self._rows, self._rows.open())])
        if self._rows:
            try:
                self._reasoner.step(self._rows)
                self._close(self._rows)
            except Exception as error:  # noqa: BLE001  the answer of a prompt that fails alone
                self._retreat([prompt for prompt in self._rows.prompts if prompt], error)
        answers, self._answers = self._answers, []
        return answers

    def _join(self, parts: list[tuple[Rows, list[int]]]) -> None:
        """Continue with these rows; needs memory for a copy of them."""
        try:
            self._rows = self._reasoner.join(parts) if parts else None
        except Exception as error:  # noqa: BLE001  as in `advance`
            self._retreat([prompt for rows, keep in parts for i in keep if (prompt := rows.prompts[i])], error)

    def _retreat(self, stopped: list[Prompt], error: Exception) -> None:
        """Ask prompts that failed together again, half as many at once.

        A prompt that failed alone is answered with its error. If kept prefixes took memory, the prompts are first asked
        again without them.
        """
        error.__traceback__ = None  # it keeps the failed batch's tensors alive
        self._rows = None
        if self._frees(error):
            self._again.extend(stopped)
        elif len(stopped) == 1:
            self._answers.append((stopped[0], error))
        else:
            self._again.extend(stopped)
            self._batch_size = len(stopped) // 2

    def _frees(self, error: Exception) -> bool:
        """Free the kept prefixes if memory was short; return whether there were any."""
        return is_memory_error(error) and self._reasoner.prefixes.stop()

    def _close(self, rows: Rows) -> None:
        """Collect the complete answers."""
        for i, (prompt, tokens) in enumerate(zip(rows.prompts, rows.tokens, strict=True)):
            if prompt and self._reasoner.is_over(tokens):
                self._answers.append((prompt, self._reasoner.read(tokens, rows.shown[i])))
                rows.prompts[i] = None

    def _begin(self, prompts: Sequence[Prompt]) -> Iterator[Rows]:
        """Yield the first rows of prompts.

        Prompts that fail are halved, until the failing prompt is alone.
        """
        rows, freed = None, False
        try:
            rows = self._reasoner.prefill(prompts)
        except Exception as error:  # noqa: BLE001  the error is the answer
            error.__traceback__ = None
            freed = self._frees(error)
            if len(prompts) == 1 and not freed:
                self._answers.append((prompts[0], error))
        if rows:
            yield rows
        elif freed:
            yield from self._begin(prompts)
        elif len(prompts) > 1:
            middle = len(prompts) // 2
            yield from self._begin(prompts[:middle])
            yield from self._begin(prompts[middle:])
