"""Tell from the rewards whether a GRPO run still learns, and stop a dead run.

A group without variance of its rewards has no advantage, so it teaches nothing. This module knows neither models nor
data: it reads rewards and the trainer's log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

SAME, ZERO, CUT = "groups_without_variance", "zero_rewards", "completions/clipped_ratio"
_EPSILON = 1e-6
_RIGHT = 0.95  # of the largest reward


class DeadRunError(ValueError):
    """A run learns nothing; the message says why and what to try."""


def totals(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum of each answer's rewards; NaN if it got no reward.

    Args:
        rewards: float[answers, functions]; NaN if a function gave no reward.
        weights: float[functions].
    """
    summed = (rewards * weights.to(rewards.device)).nansum(dim=1)
    return summed.masked_fill(torch.isnan(rewards).all(dim=1), torch.nan)


def without_variance(total: torch.Tensor, num_generations: int) -> torch.Tensor:
    """Return bool[groups]: whether all answers of a group earn the same.

    Answers without a reward do not count.

    Args:
        total: float[answers], of `totals`; the answers of a group follow each other.
        num_generations: answers in a group.
    """
    groups = total.view(-1, num_generations)
    unknown = torch.isnan(groups)
    highest = groups.masked_fill(unknown, -torch.inf).amax(dim=1)
    lowest = groups.masked_fill(unknown, torch.inf).amin(dim=1)
    return highest - lowest < _EPSILON  # -inf where no answer has a reward


def figures(total: torch.Tensor, num_generations: int) -> dict[str, float]:
    """Return the shares of groups without variance and of answers without reward.

    TRL's own `frac_reward_zero_std` looks at the whole batch with `scale_rewards: batch`, and at groups otherwise.

    Args:
        total: float[answers], of `totals`.
        num_generations: answers in a group.
    """
    known = total[~torch.isnan(total)]
    return {
        SAME: without_variance(total, num_generations).float().mean().item(),
        ZERO: (known <= _EPSILON).float().mean().item() if len(known) else 1.0,
    }


class Watch(transformers.TrainerCallback):
    """Stop a run that is dead for a number of logged steps.

    All processes read the same figures. A step is dead if at least `share` of its groups have no variance. It is also
    dead if that share of its answers earns nothing, or is cut at the token limit. The callback reads the trainer's log
    alone, so a resumed run goes on counting.

    Args:
        steps: logged steps in a row; 0 to stop no run before its end.
        share: the bar, in (0, 1].
        largest: the largest reward of an answer.
        limit: `max_completion_length`, for the message.
    """

    def __init__(self, steps: int, share: float, largest: float, limit: int):
        self._steps, self._share, self._largest, self._limit = steps, share, largest, limit

    def on_log(self, args, state: transformers.TrainerState, control, **kwargs) -> None:
        """Stop the training when the run is dead."""
        is_step = bool(state.log_history) and ZERO in state.log_history[-1]
        if is_step and self._dead(state.log_history):
            control.should_training_stop = True

    def check(self, log_history: Sequence[dict[str, Any]]) -> str | None:
        """Return why a run that has ended is no success; None for a run that learnt.

        Args:
            log_history: log of the trainer's state.
        """
        dead = self._dead(log_history)
        if dead:
            return f"the run was stopped, because {self._reason(dead, f'in the last {len(dead)} logged steps')}"
        steps = _steps(log_history)
        if steps and all(step[ZERO] >= 1 for step in steps):
            return f"no answer of the run earned a reward: {self._reason(steps, f'in {len(steps)} logged steps')}"
        return None

    def _dead(self, log_history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the last steps if all of them are dead, else none."""
        last = _steps(log_history)[-self._steps :] if self._steps else []
        dead = len(last) == self._steps and all(
            max(step.get(name) or 0 for name in (SAME, ZERO, CUT)) >= self._share for step in last
        )
        return last if dead else []

    def _reason(self, steps: Sequence[dict[str, Any]], when: str) -> str:
        same, zero, cut = (_mean(steps, name) or 0 for name in (SAME, ZERO, CUT))
        shares = (
            f"{same:.0%} of the groups had no variance, {zero:.0%} of the answers earned nothing, {cut:.0%} were cut"
        )
        known = [_mean(steps, f"rewards/{name}_reward/mean") for name in ("format", "schema")]
        if cut >= self._share:
            way = (
                f"answers do not end within max_completion_length {self._limit:,}: give them more tokens, or teach "
                "short ones first with `genseg-train sft`"
            )
        elif any(value == 0 for value in known):
            way = (
                "no answer had the format: start from a checkpoint that knows it, which `genseg-train sft` makes from "
                "masks (a cold start)"
            )
        elif zero >= self._share:
            way = "answers have the format and are all wrong: look at the pictures in samples/ and at the data"
        elif (_mean(steps, "reward") or 0) >= _RIGHT * self._largest:
            way = "nearly all answers are right: train on harder examples, which `genseg-train mine` collects"
        else:
            way = (
                "all answers to an expression earn the same: raise temperature or num_generations, or train on "
                "examples of medium difficulty, which `genseg-train mine` collects"
            )
        return f"{when} {shares}; {way}"


def _steps(log_history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in log_history if ZERO in entry and SAME in entry]


def _mean(steps: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [step[name] for step in steps if step.get(name) is not None]
    return sum(values) / len(values) if values else None
