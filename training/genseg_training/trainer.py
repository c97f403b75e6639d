"""TRL's GRPO trainer, evaluated by what counts: the masks of greedy answers to held-out expressions."""

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
from genseg_hub.overlay import contact_sheet, draw_prediction
from genseg_hub.pipeline import GenSegR1
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.referring_dataset import from_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.segmenters.base import Segmenter
from PIL import Image
from tqdm.auto import tqdm
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import RepeatSampler

EVALUATIONS, SAMPLES = "evaluations", "samples"
N_SAMPLES = 8


class EpochSampler(RepeatSampler):
    """TRL's, but the order of an epoch follows from seed and epoch alone: a run that resumes in a later epoch draws
    what it would have drawn without a pause. TRL's own starts again with the order of the first epoch.

    Args:
        own: TRL's sampler.
        epoch: gives the epoch. A `set_epoch` would not be reached through all that accelerate wraps around a sampler.
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
    """GRPOTrainer whose `evaluate` segments held-out examples greedily and scores the masks.

    Every evaluation logs `eval_ciou`, `eval_miou`, `eval_target_miou`, `eval_n_acc`, `eval_t_acc` and the other figures
    of `ReferringMetrics`, and writes into `output_dir` all of them (`evaluations/step-N.json`) and a picture of the
    first examples with their answers (`samples/step-N.png`). Examples are divided among the processes.

    Args:
        segmenter: the frozen SAM 2, on this process's device.
        eval_dataset: referring examples with `referring_dataset.FEATURES`, not rows of TRL; None for no evaluation.
        eval_name: what these examples are called in the reports.
        kwargs: those of GRPOTrainer.

    Raises:
        ValueError: when the weights are divided among processes (FSDP, ZeRO-3) that would answer unequal numbers of
            batches: the rest would wait for ever.
    """

    def __init__(self, *, segmenter: Segmenter, eval_dataset: datasets.Dataset | None, eval_name: str, **kwargs):
        super().__init__(eval_dataset=eval_dataset, **kwargs)
        self._segmenter, self._held_out, self._eval_name = segmenter, eval_dataset, eval_name
        zero = self.accelerator.state.deepspeed_plugin
        divided = self.is_fsdp_enabled or (zero is not None and zero.zero_stage == 3)
        count, world = len(eval_dataset or ()), self.accelerator.num_processes
        each, rest = divmod(count, world)
        if divided and rest and each % self.args.per_device_eval_batch_size == 0:
            raise ValueError(
                f"{count} examples to evaluate give {rest} of {world} processes one batch more than the others, "
                f"for which FSDP and ZeRO-3 would wait: leave {rest} out"
            )

    def _get_train_sampler(self, dataset: datasets.Dataset | None = None) -> EpochSampler:
        own = super()._get_train_sampler(dataset)
        assert isinstance(own, RepeatSampler)
        return EpochSampler(own, lambda: int(self.state.epoch or 0))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Segment the held-out examples, or others of the same columns, and score them: see the class.

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
                GenSegR1(reasoner, self._segmenter, genseg),
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
        policy.eval()  # TRL logs what is gathered under the mode the model is in
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        policy.train(was_training)
        return metrics

    def _write(self, figures: dict, panels: list) -> None:
        step = f"step-{self.state.global_step:06d}"
        reports, pictures = (Path(str(self.args.output_dir), name) for name in (EVALUATIONS, SAMPLES))
        reports.mkdir(parents=True, exist_ok=True)
        pictures.mkdir(parents=True, exist_ok=True)
        report = {"benchmark": self._eval_name, "step": self.state.global_step} | figures
        (reports / f"{step}.json").write_text(json.dumps(report, indent=2) + "\n")
        contact_sheet(panels).save(pictures / f"{step}.png")


def _panel(example: ReferringExample, result: Prediction | Failure):
    image = load_image(example.image)
    if isinstance(result, Failure):
        return image, f"{example.expression}\nfailed: {result.message[:40]}"
    said = f"{len(result.masks)} instances, {len(example.masks or ())} meant"
    if result.response.error:
        said = result.response.error.value
    return draw_prediction(image, result), f"{example.expression}\n{said}"
