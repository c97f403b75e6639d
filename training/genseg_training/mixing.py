"""Draw training rows: mix sources by weight, keep the share of no-target examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from genseg_training import sources

_PART, _MIXTURE = {"source", "weight", "root"}, {"sources", "exclude", "root"}
EXAMPLE = "sources: [{source: refcocog:train, weight: 3}, {source: grefcoco:train, weight: 1}]"


@dataclass(frozen=True)
class Mixture:
    """Sources with their weights, and sources whose images are left out."""

    parts: tuple[sources.Source, ...]
    weights: tuple[float, ...]
    exclude: tuple[sources.Source, ...] = ()


def read(
    data: Sequence[str],
    weights: Sequence[float] | None = None,
    exclude: Sequence[str] = (),
    root: str | Path | None = None,
) -> Mixture:
    """Return the mixture that options ask for; read no examples.

    Args:
        data: sources as `sources.parse` takes them; or one YAML file of a mixture, see `read_file`.
        weights: how often each source is drawn from, in relation to the others; None for equally often.
        exclude: sources whose images are left out.
        root: folder of the official archives.

    Raises:
        ValueError: a source, a weight or the file cannot be used.
    """
    excluded = [sources.parse(text, root) for text in exclude]
    files = [text for text in data if text.endswith((".yaml", ".yml"))]
    if files:
        if len(data) > 1 or weights:
            raise ValueError(f"{files[0]} is a mixture with weights of its own: name no other source and no weights")
        mixture = read_file(Path(files[0]).expanduser(), root)
        return Mixture(mixture.parts, mixture.weights, (*mixture.exclude, *excluded))
    if not data:
        raise ValueError("name at least one source, such as refscenes:10000 or refcocog:train")
    given = [1.0] * len(data) if weights is None else list(weights)
    _check_weights(len(data), given)
    return Mixture(tuple(sources.parse(text, root) for text in data), tuple(given), tuple(excluded))


def read_file(file: Path, root: str | Path | None = None) -> Mixture:
    """Return the mixture in a YAML file.

    Args:
        file: file with `sources`, a list of {source, weight (1 by default), root}; and perhaps `exclude`, a list of
            sources, and `root`, the folder of the official archives.
        root: folder of the official archives, if the file names none.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no mixture {file}; check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"the mixture {file} cannot be read: {error}") from error
    values = _mapping(found, _MIXTURE, f"the mixture {file}")
    listed = values.get("sources")
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"the mixture {file} lists no sources; an example is: {EXAMPLE}")
    root = values.get("root", root)
    parts, weights = [], []
    for number, item in enumerate(listed, 1):
        where = f"source {number} of {file}"
        part = _mapping({"source": item} if isinstance(item, str) else item, _PART, where)
        weight = part.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight of {where} is {weight!r}; expected a number above 0")
        parts.append(sources.parse(str(part.get("source", "")), part.get("root", root)))
        weights.append(float(weight))
    _check_weights(len(parts), weights)
    excluded = values.get("exclude") or []
    if not isinstance(excluded, list):
        raise ValueError(f"exclude of {file} is {excluded!r}; expected a list of sources")
    return Mixture(tuple(parts), tuple(weights), tuple(sources.parse(str(text), root) for text in excluded))


def _mapping(value: Any, known: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}; an example is: {EXAMPLE}")
    unknown = sorted(str(name) for name in set(value) - known)
    if unknown:
        raise ValueError(f"{where} has an unknown {unknown[0]!r}; choose from {', '.join(sorted(known))}")
    return value


def _check_weights(count: int, weights: Sequence[float]) -> None:
    if count != len(weights) or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"{count} sources need as many positive weights, got {list(weights)}")


def mix(parts: Sequence[datasets.Dataset], weights: Sequence[float], seed: int = 0) -> datasets.Dataset:
    """Draw from several datasets with the given weights until one is used up.

    Args:
        parts: the datasets.
        weights: how often each is drawn from, in relation to the others.
        seed: seed of the draws.

    Raises:
        ValueError: unless there are as many positive weights as datasets.
    """
    _check_weights(len(parts), weights)
    total = sum(weights)
    return datasets.interleave_datasets(list(parts), [weight / total for weight in weights], seed=seed)


def with_no_target_share(examples: datasets.Dataset, share: float, seed: int = 0) -> datasets.Dataset:
    """Draw as many examples as a share of no-target examples allows.

    The draw is random, from all images alike. The second example of an image is drawn after the first of every other
    image. So an image whose examples are not all drawn keeps both kinds, if it has both.

    Args:
        examples: examples with and without targets.
        share: share of no-target examples in the result, in [0, 1].
        seed: seed of the draw and of the order.

    Raises:
        ValueError: for a share outside [0, 1], or when the share needs a kind that does not occur.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of no-target examples must be between 0 and 1, got {share}")
    empty = no_targets(examples)
    without, targets = np.flatnonzero(empty), np.flatnonzero(~empty)
    if (share > 0 and not len(without)) or (share < 1 and not len(targets)):
        raise ValueError(f"a share of {share} is impossible: {len(without)} examples have no target, {len(targets)} do")
    total = min(
        len(without) / share if share else len(targets), len(targets) / (1 - share) if share < 1 else len(without)
    )
    n_without = round(total * share)
    rng = np.random.default_rng(seed)
    images = column(examples, "image_key" if "image_key" in examples.column_names else "image_id").to_pylist()
    chosen = _balanced(without, images, n_without, rng) + _balanced(targets, images, round(total) - n_without, rng)
    return examples.select(sorted(chosen)).shuffle(seed=seed)


def no_targets(examples: datasets.Dataset) -> np.ndarray:
    """Return which examples have no target: bool[examples]."""
    return pc.equal(pc.list_value_length(column(examples, "masks")), 0).to_numpy()


def column(examples: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """Return a column in the order of the examples, as arrays, not Python objects."""
    return examples.select_columns([name]).with_format("arrow")[:].column(name)


def _balanced(indices: np.ndarray, image_ids: Sequence[str], count: int, rng: np.random.Generator) -> list[int]:
    """Draw `count` of the indices in rounds of at most one per image."""
    of_image = Counter[str]()
    rounds = []
    for index in rng.permutation(indices).tolist():
        image = image_ids[index] or f"\0{index}"  # an example without an id has an image of its own
        rounds.append((of_image[image], index))
        of_image[image] += 1
    return [index for _, index in sorted(rounds, key=lambda drawn: drawn[0])[:count]]
