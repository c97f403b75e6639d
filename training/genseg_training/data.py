"""Draw a run's training rows and held-out examples from its sources.

This module knows neither rewards nor trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from genseg_hub.publishing import eval_results
from genseg_hub.referring_dataset import FEATURES, IGNORE

from genseg_training import mixing, overlap, rows, sources
from genseg_training.sources import check_source, load_source

__all__ = ["Loaded", "Request", "check_source", "examples_of", "load", "load_source"]


@dataclass(frozen=True)
class Request:
    """Request for the data of a run.

    Attributes:
        data: sources, or one YAML file of a mixture, as `mixing.read` takes them.
        weights: how often each source is drawn from; None for equally often.
        root: folder of the official archives.
        exclude: sources whose images are left out of training.
        no_target_share: share of no-target examples in training; None for the share that the sources have.
        held_out: a source that is scored; None for no source.
        allow_shared_images: whether an image may be both trained on and scored.
    """

    data: Sequence[str]
    weights: Sequence[float] | None = None
    root: str | None = None
    exclude: Sequence[str] = ()
    no_target_share: float | None = None
    held_out: str | None = None
    allow_shared_images: bool = False

    def check(self) -> tuple[mixing.Mixture, sources.Source | None]:
        """Return the sources; read no examples.

        Raises:
            ValueError: a source, a weight or the share cannot be used.
        """
        if self.no_target_share is not None and not 0 <= self.no_target_share <= 1:
            raise ValueError(f"the share of no-target examples must be between 0 and 1, got {self.no_target_share}")
        mixture = mixing.read(self.data, self.weights, self.exclude, self.root)
        return mixture, sources.parse(self.held_out, self.root) if self.held_out else None

    def hub_datasets(self) -> tuple[str, ...]:
        """Return the Hub ids of the datasets that are trained on, each once."""
        mixture, _ = self.check()
        return tuple(dict.fromkeys(part.hub_split[0] for part in mixture.parts if part.hub_split))

    def scored_on(self) -> dict[str, Any]:
        """Return the Hub split of the held-out examples, as a report states it.

        Return {} unless the examples are a whole split of a dataset on the Hub.
        """
        _, scored = self.check()
        if scored is None or scored.count is not None or scored.hub_split is None:
            return {}
        hub_id, split = scored.hub_split
        return {eval_results.DATASET: {"id": hub_id, "task_id": split}}


@dataclass(frozen=True)
class Loaded:
    """Data of a run.

    Attributes:
        rows: training rows, see `rows.prepared`.
        held_out: rows that are scored; None for no such rows.
        report: numbers of examples that were read, left out and drawn, in lines.
    """

    rows: datasets.Dataset
    held_out: datasets.Dataset | None
    report: str


def load(request: Request, seed: int) -> Loaded:
    """Load, check and draw the data of a run.

    Args:
        request: the data to load.
        seed: seed of rendered scenes, draws and order.

    Raises:
        ValueError: for sources, weights or examples that cannot be used, and for images that are both trained on and
            scored.
    """
    mixture, scored = request.check()
    lines: list[str] = []
    excluded = _excluded(mixture.exclude, seed, lines)
    parts = []
    for source in mixture.parts:
        part = _part(source, seed, lines)
        kept = np.flatnonzero(~overlap.shared(part, excluded)) if len(excluded) else None
        if kept is not None and len(kept) < len(part):
            lines.append(f"{source}: {len(part) - len(kept):,} expressions about excluded images left out")
            part = part.select(kept)
        if not len(part):
            raise ValueError(f"no example of {source} is left after --exclude: exclude less, or name another source")
        parts.append(part)
    drawn = parts[0] if len(parts) == 1 else mixing.mix(parts, mixture.weights, seed)
    if request.no_target_share is not None:
        drawn = mixing.with_no_target_share(drawn, request.no_target_share, seed)
    lines.append(_drawn(drawn, mixture, seed))
    held_out = _part(scored, seed, lines, "held out, ") if scored else None
    if held_out is not None and not request.allow_shared_images:
        overlap.refuse_shared(drawn, held_out, str(scored))
        lines.append(f"{scored}: no image is trained on")
    return Loaded(drawn, held_out, "\n".join(lines))


def examples_of(loaded: datasets.Dataset) -> datasets.Dataset:
    """Return training rows as examples with `referring_dataset.FEATURES` and `ignore`."""
    return loaded.select_columns([*FEATURES, IGNORE]).cast_column("image", datasets.Image())


def _excluded(exclude: Sequence[sources.Source], seed: int, lines: list[str]) -> pa.Array:
    images = [pa.array([], pa.string())]
    for source in exclude:
        images.append(overlap.images_of(_part(source, seed, lines, "excluded, ")))
    return pc.unique(pa.concat_arrays([part.cast(pa.string()) for part in images]))


def _part(source: sources.Source, seed: int, lines: list[str], what: str = "") -> datasets.Dataset:
    prepared, left_out = rows.prepared(source, seed)
    part = sources.draw(prepared, source)
    count, images = f"{len(part):,}", f"{len(overlap.images_of(part)):,}"
    if source.count is not None:
        count += f" of {len(prepared):,}"
    lines.append(f"{what}{source}: {count} expressions about {images} images{_seeds(source, seed)}")
    lines += [f"{source.name}: {line}" for line in left_out]
    return part


def _seeds(source: sources.Source, seed: int) -> str:
    if source.count is not None:
        return f", drawn with seed {sources.SLICE_SEED}"
    return f", rendered with seed {seed}" if source.is_scenes and "val" not in source.name else ""


def _drawn(drawn: datasets.Dataset, mixture: mixing.Mixture, seed: int) -> str:
    """Return the line that says how many examples of each source are trained on."""
    counts = {
        found["values"]: found["counts"] for found in mixing.column(drawn, rows.SOURCE).value_counts().to_pylist()
    }
    weights: dict[str, float] = {}
    for source, weight in zip(mixture.parts, mixture.weights, strict=True):
        weights[source.name] = weights.get(source.name, 0.0) + weight
    parts = ", ".join(f"{name} {counts.get(name, 0):,} (weight {weight:g})" for name, weight in weights.items())
    without = int(mixing.no_targets(drawn).sum())
    return (
        f"trained on: {len(drawn):,} expressions about {len(overlap.images_of(drawn)):,} images, {without:,} "
        f"({without / len(drawn):.1%}) without a target, drawn with seed {seed}: {parts}"
    )
