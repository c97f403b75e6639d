"""Encode each picture of a batch once, although several answers are about it."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch


def encode_once(tower: Any) -> None:
    """Make a frozen vision tower of Qwen3-VL encode equal images of a batch once.

    Args:
        tower: a `Qwen3VLVisionModel` without gradients. Its `forward` is replaced.
    """
    forward, merged = tower.forward, tower.config.spatial_merge_size**2

    @wraps(forward)
    def once(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **kwargs):
        lengths, grids = grid_thw.prod(-1).tolist(), grid_thw.tolist()
        images = hidden_states.split(lengths)
        sums = torch.stack([image.sum(dtype=torch.float64) for image in images]).tolist()
        distinct: list[int] = []
        of = []  # for each image, its place among the distinct ones
        for index, image in enumerate(images):
            same = (
                place for place, other in enumerate(distinct)
                if sums[other] == sums[index] and grids[other] == grids[index] and torch.equal(images[other], image)
            )  # fmt: skip
            place = next(same, len(distinct))
            if place == len(distinct):
                distinct.append(index)
            of.append(place)
        encoded = forward(torch.cat([images[i] for i in distinct]), grid_thw=grid_thw[distinct], **kwargs)

        def repeated(features: torch.Tensor, per_token: int) -> torch.Tensor:
            parts = features.split([lengths[i] // per_token for i in distinct])
            return torch.cat([parts[place] for place in of])

        encoded.last_hidden_state = repeated(encoded.last_hidden_state, 1)
        encoded.pooler_output = repeated(encoded.pooler_output, merged)
        encoded.deepstack_features = [repeated(features, merged) for features in encoded.deepstack_features]
        return encoded

    tower.forward = once
