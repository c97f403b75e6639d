"""Rows of a batch that began at different times.

A row has a beginning, its own keys and values, and its newest token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, DynamicLayer

from genseg_hub.reasoners import shared_attention
from genseg_hub.reasoners.base import Prompt
from genseg_hub.reasoners.shared_attention import Beginnings

_GROWTH = 32  # columns by which the cache of a row grows


class Layer(DynamicLayer):
    """Keys and values [rows, heads, columns, size] with room to grow.

    The room saves time, because Transformers' own layer copies all keys and values at each token.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None, columns: int = 0):
        super().__init__()
        self.columns = columns
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values

    @classmethod
    def with_room(cls, like: torch.Tensor, rows: int, columns: int) -> Layer:
        """Return a layer of zeros.

        Args:
            like: keys [..., heads, columns, size] of another layer.
            rows: rows of the new layer.
            columns: columns that count as filled.
        """
        shape = rows, like.shape[-3], columns + _GROWTH, like.shape[-1]
        return cls(like.new_zeros(shape), like.new_zeros(shape), columns)

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            # Models give transposed views, which each later token would read slowly.
            self.keys, self.values = key_states.contiguous(), value_states.contiguous()
            self.columns = key_states.shape[-2]
            return self.keys, self.values
        start, self.columns = self.columns, self.columns + key_states.shape[-2]
        if self.columns > self.keys.shape[-2]:
            room = (0, 0, 0, self.columns + _GROWTH - self.keys.shape[-2])
            self.keys, self.values = (torch.nn.functional.pad(t, room) for t in (self.keys, self.values))
        self.keys[..., start : self.columns, :] = key_states
        self.values[..., start : self.columns, :] = value_states
        return self.keys[..., : self.columns, :], self.values[..., : self.columns, :]

    def get_seq_length(self) -> int:
        return self.columns


@dataclass
class Rows:
    """Prompts in work, one row each.

    Attributes:
        prompts: prompt of each row; None once its answer is complete.
        tokens: generated tokens of each row.
        beginnings: the first columns of the rows.
        layers: keys and values of the tokens between the beginning and `last`.
        mask: bool[rows, columns]: the columns of `layers` that belong to the row.
        last: int64[rows]: the newest token.
        position: int64[rows]: the position of `last`.
        seen: bool[rows, vocabulary]: the tokens of prompt and answer; None without a repetition penalty.
        shown: for each row, the (width, height) of the image as the model sees it.
    """

    prompts: list[Prompt | None]
    tokens: list[list[int]]
    beginnings: Beginnings
    layers: list[Layer]
    mask: torch.Tensor
    last: torch.Tensor
    position: torch.Tensor
    seen: torch.Tensor | None
    shown: list[tuple[int, int] | None]

    def open(self) -> list[int]:
        """Return the rows without a complete answer."""
        return [i for i, prompt in enumerate(self.prompts) if prompt]


@torch.inference_mode()
def join(parts: Sequence[tuple[Rows, list[int]]]) -> Rows:
    """Join chosen rows, right-aligned; the parts lose their tensors.

    Columns that belong to none of the rows are left out.
    """
    device = parts[0][0].mask.device
    chosen = [(rows, torch.tensor(keep, device=device)) for rows, keep in parts]
    masks = [rows.mask[keep] for rows, keep in chosen]
    starts = [int(mask.any(0).long().argmax()) if mask.shape[1] else 0 for mask in masks]
    width = max(mask.shape[1] - start for mask, start in zip(masks, starts, strict=True))
    count = sum(len(keep) for _, keep in chosen)
    mask = torch.zeros(count, width, dtype=torch.bool, device=device)
    layers = [Layer.with_room(like, count, width) for like in parts[0][0].beginnings.keys]
    at = 0
    for (rows, keep), its, start in zip(chosen, masks, starts, strict=True):
        place, columns = slice(at, at + len(keep)), slice(width - (its.shape[1] - start), width)
        mask[place, columns] = its[:, start:]
        for new, old in zip(layers, rows.layers if its.shape[1] else (), strict=bool(its.shape[1])):
            new.keys[place, :, columns] = old.keys[keep, :, start : old.columns]
            new.values[place, :, columns] = old.values[keep, :, start : old.columns]
        at += len(keep)
    seen = [rows.seen[keep] for rows, keep in chosen if rows.seen is not None]
    return Rows(
        [rows.prompts[i] for rows, keep in parts for i in keep],
        [rows.tokens[i] for rows, keep in parts for i in keep],
        shared_attention.join([(rows.beginnings, keep) for rows, keep in parts]),
        layers,
        mask,
        torch.cat([rows.last[keep] for rows, keep in chosen]),
        torch.cat([rows.position[keep] for rows, keep in chosen]),
        torch.cat(seen) if seen else None,
        [rows.shown[i] for rows, keep in parts for i in keep],
    )


def cache(layers: list[Layer]) -> Cache:
    """Return the layers as a cache that models take."""
    return Cache(layers=[*layers])


def padded(ids: list[torch.Tensor], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right-aligned tokens int64[rows, columns], and bool[rows, columns].

    The bools are False for padding.
    """
    tokens = pad_sequence(ids, batch_first=True, padding_side="left").to(device)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in ids], batch_first=True, padding_side="left")
    return tokens, mask.to(device)
