"""Compute beginnings of prompts once, and keep them for all questions on an image.

Attention is causal, so keys and values of a prompt's first tokens do not depend on the tokens after them. Any prompt
that begins with the same tokens and the same image can take them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from genseg_hub.reasoners._rows import Layer

# Two images under discussion, and the image of a stream, with one to spare.
_MOST_IMAGES = 4
# One prefix of 2,048 image tokens has 0.3 GB with Qwen3-VL-8B and 0.6 GB with Qwen3-VL-32B, in 16 bits.
_MOST_BYTES = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Prefix:
    """Computed beginning of prompts, through the last token of an image or further.

    Attributes:
        ids: int64[columns]: its tokens, on the CPU.
        keys: keys of each layer, [heads, columns, size].
        values: as `keys`.
        image_tokens: number of the image's tokens.
        shift: difference between the position and the column of each token after the image.
        shown: (width, height) of the image as the model sees it; None if unknown.
    """

    ids: torch.Tensor
    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    image_tokens: int
    shift: int
    shown: tuple[int, int] | None

    @classmethod
    def of_row(
        cls,
        row: int,
        layers: Sequence[Layer],
        ids: torch.Tensor,
        image_tokens: int,
        shift: int,
        shown: tuple[int, int] | None,
    ) -> Prefix:
        """Return the prefix that a row of layers ends with.

        Its keys and values are views of the row's.
        """
        columns = [slice(layer.columns - len(ids), layer.columns) for layer in layers]
        keys = [layer.keys[row, :, place] for layer, place in zip(layers, columns, strict=True)]
        values = [layer.values[row, :, place] for layer, place in zip(layers, columns, strict=True)]
        return cls(ids, keys, values, image_tokens, shift, shown)

    @property
    def bytes(self) -> int:
        """Return the bytes of the prefix's keys and values."""
        return sum(part.numel() * part.element_size() for part in (*self.keys, *self.values))

    def copied(self) -> Prefix:
        """Return a copy that keeps no larger tensor alive."""
        return replace(self, keys=[part.clone() for part in self.keys], values=[part.clone() for part in self.values])


class Prefixes:
    """The prefixes of the last images, within a bound of images and bytes.

    Sessions in several threads may share it: each change replaces the whole, so that the worst that can happen is a
    forgotten prefix.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Prefix] = {}  # the last used at the end
        self._stopped = False

    def get(self, key: Hashable) -> Prefix | None:
        """Return the prefix of a key, if it is kept."""
        kept = self._kept
        prefix = kept.get(key)
        if prefix:
            self._kept = {other: its for other, its in kept.items() if other != key} | {key: prefix}
        return prefix

    def keep(self, new: Mapping[Hashable, Prefix]) -> None:
        """Keep copies of new prefixes, and forget the oldest ones beyond the bound."""
        if self._stopped:
            return
        old = {key: prefix for key, prefix in self._kept.items() if key not in new}
        room, chosen = _MOST_BYTES, list[Hashable]()
        for key, prefix in reversed((old | {**new}).items()):
            room -= prefix.bytes
            if room < 0 or len(chosen) == _MOST_IMAGES:
                break
            chosen.insert(0, key)
        self._kept = {key: old[key] for key in chosen if key in old}  # frees memory before the copies take it
        del old
        try:
            self._kept = self._kept | {key: new[key].copied() for key in chosen if key in new}
        except Exception as error:
            if not is_memory_error(error):
                raise
            self.stop()

    def forget(self) -> bool:
        """Free all prefixes; return whether there were any."""
        kept, self._kept = self._kept, {}
        return bool(kept)

    def stop(self) -> bool:
        """Keep nothing from now on, because memory is short; return as `forget`."""
        self._stopped = True
        return self.forget()

    def resume(self) -> None:
        """Keep prefixes again."""
        self._stopped = False


def common(token_ids: Sequence[torch.Tensor], prefix: torch.Tensor | None = None) -> int:
    """Return how many first tokens prompts share with a prefix and with each other.

    At least one token of each prompt stays outside.
    """
    shortest = min(map(len, token_ids)) - 1
    if prefix is not None:
        shortest, token_ids = min(shortest, len(prefix)), [prefix, *token_ids]
    first = token_ids[0][:shortest]
    same = torch.stack([first == ids[:shortest] for ids in token_ids]).all(0)
    return int(same.long().cumprod(0).sum())


def is_memory_error(error: Exception) -> bool:
    """Return whether memory was short, in the words of any device."""
    said = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in said or "can't allocate" in said
    )
