"""Dynamic sampling, as in DAPO (arXiv 2503.14476).

Groups whose answers all earn the same are drawn again. DAPO samples further prompts until the batch is full of groups
that teach something. This module does the same within a limit of rounds. It draws a replacement for each useless group,
not a whole further batch. Replacements are drawn at random from the training rows. The answers of all processes are
exchanged, because each process must generate equally many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from accelerate.utils import gather_object
from trl.data_utils import prepare_multimodal_messages

from genseg_training import liveness

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sampled:
    """Rows of a process with their answers, and the rewards of all processes.

    Attributes:
        rows: training rows, one for each answer.
        answers: for each row, the prompt's tokens, the answer's tokens, the completion and the log-probabilities of
            the answer's tokens or None.
        images: for each row, the list of its images.
        rewards: float[answers of all processes, functions].
    """

    rows: Rows
    answers: list[tuple[Any, Any, Any, Any]]
    images: list[Any]
    rewards: torch.Tensor

    def as_trl(self) -> tuple:
        """Return what `GRPOTrainer._generate` returns for these rows."""
        prompts, tokens, completions, logprobs = (list(part) for part in zip(*self.answers, strict=True))
        known = logprobs if logprobs[0] is not None else None
        return prompts, tokens, None, completions, known, {}, list(self.images), [[] for _ in self.rows]


def sample(
    rows: Rows,
    generate: Callable[[list], tuple],
    score: Callable[[Rows, list, list, list], torch.Tensor],
) -> Sampled:
    """Answer rows and score the answers, with TRL's own functions.

    Args:
        rows: rows with `prompt` and `image`.
        generate: `GRPOTrainer._generate`.
        score: `GRPOTrainer._calculate_rewards`.
    """
    prompts = [prepare_multimodal_messages(row["prompt"], images=[row["image"]]) for row in rows]
    prompt_ids, tokens, _, completions, logprobs, _, images, _ = generate(prompts)
    rewards = score(rows, prompts, completions, tokens)
    answers = list(zip(prompt_ids, tokens, completions, logprobs or [None] * len(rows), strict=True))
    return Sampled(rows, answers, list(images or [[row["image"]] for row in rows]), rewards)


def fill(
    first: Sampled,
    again: Callable[[Rows], Sampled],
    draw: Callable[[int, int], Rows],
    weights: torch.Tensor,
    num_generations: int,
    rounds: int,
    rank: int = 0,
    world: int = 1,
) -> tuple[Sampled, dict[str, float]]:
    """Replace groups without variance by other groups, for a number of rounds.

    Args:
        first: the batch as drawn.
        again: answers and scores rows, see `sample`.
        draw: returns so many training rows for a round, the same in every process.
        weights: weights of the rewards.
        num_generations: answers in a group.
        rounds: at most so many rounds.
        rank: rank of this process.
        world: number of processes.

    Returns:
        The batch, and figures to log: `dynamic_sampling/rounds`, `dynamic_sampling/generated` (answers of all
        processes, in relation to a batch), and `dynamic_sampling/without_variance_before` (share of groups).
    """
    rewards, here = first.rewards.clone(), len(first.rows)
    rows, answers, images = list(first.rows), list(first.answers), list(first.images)
    useless = _useless(rewards, weights, num_generations)
    before, generated, done = len(useless) * num_generations / len(rewards), 0, 0
    step = world // gcd(num_generations, world)  # so many groups can be divided among the processes
    while useless and done < rounds:
        groups = -(-len(useless) // step) * step
        drawn = [row for row in draw(groups, done) for _ in range(num_generations)]
        each = len(drawn) // world
        candidates = again(drawn[rank * each : (rank + 1) * each])
        said = gather_object(candidates.answers)
        done, generated = done + 1, generated + len(drawn)
        dead = set(_useless(candidates.rewards, weights, num_generations))
        good = [group for group in range(groups) if group not in dead]
        for slot, group in zip(useless, good, strict=False):
            for member in range(num_generations):
                target, source = slot * num_generations + member, group * num_generations + member
                rewards[target] = candidates.rewards[source]
                if rank * here <= target < (rank + 1) * here:
                    place = target - rank * here
                    rows[place], answers[place], images[place] = drawn[source], said[source], [drawn[source]["image"]]
        useless = useless[len(good) :]
    return Sampled(rows, answers, images, rewards), {
        "dynamic_sampling/rounds": float(done),
        "dynamic_sampling/generated": 1 + generated / len(rewards),
        "dynamic_sampling/without_variance_before": before,
    }


def _useless(rewards: torch.Tensor, weights: torch.Tensor, num_generations: int) -> Sequence[int]:
    total = liveness.totals(rewards, weights)
    return liveness.without_variance(total, num_generations).nonzero().flatten().tolist()
