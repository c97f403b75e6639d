"""Continuous batching with a shared image prefix, for the Qwen-VL architectures.

Batched `generate` is slow for referring expressions, because a batch runs until its longest answer ends, and because
every expression computes its image again. Here a row that has ended makes room for the next prompt at once, and the
prompt's common part is computed once for all expressions of an image.

Rows that began at different times are right-aligned in the cache of keys and values. The last columns of a row hold its
prompt and answer, and the columns before are masked. Positions are passed explicitly, so alignment does not change the
answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, DynamicLayer

from genseg_hub.reasoners.base import THOUGHT, Generation, Prompt
from genseg_hub.reasoners.transformers import end_tokens, shown_sizes

# Types whose answers were compared with `generate`, text by text; see tests/hub/reasoners/test_continuous_batching.py.
COMPARED = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "glm4v_moe", "glm46v"})
_GROWTH = 128  # columns by which a cache grows
# Generation settings that greedy decoding does not read, or that this module obeys.
_UNDERSTOOD = {
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "max_length"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "transformers_version", "_from_model_config"),
}


class _Layer(DynamicLayer):
    """Keys and values [rows, heads, columns, size] with room to grow.

    Transformers' own layer copies all keys and values at each token.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None, columns: int = 0):
        super().__init__()
        self.columns = columns
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values, self.columns = key_states, value_states, key_states.shape[-2]
            return key_states, value_states
        start, self.columns = self.columns, self.columns + key_states.shape[-2]
        if self.columns > self.keys.shape[-2]:
            room = (0, 0, 0, self.columns + _GROWTH - self.keys.shape[-2])
            self.keys, self.values = (torch.nn.functional.pad(t, room) for t in (self.keys, self.values))
        self.keys[..., start : self.columns, :] = key_states
        self.values[..., start : self.columns, :] = value_states
        return self.keys[..., : self.columns, :], self.values[..., : self.columns, :]

    def get_seq_length(self) -> int:
        return self.columns

    def take(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        self.keys, self.values = self.keys[rows], self.values[rows]


@dataclass
class _Rows:
    """Prompts in work, one row each.

    Attributes:
        prompts: of each row; None once its answer is complete.
        tokens: generated tokens of each row.
        layers: keys and values of all tokens before `last`.
        mask: bool[rows, columns]: the columns of the cache that belong to the row.
        last: int64[rows]: the newest token.
        position: int64[rows]: the position of `last`.
        seen: bool[rows, vocabulary]: the tokens of prompt and answer; None without a repetition penalty.
        shown: of each row, the (width, height) of the image as the model sees it.
    """

    prompts: list[Prompt | None]
    tokens: list[list[int]]
    layers: list[_Layer]
    mask: torch.Tensor
    last: torch.Tensor
    position: torch.Tensor
    seen: torch.Tensor | None
    shown: list[tuple[int, int] | None]

    def open(self) -> list[int]:
        """Return the rows without a complete answer."""
        return [i for i, prompt in enumerate(self.prompts) if prompt]


class ContinuousReasoner:
    """A Qwen2.5-VL or Qwen3-VL in this process: the greedy answers of `TransformersReasoner`, faster.

    Args:
        model: the model, on its device, in its dtype, whole (not divided among processes).
        processor: its processor.
        max_new_tokens: token limit of an answer.
        opens_thought: whether the chat template opens the thought in the prompt, see `genseg_hub.thinking`.
    """

    def __init__(self, model, processor, max_new_tokens: int, opens_thought: bool = False):
        self.model = model.eval()
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        self._begin = THOUGHT if opens_thought else ""
        self._ends = set(end_tokens(model))
        self._penalty = model.generation_config.repetition_penalty or 1.0

    @property
    def takes_cores(self) -> bool:
        """See `base.Reasoner`."""
        return self.model.device.type == "cpu"

    @staticmethod
    def supports(model) -> bool:
        """Return whether this class is known to give the answers of the model's own `generate`.

        The model's type was compared, all its layers have full attention, its weights are on one device, and all its
        generation settings are understood.
        """
        text = model.config.get_text_config()
        layers = getattr(text, "layer_types", None) or ["full_attention"]
        return (
            model.config.model_type in COMPARED
            and set(layers) == {"full_attention"}
            and len(set(getattr(model, "hf_device_map", {"": 0}).values())) == 1
            and _UNDERSTOOD.issuperset(model.generation_config.to_diff_dict())
        )

    def session(self, batch_size: int) -> _Rolling:
        """See `base.Reasoner`."""
        return _Rolling(self, batch_size)

    def is_over(self, tokens: list[int]) -> bool:
        """Return whether an answer is complete."""
        return tokens[-1] in self._ends or len(tokens) >= self.max_new_tokens

    def read(self, tokens: list[int], shown: tuple[int, int] | None) -> Generation:
        """Return generated tokens as text."""
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generation(self._begin + text, tokens[-1] not in self._ends, shown)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt]) -> _Rows:
        """Return the rows of prompts, with the first token of each answer.

        A first pass computes the common part of neighbours about one image, and a second pass the rest.
        """
        device, tokenizer = self.model.device, self.processor.tokenizer
        groups = [list(group) for _, group in groupby(prompts, key=lambda prompt: prompt.image_key)]
        images = self.processor.image_processor(images=[group[0].image for group in groups], return_tensors="pt")
        sizes = images["image_grid_thw"].prod(1) // self.processor.image_processor.merge_size**2
        token_ids: list[torch.Tensor] = []
        shared: list[int] = []  # tokens in common, per group
        of_group: list[int] = []
        for number, (group, size) in enumerate(zip(groups, sizes.tolist(), strict=True)):
            texts = [
                self.processor.apply_chat_template(prompt.chat, tokenize=False, add_generation_prompt=True).replace(
                    self.processor.image_token, self.processor.image_token * size, 1
                )
                for prompt in group
            ]
            ids = [torch.tensor(row) for row in tokenizer(texts)["input_ids"]]
            token_ids += ids
            shared.append(_common(ids))
            of_group += [number] * len(group)
        leaders = [of_group.index(number) for number in range(len(groups))]
        if any(shared[n] <= _last(token_ids[i], self.processor.image_token_id) for n, i in enumerate(leaders)):
            raise ValueError("the expression stands before the image in this dialect's prompt")
        if len(groups) == len(prompts):  # there is no common part: one pass
            shared = [len(ids) for ids in token_ids]
        layers = [_Layer() for _ in range(self.model.config.get_text_config().num_hidden_layers)]
        cache = _cache(layers)
        heads, mask = _padded([token_ids[i][: shared[n]] for n, i in enumerate(leaders)], device)
        grids = images["image_grid_thw"].to(device)
        positions, deltas = self.model.model.get_rope_index(
            heads,
            mm_token_type_ids=(heads == self.processor.image_token_id).int(),
            image_grid_thw=grids,
            attention_mask=mask.long(),
        )
        following = torch.tensor(shared, device=device) + deltas[:, 0]
        logits = self.model(
            input_ids=heads,
            attention_mask=mask.long(),
            position_ids=positions,
            pixel_values=images["pixel_values"].to(device),
            image_grid_thw=grids,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if len(groups) < len(prompts):
            index = torch.tensor(of_group, device=device)
            for layer in layers:
                layer.take(index)
            tails, own = _padded([ids[shared[n] :] for ids, n in zip(token_ids, of_group, strict=True)], device)
            following = following[index]
            places = following[:, None] + (own.long().cumsum(1) - 1).clamp(min=0)
            following = following + own.sum(1)
            mask = torch.cat([mask[index], own], dim=1)
            logits = self.model(
                input_ids=tails,
                attention_mask=mask.long(),
                position_ids=places.expand(3, -1, -1),
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        seen = None
        if self._penalty != 1:
            seen = torch.zeros(len(prompts), logits.shape[-1], dtype=torch.bool, device=device)
            for row, prompt in zip(seen, token_ids, strict=True):
                row[prompt.to(device)] = True
        sizes_shown = shown_sizes(images, self.processor, len(groups))
        shown = [sizes_shown[number] for number in of_group]
        rows = _Rows(list(prompts), [[] for _ in prompts], layers, mask, following, following, seen, shown)
        self._take(rows, logits)
        return rows

    @torch.inference_mode()
    def step(self, rows: _Rows) -> None:
        """Generate one token in each row."""
        rows.mask = torch.nn.functional.pad(rows.mask, (0, 1), value=True)
        logits = self.model(
            input_ids=rows.last[:, None],
            attention_mask=rows.mask.long(),
            position_ids=rows.position[None, :, None].expand(3, -1, -1),
            cache=_cache(rows.layers),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        rows.position = rows.position + 1
        self._take(rows, logits)

    @staticmethod
    @torch.inference_mode()
    def join(parts: list[tuple[_Rows, list[int]]]) -> _Rows:
        """Join chosen rows, right-aligned, without columns that belong to none of them."""
        device = parts[0][0].mask.device
        chosen = [(rows, torch.tensor(keep, device=device)) for rows, keep in parts]
        masks = [rows.mask[keep] for rows, keep in chosen]
        starts = [int(mask.any(0).long().argmax()) for mask in masks]
        width = max(mask.shape[1] - start for mask, start in zip(masks, starts, strict=True))
        count = sum(len(keep) for _, keep in chosen)
        mask = torch.zeros(count, width, dtype=torch.bool, device=device)
        layers = []
        for old in parts[0][0].layers:
            shape = (count, old.keys.shape[1], width + _GROWTH, old.keys.shape[3])
            layers.append(_Layer(old.keys.new_zeros(shape), old.values.new_zeros(shape), width))
        at = 0
        for (rows, keep), its, start in zip(chosen, masks, starts, strict=True):
            place, columns = slice(at, at + len(keep)), slice(width - (its.shape[1] - start), width)
            mask[place, columns] = its[:, start:]
            for new, old in zip(layers, rows.layers, strict=True):
                new.keys[place, :, columns] = old.keys[keep, :, start : old.columns]
                new.values[place, :, columns] = old.values[keep, :, start : old.columns]
            at += len(keep)
        seen = [rows.seen[keep] for rows, keep in chosen if rows.seen is not None]
        return _Rows(
            [rows.prompts[i] for rows, keep in parts for i in keep],
            [rows.tokens[i] for rows, keep in parts for i in keep],
            layers,
            mask,
            torch.cat([rows.last[keep] for rows, keep in chosen]),
            torch.cat([rows.position[keep] for rows, keep in chosen]),
            torch.cat(seen) if seen else None,
            [rows.shown[i] for rows, keep in parts for i in keep],
        )

    def _take(self, rows: _Rows, logits: torch.Tensor) -> None:
        """Append the likeliest token of each row, under the repetition penalty of CTRL (arXiv 1909.05858)."""
        if rows.seen is not None:
            logits = logits.float()
            punished = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            logits = torch.where(rows.seen, punished, logits)
        rows.last = logits.argmax(-1)
        if rows.seen is not None:
            rows.seen.scatter_(1, rows.last[:, None], True)
        for tokens, token in zip(rows.tokens, rows.last.tolist(), strict=True):
            tokens.append(token)


class _Rolling:
    """A session in which each complete row makes room. After an error it continues with half as many rows."""

    def __init__(self, reasoner: ContinuousReasoner, batch_size: int):
        self._reasoner, self._batch_size = reasoner, batch_size
        self._rows: _Rows | None = None
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

    def _join(self, parts: list[tuple[_Rows, list[int]]]) -> None:
        """Continue with these rows; needs memory for a copy of them."""
        try:
            self._rows = self._reasoner.join(parts) if parts else None
        except Exception as error:  # noqa: BLE001  as in `advance`
            self._retreat([prompt for rows, keep in parts for i in keep if (prompt := rows.prompts[i])], error)

    def _retreat(self, stopped: list[Prompt], error: Exception) -> None:
        """Ask prompts that failed together again, half as many at once; a prompt that failed alone is answered."""
        error.__traceback__ = None  # it keeps the failed batch's tensors alive
        self._rows = None
        if len(stopped) == 1:
            self._answers.append((stopped[0], error))
        else:
            self._again.extend(stopped)
            self._batch_size = len(stopped) // 2

    def _close(self, rows: _Rows) -> None:
        """Collect the complete answers."""
        for i, (prompt, tokens) in enumerate(zip(rows.prompts, rows.tokens, strict=True)):
            if prompt and self._reasoner.is_over(tokens):
                self._answers.append((prompt, self._reasoner.read(tokens, rows.shown[i])))
                rows.prompts[i] = None

    def _begin(self, prompts: Sequence[Prompt]) -> Iterator[_Rows]:
        """Yield the first rows of prompts; halve prompts that fail, until the failing prompt is alone."""
        rows: _Rows | None = None
        try:
            rows = self._reasoner.prefill(prompts)
        except Exception as error:  # noqa: BLE001  the error is the answer
            error.__traceback__ = None
            if len(prompts) == 1:
                self._answers.append((prompts[0], error))
        if rows:
            yield rows
        elif len(prompts) > 1:
            middle = len(prompts) // 2
            yield from self._begin(prompts[:middle])
            yield from self._begin(prompts[middle:])


def _cache(layers: list[_Layer]) -> Cache:
    return Cache(layers=[*layers])


def _common(token_ids: list[torch.Tensor]) -> int:
    """Return the length of the common prefix; at least one token of each prompt stays outside of it."""
    shortest = min(map(len, token_ids)) - 1
    first = token_ids[0][:shortest]
    same = torch.stack([first == ids[:shortest] for ids in token_ids]).all(0)
    return int(same.long().cumprod(0).sum())


def _last(ids: torch.Tensor, token: int) -> int:
    return int((ids == token).nonzero().max())


def _padded(ids: list[torch.Tensor], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right-aligned tokens int64[rows, columns], and bool[rows, columns], False for padding."""
    tokens = pad_sequence(ids, batch_first=True, padding_side="left").to(device)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in ids], batch_first=True, padding_side="left")
    return tokens, mask.to(device)
