"""Attention of rows that share the beginnings of their prompts.

Each beginning's keys and values are held once. The idea is cascade attention
(https://flashinfer.ai/2024/02/02/cascade-inference.html): a row has scores over its beginning, beside scores over its
own columns, and one softmax goes over both. All rows of a beginning read its keys and values in one matrix product.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "genseg_shared"


@dataclass(eq=False)
class Beginnings:
    """First columns of rows, right-aligned.

    Attributes:
        names: names of each beginning; equal names have equal tokens and images.
        keys: keys of each layer, [beginnings, heads, columns, size].
        values: as `keys`.
        mask: bool[beginnings, columns]: the columns in use.
        of: the beginning of each row.
    """

    names: Sequence[Hashable]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor
    of: list[int]

    def __post_init__(self) -> None:
        """Lay the rows out as [beginnings, most rows of one].

        A place without a row takes row 0.
        """
        rows: list[list[int]] = [[] for _ in self.names]
        for row, beginning in enumerate(self.of):
            rows[beginning].append(row)
        self._most = max(map(len, rows))
        places = [its + [0] * (self._most - len(its)) for its in rows]
        self._rows = torch.tensor(places, device=self.mask.device).flatten()
        back = {row: i * self._most + j for i, its in enumerate(rows) for j, row in enumerate(its)}
        self._places = torch.tensor([back[row] for row in range(len(self.of))], device=self.mask.device)
        self._is_plain = self.of == [*range(len(self.names))]
        # Columns that a row does not have, bool[rows, 1, 1, columns]; None if each row has all.
        self.blocked = None if bool(self.mask.all()) else ~self.mask[self.of][:, None, None]

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Let models that are called in this context attend to the beginnings.

        The context holds for this thread.
        """
        before = _current.set(self)
        try:
            yield
        finally:
            _current.reset(before)

    def by_beginning(self, of_rows: torch.Tensor) -> torch.Tensor:
        """Return values of rows in the order of beginnings.

        [rows, heads, length, size] becomes [beginnings, heads, rows x length, size].
        """
        if self._is_plain:
            return of_rows
        _, heads, length, size = of_rows.shape
        laid = of_rows[self._rows].view(len(self.names), self._most, heads, length, size)
        return laid.transpose(1, 2).reshape(len(self.names), heads, self._most * length, size)

    def by_row(self, of_beginnings: torch.Tensor) -> torch.Tensor:
        """Return the reverse of `by_beginning`."""
        if self._is_plain:
            return of_beginnings
        count, heads, lengths, size = of_beginnings.shape
        laid = of_beginnings.view(count, heads, self._most, lengths // self._most, size).transpose(1, 2)
        return laid.reshape(count * self._most, heads, lengths // self._most, size)[self._places]


def join(parts: Sequence[tuple[Beginnings, list[int]]]) -> Beginnings:
    """Return the beginnings of chosen rows, each once.

    The parts lose their keys and values layer by layer, so that no more than one layer is held twice.

    Args:
        parts: beginnings with the numbers of the rows to keep.
    """
    places: dict[Hashable, tuple[int, int]] = {}  # name -> its part, and its number there
    for number, (part, keep) in enumerate(parts):
        for row in keep:
            places.setdefault(part.names[part.of[row]], (number, part.of[row]))
    names = [*places]
    of = [names.index(part.names[part.of[row]]) for part, keep in parts for row in keep]
    first = parts[0][0]
    if names == [*first.names]:
        return Beginnings(names, first.keys, first.values, first.mask, of)
    masks = [parts[number][0].mask[i] for number, i in places.values()]
    columns = [int(mask.sum()) for mask in masks]  # right-aligned, so these are the last
    width = max(columns)
    mask = torch.arange(width) >= width - torch.tensor(columns)[:, None]
    keys: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for layer in range(len(first.keys)):
        for new, kind in ((keys, "keys"), (values, "values")):
            old = [getattr(part, kind)[layer] for part, _ in parts]
            held = _aligned([old[number][i] for number, i in places.values()], columns, width)
            new.append(held.clone() if len(places) == 1 else held)  # a view would keep the others alive
            for part, _ in parts:
                getattr(part, kind)[layer] = old[0][:0]
    return Beginnings(names, keys, values, mask.to(first.mask.device), of)


def stack(
    names: Sequence[Hashable],
    parts: Sequence[tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], int]],
    of: list[int],
) -> Beginnings:
    """Return beginnings of several lengths beside each other.

    A single beginning is not copied.

    Args:
        names: names of the beginnings.
        parts: for each beginning, keys and values of each layer, [heads, columns, size], and the number of first
            columns to take.
        of: the beginning of each row.
    """
    counts = [count for *_, count in parts]
    width, device = max(counts), parts[0][0][0].device
    mask = torch.arange(width) >= width - torch.tensor(counts)[:, None]
    layers = range(len(parts[0][0]))
    keys = [_aligned([its[i][:, :count] for its, _, count in parts], counts, width) for i in layers]
    values = [_aligned([its[i][:, :count] for _, its, count in parts], counts, width) for i in layers]
    return Beginnings(names, keys, values, mask.to(device), of)


def _aligned(parts: list[torch.Tensor], columns: list[int], width: int) -> torch.Tensor:
    """Return the last columns of parts, right-aligned.

    Parts are [heads, columns, size], the result is [parts, heads, width, size].
    """
    if len(parts) == 1:
        return parts[0][None, :, parts[0].shape[1] - width :]
    heads, _, size = parts[0].shape
    new = parts[0].new_zeros(len(parts), heads, width, size)
    for place, part, count in zip(new, parts, columns, strict=True):
        place[:, width - count :] = part[:, part.shape[1] - count :]
    return new


_current: ContextVar[Beginnings | None] = ContextVar("_current", default=None)


def attend(
    module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Return the attention of rows over their beginnings and own columns.

    Without beginnings it is SDPA's. The signature is Transformers' attention interface. With beginnings,
    `attention_mask` is bool[rows, 1, length, columns], True where a token attends.
    """
    shared = _current.get()
    if shared is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    keys, values = shared.keys[module.layer_idx], shared.values[module.layer_idx]
    rows, heads, length, size = query.shape
    kv_heads = key.shape[1]
    packed = query.reshape(rows, kv_heads, -1, size) * (size**-0.5 if scaling is None else scaling)
    over_beginning = shared.by_row(shared.by_beginning(packed) @ keys.transpose(2, 3))
    own = packed @ key.transpose(2, 3)
    if shared.blocked is not None:
        over_beginning = over_beginning.masked_fill(shared.blocked, -torch.inf)
    if attention_mask is not None:
        masked = own.view(rows, heads, length, -1).masked_fill(~attention_mask, -torch.inf)
        own = masked.view(rows, kv_heads, -1, own.shape[-1])
    columns = keys.shape[2]
    weights = torch.cat([over_beginning, own], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
    seen = shared.by_row(shared.by_beginning(weights[..., :columns]) @ values) + weights[..., columns:] @ value
    return seen.reshape(rows, heads, length, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
