"""TRL's GRPO trainer with an evaluation of masks: greedy answers to held-out expressions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import torch
from accelerate.utils import gather_object
from genseg_hub.dialects import genseg
from genseg_hub.evaluation import scores
from genseg_hub.images import load_image
from genseg_hub.options import ReasonerOptions
from genseg_hub.overlay import contact_sheet, draw_prediction
from genseg_hub.pipeline import GenSegR1
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.segmenters.base import Segmenter
from genseg_hub.whole import write_text, written_file
from PIL import Image
from tqdm.auto import tqdm
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import RepeatSampler

EVALUATIONS, SAMPLES = "evaluations", "samples"
N_SAMPLES = 8


class EpochSampler(RepeatSampler):
    """TRL's sampler, except that seed and epoch alone decide the order of an epoch.

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
    """GRPOTrainer whose `evaluate` answers held-out expressions greedily and scores the masks.

    Every evaluation logs `eval_ciou`, `eval_miou`, `eval_target_miou`, `eval_n_acc`, `eval_t_acc` and the other figures
    of `ReferringMetrics`. It writes all figures (`evaluations/step-N.json`) and a picture of the first examples with
    their answers (`samples/step-N.png`) into `output_dir`. The processes divide the examples among them.

    Args:
        segmenter: the frozen SAM 2, on this process's device.
        eval_dataset: referring examples with `referring_dataset.FEATURES`, not rows of TRL; None for no evaluation.
        eval_name: name of these examples in the reports.
        eval_options: `min_pixels` and `max_pixels` of the images that the policy sees.
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
        **kwargs,
    ):
        super().__init__(eval_dataset=eval_dataset, **kwargs)
        self._segmenter, self._held_out, self._eval_name = segmenter, eval_dataset, eval_name
        self._eval_options = eval_options
        zero = self.accelerator.state.deepspeed_plugin
        divided = self.is_fsdp_enabled or (zero is not None and zero.zero_stage == 3)
        count, world = len(eval_dataset or ()), self.accelerator.num_processes
        each, rest = divmod(count, world)
        if divided and rest and each % self.args.per_device_eval_batch_size == 0:
            raise ValueError(
                f"{count} examples to evaluate give {rest} of {world} processes one batch more than the others, and "
                f"FSDP and ZeRO-3 would wait for ever: leave {rest} out"
            )

    def _get_train_sampler(self, dataset: datasets.Dataset | None = None) -> EpochSampler:
        own = super()._get_train_sampler(dataset)
        assert isinstance(own, RepeatSampler)
        return EpochSampler(own, lambda: int(self.state.epoch or 0))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Segment held-out examples, score the masks, and return the figures (see the class).

        Args:
            eval_dataset: other examples with the same columns; None for the held-out examples of the trainer.
            ignore_keys: unused; GRPOTrainer has it.
            metric_key_prefix: of the figures' names.

        Raises:
            ValueError: when there are no examples.
        """
        started = time.perf_counter()
        examples = self._held_out if eval_dataset is None else eval_dataset
        if examples is None:
            raise ValueError("there are no held-out examples to evaluate on: give eval_dataset")
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = examples.shard(world, rank, contiguous=True)
        panels: list[tuple[Image.Image, str]] = []

        def look(example: ReferringExample, result: Prediction | Failure, row: dict) -> None:
            progress.update()
            if rank == 0 and len(panels) < N_SAMPLES:
                panels.append(_panel(example, result))

        policy: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        was_training = policy.training
        with (
            tqdm(total=len(mine), desc="evaluation", leave=False, disable=rank != 0) as progress,
            unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model,
        ):
            reasoner = TransformersReasoner(
                model, self.processing_class, self.max_completion_length or genseg.MAX_NEW_TOKENS
            )
            measured = scores.evaluate(
                GenSegR1(reasoner, self._segmenter, genseg, options=self._eval_options),
                from_dataset(mine),
                self.args.per_device_eval_batch_size,
                look,
            )
        first, *others = gather_object([measured])
        for other in others:
            first.merge(other)
        figures = first.compute()
        if self.is_world_process_zero():
            self._write(figures, panels)
        numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in numbers.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(time.perf_counter() - started, 2)
        policy.eval()  # TRL logs figures under the mode that the model is in
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        policy.train(was_training)
        return metrics

    def _write(self, figures: dict, panels: list) -> None:
        step = f"step-{self.state.global_step:06d}"
        reports, pictures = (Path(str(self.args.output_dir), name) for name in (EVALUATIONS, SAMPLES))
        report = {"benchmark": self._eval_name, "step": self.state.global_step} | figures
        write_text(reports / f"{step}.json", json.dumps(report, indent=2) + "\n")
        with written_file(pictures / f"{step}.png") as picture:
            contact_sheet(panels).save(picture, "PNG")


def _panel(example: ReferringExample, result: Prediction | Failure):
    image = load_image(example.image)
    if isinstance(result, Failure):
        return image, f"{example.expression}\nfailed: {result.message[:40]}"
    said = f"{len(result.masks)} instances, {len(example.masks or ())} meant"
    if result.response.error:
        said = result.response.error.value
    return draw_prediction(image, result), f"{example.expression}\n{said}"
