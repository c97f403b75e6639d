"""Report progress and publish checkpoints beside the training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from genseg_hub.errors import PublishError
from genseg_hub.publishing import publish
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.trainer_utils import HubStrategy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubTarget:
    """Place and time of a run's publication, from Transformers' options of the Hub.

    Attributes:
        repo_id: owner/name.
        private: make the repository private.
        revision: branch; None for main.
        every_save: publish at every save, not only at the end.
        token: token of the Hub; None for the token of `hf auth login` or HF_TOKEN.
    """

    repo_id: str
    private: bool
    revision: str | None
    every_save: bool
    token: str | None = field(repr=False)

    @classmethod
    def of(cls, config: transformers.TrainingArguments) -> HubTarget | None:
        """Read the target from TrainingArguments; None if `push_to_hub` is off.

        Args:
            config: its `hub_model_id`, `hub_private_repo`, `hub_revision`, `hub_strategy` and `hub_token` are read.

        Raises:
            ValueError: for a missing or impossible repository, an unsupported strategy, or a missing token.
        """
        if not config.push_to_hub:
            return None
        repo_id = config.hub_model_id or ""
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise ValueError(f"hub_model_id {repo_id!r} is not a Hub id (owner/name); check the spelling") from error
        if repo_id.count("/") != 1:
            raise ValueError(f"push_to_hub needs hub_model_id as owner/name, got {repo_id!r}")
        strategy = HubStrategy(config.hub_strategy)
        if strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
            raise ValueError(f"hub_strategy is end or every_save, got {strategy.value!r}")
        if not (config.hub_token or huggingface_hub.get_token()):
            raise ValueError("push_to_hub needs a token of the Hub: run `hf auth login` or set HF_TOKEN")
        return cls(
            repo_id=repo_id,
            private=bool(config.hub_private_repo),
            revision=config.hub_revision,
            every_save=strategy == HubStrategy.EVERY_SAVE,
            token=config.hub_token,
        )

    def push(self, folder: Path, message: str) -> publish.Push:
        """Publish a checkpoint folder.

        Args:
            folder: folder of the checkpoint.
            message: title of the commit.

        Raises:
            PublishError: as `publish.push`.
        """
        return publish.push(
            folder, self.repo_id, private=self.private, revision=self.revision, message=message, token=self.token
        )


class PushToHub(transformers.TrainerCallback):
    """Publish the best checkpoint so far at every save.

    The other processes wait. A failed push is logged and training goes on. The next save or the end of the run pushes
    again.

    Args:
        target: repository and time of the publication.
        best: writes the best checkpoint so far and returns its folder.
    """

    def __init__(self, target: HubTarget, best: Callable[[transformers.TrainerState], Path]):
        self._target, self._best = target, best

    def on_save(self, args, state: transformers.TrainerState, control, **kwargs) -> None:
        """Publish the best checkpoint so far from the first process."""
        if not state.is_world_process_zero:
            return
        try:
            published = self._target.push(self._best(state), f"Best checkpoint after step {state.global_step}")
        except (PublishError, OSError, ValueError) as error:
            logger.warning("step %d was not published: %s", state.global_step, error)
        else:
            logger.info("published %s at step %d", published.url, state.global_step)


class OnProgress(transformers.TrainerCallback):
    """Report the progress of a run to a function.

    Args:
        tell: gets the share of the steps that are done, and a label with the latest figures.
    """

    def __init__(self, tell: Callable[[float, str], Any]):
        self._tell = tell
        self._figures: dict[str, str] = {}

    def on_log(self, args, state: transformers.TrainerState, control, logs=None, **kwargs) -> None:
        """Keep the latest reward and held-out mIoU."""
        for name, label in (("reward", "reward"), ("eval_miou", "held-out mIoU")):
            if name in (logs or {}):
                self._figures[label] = f"{float(logs[name]):.3f}"

    def on_step_end(self, args, state: transformers.TrainerState, control, **kwargs) -> None:
        """Report the step from the first process."""
        if state.is_world_process_zero:
            known = "".join(f", {label} {value}" for label, value in self._figures.items())
            self._tell(state.global_step / state.max_steps, f"step {state.global_step} of {state.max_steps}{known}")
