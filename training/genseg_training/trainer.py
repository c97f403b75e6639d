"""TRL's GRPO trainer, which also scores the masks of greedy held-out answers."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import gather_object
from genseg_hub.dialects import genseg
from genseg_hub.evaluation import scores
from genseg_hub.options import ReasonerOptions
from genseg_hub.pipeline import GenSegR1
from genseg_hub.reasoners.base import Reasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.segmenters.base import Segmenter
from genseg_hub.thinking import opens_thought
from genseg_hub.whole import write_text, written_file
from tqdm.auto import tqdm
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import RepeatSampler

from genseg_training import dynamic_sampling, liveness, samples, vllm_prompts, vllm_reasoner

EVALUATIONS, SAMPLES = "evaluations", "samples"


class EpochSampler(RepeatSampler):
    """TRL's sampler, but seed and epoch alone decide the order of an epoch.

    A run that resumes in a later epoch therefore draws the same examples as a run without a pause. TRL's own sampler
    starts again with the order of the first epoch.

    Args:
        own: TRL's sampler.
        epoch: returns the epoch. accelerate's wrappers around a sampler would not pass on a `set_epoch`.
    """

    def __init__(self, own: RepeatSampler, epoch: Callable[[], int]):
        super().__init__(
            own.data_source, own.mini_repeat_count, own.batch_size, own.repeat_count, own.shuffle, own.seed
        )
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed((self.seed or 0) + self._epoch())
        yield from super().__iter__()


class SegmentationGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose `evaluate` scores the masks of greedy held-out answers.

    Every evaluation logs `eval_ciou`, `eval_miou`, `eval_target_miou`, `eval_n_acc`, `eval_t_acc` and the other figures
    of `ReferringMetrics`. It writes all figures to `evaluations/step-N.json` in `output_dir`. `samples/step-N.png`
    shows the first examples about different images with their answers; the trackers of the run get this picture, too.
    The processes divide the examples among them. vLLM answers if the training has it beside the policy
    (`vllm_reasoner.usable`), else Transformers.

    Every step logs the figures of `liveness`.

    Args:
        segmenter: the frozen SAM 2, on this process's device.
        eval_dataset: referring examples with `referring_dataset.FEATURES`, not rows of TRL; None for no evaluation.
        eval_name: name of the examples in the reports.
        eval_options: `min_pixels` and `max_pixels` of the images that the policy sees.
        rounds: rounds of dynamic sampling at most, see `dynamic_sampling`; 0 for none.
        kwargs: arguments of GRPOTrainer.

    Raises:
        ValueError: when processes that share divided weights (FSDP, ZeRO-3) would answer unequal numbers of batches,
            because some processes would wait for ever.
    """

    def __init__(
        self,
        *,
        segmenter: Segmenter,
        eval_dataset: datasets.Dataset | None,
        eval_name: str,
        eval_options: ReasonerOptions,
        rounds: int = 0,
        **kwargs,
    ):
        super().__init__(eval_dataset=eval_dataset, **kwargs)
        if self.use_vllm and self.vllm_mode == "colocate":
            vllm_prompts.correct(self.vllm_generation, self.processing_class)
        self._segmenter, self._held_out, self._eval_name = segmenter, eval_dataset, eval_name
        self._eval_options = eval_options
        self._rounds = rounds
        self._sampled: dynamic_sampling.Sampled | None = None  # the batch that TRL is about to ask for
        self._drawn_at = (-1, 0)  # step, and how many batches of it were filled before
        zero = self.accelerator.state.deepspeed_plugin
        self._divided = self.is_fsdp_enabled or (zero is not None and zero.zero_stage == 3)
        count, world = len(eval_dataset or ()), self.accelerator.num_processes
        each, rest = divmod(count, world)
        if self._divided and rest and each % self.args.per_device_eval_batch_size == 0:
            raise ValueError(
                f"{count} examples to evaluate give {rest} of {world} processes one batch more than the others, and "
                f"FSDP and ZeRO-3 would wait for ever: leave {rest} out"
            )

    def _get_train_sampler(self, dataset: datasets.Dataset | None = None) -> EpochSampler:
        own = super()._get_train_sampler(dataset)
        assert isinstance(own, RepeatSampler)
        return EpochSampler(own, lambda: int(self.state.epoch or 0))

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        if self._rounds:  # `evaluate` never comes here
            self._sampled = self._filled(inputs)
            inputs = self._sampled.rows
        return super()._generate_and_score_completions(inputs)

    def _filled(self, inputs: list[dict]) -> dynamic_sampling.Sampled:
        """Replace groups without variance in a batch, and log the cost."""
        step, batch = self.state.global_step, 0
        if self._drawn_at[0] == step:  # several batches in one step
            batch = self._drawn_at[1] + 1
        self._drawn_at = (step, batch)
        rows: Any = self.train_dataset

        def draw(count: int, done: int) -> list[dict]:
            chosen = np.random.default_rng([self.args.seed, step, batch, done]).choice(len(rows), count)
            return [rows[int(index)] for index in chosen]

        generate, score = super()._generate, super()._calculate_rewards

        def sample(rows: list[dict]) -> dynamic_sampling.Sampled:
            return dynamic_sampling.sample(rows, generate, score)

        sampled, figures = dynamic_sampling.fill(
            sample(inputs),
            sample,
            draw,
            self.reward_weights,
            int(self.num_generations or 1),
            self._rounds,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        self._add_figures(figures)
        return sampled

    def _generate(self, prompts: list) -> tuple:
        return super()._generate(prompts) if self._sampled is None else self._sampled.as_trl()

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list) -> torch.Tensor:
        if self._sampled is None:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        else:
            rewards, self._sampled = self._sampled.rewards, None
        total = liveness.totals(rewards, self.reward_weights)
        self._add_figures(liveness.figures(total, int(self.num_generations or 1)))
        return rewards

    def release(self) -> None:
        """Free the memory of the device for another model, after the training.

        Weights that are divided among processes stay on the device.
        """
        self.optimizer = None
        if not self._divided:
            self.accelerator.unwrap_model(self.model).to("cpu")
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without CUDA

    def _add_figures(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._metrics["train"][name].append(value)

    def _whole_policy(self) -> AbstractContextManager[torch.nn.Module]:
        """Gather divided weights, unless vLLM has them already."""
        if vllm_reasoner.usable(self.args):  # type: ignore[arg-type]
            return nullcontext(self.accelerator.unwrap_model(self.model))
        return unwrap_model_for_generation(self.model_wrapped, self.accelerator)

    def _reasoner(self, model: torch.nn.Module) -> Reasoner:
        """Return the reasoner of held-out expressions with the weights of this step."""
        thinks = opens_thought(self.processing_class)
        if vllm_reasoner.usable(self.args):  # type: ignore[arg-type]
            if self.state.global_step != self._last_loaded_step:
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            return vllm_reasoner.VllmReasoner(self.vllm_generation, model, self.processing_class, thinks)
        limit = self.max_completion_length or genseg.MAX_NEW_TOKENS
        return TransformersReasoner(model, self.processing_class, limit, thinks)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Segment held-out examples, score the masks, and return the figures.

        See the class for the figures and files.

        Args:
            eval_dataset: other examples with the same columns; None for the held-out examples of the trainer.
            ignore_keys: unused; GRPOTrainer has it.
            metric_key_prefix: prefix of the figures' names.

        Raises:
            ValueError: when there are no examples.
        """
        started = time.perf_counter()
        examples = self._held_out if eval_dataset is None else eval_dataset
        if examples is None:
            raise ValueError("there are no held-out examples to evaluate on: give eval_dataset")
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = examples.shard(world, rank, contiguous=True)
        shown = samples.Samples()

        def look(example: ReferringExample, result: Prediction | Failure, row: dict) -> None:
            progress.update()
            if rank == 0:
                shown.add(example, result)

        policy: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        was_training = policy.training
        with (
            tqdm(total=len(mine), desc="evaluation", leave=False, disable=rank != 0) as progress,
            self._whole_policy() as model,
        ):
            measured = scores.evaluate(
                GenSegR1(self._reasoner(model), self._segmenter, genseg, options=self._eval_options),
                from_dataset(mine),
                self.args.per_device_eval_batch_size,
                look,
            )
        first, *others = gather_object([measured])
        for other in others:
            first.merge(other)
        figures = first.compute()
        if self.is_world_process_zero():
            self._write(figures, shown)
        numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in numbers.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(time.perf_counter() - started, 2)
        policy.eval()  # TRL logs figures under the mode that the model is in
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        policy.train(was_training)
        return metrics

    def _write(self, figures: dict, shown: samples.Samples) -> None:
        step = f"step-{self.state.global_step:06d}"
        reports, pictures = (Path(str(self.args.output_dir), name) for name in (EVALUATIONS, SAMPLES))
        report = {"benchmark": self._eval_name, "step": self.state.global_step} | figures
        write_text(reports / f"{step}.json", json.dumps(report, indent=2) + "\n")
        with written_file(pictures / f"{step}.png") as picture:
            shown.sheet().save(picture, "PNG")
        trackers = [self.args.report_to] if isinstance(self.args.report_to, str) else self.args.report_to
        samples.show(pictures / f"{step}.png", self.state.global_step, trackers or [], self.callback_handler.callbacks)
