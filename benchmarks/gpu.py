"""Measure Qwen3-VL-8B with SAM 2.1 large on a GPU, in minutes and without network.

python benchmarks/gpu.py --out gpu.json
python benchmarks/gpu.py --size tiny --out gpu.json  # nano's sizes, on a CPU: does the script run?

The weights are random, of the true architectures and sizes, and made on the device. So nothing is downloaded, and
answers are noise. Two things follow. Every answer has exactly `--tokens` tokens, because no token ends an answer. The
script's dialect reads each answer as the same three instances, so SAM 2 gets as many boxes and points as from a trained
reasoner. As answers are equally long, rows never make room early, and the shared image is the only gain of continuous
batching. The tokenizer is nano's, beside the true vocabulary of 151,936: an instruction has more tokens than in Qwen's
own. Pictures are rendered scenes, enlarged and stored as JPEG files.

The parts run in the order of their importance: the pipeline from file and expression to COCO RLE, the devices and
dtypes, and the two models alone and together. Then come the mask reward, and two steps of GRPO with the options of
`genseg_r1_8b`. The JSON file is written after each figure, so a stopped run keeps its figures. A measurement that fails
is recorded with its error, and the next one begins. A measurement that would begin after its part's time is recorded as
left out.

GRPO differs from the recipe: Transformers samples instead of vLLM, answers have at most `--answer` tokens, and one GPU
stands for four. Nothing is evaluated or saved, and the special tokens of images are never sampled. Noise earns no
reward, so the loss is 0, for the same work. The memory is the most that PyTorch had allocated, and on a CPU the
resident memory of the process.

On a machine without network, first collect the wheels of `fiftyone-genseg[train]` elsewhere with `pip download`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from genseg_hub import GenSegR1, Prediction, ReferringExample
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.costs import memory_bytes
from genseg_hub.dialects import genseg, qwen3_vl
from genseg_hub.options import ReasonerOptions
from genseg_hub.questions import Questions
from genseg_hub.reasoners.continuous_batching import ContinuousReasoner
from genseg_hub.reasoners.transformers import TransformersReasoner
from genseg_hub.referring_dataset import to_dataset
from genseg_hub.schema import InstancePrompt, Response, encode_mask
from genseg_hub.segmenters.sam2 import Sam2Segmenter, build_sam2
from genseg_hub.whole import write_text
from genseg_training import estimates, pictures, rewards, rows
from genseg_training.frozen_tower import encode_once
from genseg_training.grpo_arguments import REWARDS, parse
from genseg_training.mask_reward import MaskReward
from genseg_training.nano.refscenes import refscenes
from genseg_training.trainer import SegmentationGRPOTrainer
from PIL import Image
from trl import get_peft_config

RECIPE = Path(__file__).resolve().parents[1] / "training" / "recipes" / "genseg_r1_8b.yaml"
MODEL, SAM = "Qwen/Qwen3-VL-8B-Instruct", "sam2.1/sam2.1_hiera_l"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "rf-sam-2")
PIXELS = {"min_pixels": 65_536, "max_pixels": 16_777_216}  # limits of Qwen3-VL's own image processor
PER_IMAGE = 3  # expressions
# Boxes and points that each answer stands for, in thousandths of the image.
INSTANCES = (
    ((100, 100, 400, 500), ((200, 250), (300, 400))),
    ((450, 200, 900, 800), ((600, 400), (700, 600))),
    ((50, 600, 350, 950), ((150, 700), (250, 850))),
)
SPECIAL = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
Cells = Iterator[tuple[str, Callable[[], dict[str, Any]]]]


@dataclass(frozen=True)
class Scale:
    """Sizes of a run.

    Attributes:
        sizes: (width, height) of the pictures in pixels, the most important first.
        batches: expressions that the reasoner answers at once, the most important first.
        tokens: tokens of each answer.
        answer: most tokens of an answer in GRPO.
        prompts: images of the mask reward, with 8 completions each.
    """

    sizes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    tokens: int
    answer: int
    prompts: int


SCALES = {
    "full": Scale(((640, 480), (4032, 3024)), (8, 64, 1), 100, 256, 8),
    "tiny": Scale(((96, 64), (160, 120)), (2, 1), 4, 8, 2),
}


class Noise:
    """Qwen3-VL's dialect, in which every answer means `INSTANCES`.

    Args:
        segments: False for answers that mean nothing, so that the segmenter rests.
    """

    def __init__(self, segments: bool = True):
        self._segments = segments

    def __getattr__(self, name: str) -> Any:
        return getattr(qwen3_vl, name)

    def parse(self, text: str, image_size: tuple[int, int], truncated=False, shown_size=None) -> Response:
        """See `Dialect.parse`; the text is not read."""
        return Response(text, "", instances(image_size) if self._segments else ())


def instances(size: tuple[int, int], moved: float = 0.0) -> tuple[InstancePrompt, ...]:
    """Return `INSTANCES` in pixels of an image.

    Args:
        size: (width, height) of the image in pixels.
        moved: thousandths of the width by which the boxes are wider.
    """
    across, down = size[0] / 1000, size[1] / 1000
    return tuple(
        InstancePrompt(
            (x1 * across, y1 * down, (x2 + moved) * across, y2 * down), tuple((x * across, y * down) for x, y in points)
        )
        for (x1, y1, x2, y2), points in INSTANCES
    )


class Report:
    """The figures so far, and the file that has them.

    Args:
        file: JSON.
        scale: scale of the run.
        minutes: minutes of the whole run.
        device: device of the models.
    """

    def __init__(self, file: Path, scale: Scale, minutes: float, device: torch.device):
        self._file, self._device = file, device
        self._begun = time.monotonic()
        self._end = self._begun + 60 * minutes
        self.found: dict[str, Any] = {"machine": machine(device), "scale": vars(scale), "weights": "random"}
        self._save()

    def part(self, name: str, share: float, cells: Cells) -> None:
        """Measure a part.

        Args:
            name: name of the part in the file.
            share: share of the time that is left, after which no measurement of the part begins.
            cells: measurements by their names.
        """
        figures: dict[str, Any] = {}
        self.found[name] = figures
        now = time.monotonic()
        end = now + share * (self._end - now)
        measurements = self._listed(cells, figures)
        for cell, measure in measurements:
            if time.monotonic() >= end:
                figures[cell] = {"left_out": "the time of this part is over"}
            else:
                figures[cell] = self._measured(measure)
            print(f"{name}, {cell}: {json.dumps(figures[cell])}", flush=True)
            self._save()
        figures["part_seconds"] = round(time.monotonic() - now, 1)
        self._save()

    def _listed(self, cells: Cells, figures: dict[str, Any]) -> Cells:
        """Yield the measurements; record an error of their shared preparation."""
        try:
            yield from cells
        except Exception as error:  # noqa: BLE001  recorded, and the next part begins
            figures["error"] = _in_words(error)

    def _measured(self, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        started = time.perf_counter()
        try:
            figures = measure()
        except Exception as error:  # noqa: BLE001  recorded, and the next measurement begins
            traceback.clear_frames(error.__traceback__)  # frees tensors
            return {"error": _in_words(error)}
        figures.setdefault("seconds", round(time.perf_counter() - started, 3))
        return figures | {"memory_bytes": memory_bytes(self._device)}

    def _save(self) -> None:
        self.found["minutes"] = round((time.monotonic() - self._begun) / 60, 2)
        write_text(self._file, json.dumps(self.found, indent=1) + "\n")


def _in_words(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"


def machine(device: torch.device) -> dict[str, Any]:
    """Return the names and versions of the parts that compute."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    found: dict[str, Any] = {"python": platform.python_version(), "device": str(device), **versions}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return found


def reasoner_of(size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Make a Qwen3-VL with random weights on the device; no token ends its answers."""
    small = transformers.AutoConfig.from_pretrained(EMBEDDED["nano"])
    config = small
    if size == "full":
        config = estimates.qwen3_vl(MODEL).config
        for name in SPECIAL:
            setattr(config, name, getattr(small, name))
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    beyond = config.get_text_config().vocab_size
    ends = {"eos_token_id": beyond, "pad_token_id": small.get_text_config().pad_token_id}
    model.generation_config = transformers.GenerationConfig(do_sample=False, **ends)
    return model.eval()


def segmenter_of(size: str, device: torch.device) -> Sam2Segmenter:
    """Make a SAM 2 with random weights in float32, and move it to its device."""
    chosen = {"base": SAM, "overrides": {}}
    if size == "tiny":
        chosen = json.loads(Path(EMBEDDED["nano"], "segmenter", "config.json").read_text())
    torch.manual_seed(0)
    return Sam2Segmenter(build_sam2(**chosen).to(device))


def processor_of(size: str) -> Any:
    """Return nano's processor, for a full run with Qwen3-VL's limits of an image."""
    limits = PIXELS if size == "full" else {}
    return transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"], **limits)


class Models:
    """Two reasoners with the same weights, and the segmenter.

    Args:
        size: "full" or "tiny".
        device: device of all weights.
        tokens: tokens of each answer.
        folder: folder for the pictures.
    """

    def __init__(self, size: str, device: torch.device, tokens: int, folder: Path):
        self.device, self._folder = device, folder
        # A CPU computes in float32, as the checkpoint loads there.
        self.model = reasoner_of(size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        processor = processor_of(size)
        self.reasoners = {
            "continuous": ContinuousReasoner(self.model, processor, tokens),
            "generate": TransformersReasoner(self.model, processor, tokens),
        }
        self.segmenter = segmenter_of(size, device)

    def examples(self, size: tuple[int, int], count: int) -> list[ReferringExample]:
        """Return expressions about pictures of a size, `PER_IMAGE` about each."""
        found = []
        for number, path in enumerate(self._pictures(size, -(-count // PER_IMAGE))):
            found += [ReferringExample(path, f"the shape {number} {word}") for word in ("left", "right", "above")]
        return found[:count]

    def run(self, way: str, examples: list[ReferringExample], batch_size: int, segments: bool = True) -> list[str]:
        """Segment to COCO RLE, and return the texts of the answers.

        Raises:
            RuntimeError: an expression failed.
        """
        model = GenSegR1(self.reasoners[way], self.segmenter, Noise(segments))
        model.release()
        texts = []
        for result in model.segment_many(examples, batch_size):
            if not isinstance(result, Prediction):
                raise RuntimeError(result.error) from result.cause
            encode_mask(result.mask)
            texts.append(result.response.text)
        return texts

    def segment(self, examples: list[ReferringExample]) -> None:
        """Segment the instances of all answers without the reasoner."""
        self.segmenter.release()
        questions = Questions(self.segmenter, Noise(), ReasonerOptions())
        for path, of_image in itertools.groupby(examples, key=lambda example: example.image):
            picture = questions.open(path)
            answer = Response("", "", instances(picture.size))
            for prediction in questions.segment(picture, [answer for _ in of_image]):
                encode_mask(prediction.mask)

    def _pictures(self, size: tuple[int, int], count: int) -> list[str]:
        scenes = itertools.islice(refscenes("val"), 0, None, 4)
        paths = [self._folder / f"{size[0]}x{size[1]}-{number}.jpg" for number in range(count)]
        for path, scene in zip(paths, scenes, strict=False):
            if not path.exists():
                Image.fromarray(scene.image).resize(size, Image.Resampling.BICUBIC).save(path)
        return [str(path) for path in paths]


def placement(*modules: tuple[str, torch.nn.Module]) -> dict[str, Any]:
    """Return the devices, dtypes, counts and bytes of the tensors of modules."""
    found: dict[str, Any] = {}
    for name, module in modules:
        groups: dict[str, dict[str, int]] = {}
        named = (("parameter", module.parameters()), ("buffer", module.buffers()))
        for kind, tensor in ((kind, tensor) for kind, tensors in named for tensor in tensors):
            dtype = str(tensor.dtype).removeprefix("torch.")
            trains = ", trains" if tensor.requires_grad else ""
            group = groups.setdefault(f"{kind} {dtype} on {tensor.device}{trains}", {"numbers": 0, "bytes": 0})
            group["numbers"] += tensor.numel()
            group["bytes"] += tensor.numel() * tensor.element_size()
        found[name] = groups
    return found


def pipeline(models: Models, scale: Scale) -> Cells:
    """Measure expressions to RLE, by continuous batching and by `generate`."""
    texts: dict[tuple, list[str]] = {}

    def measure(way: str, size: tuple[int, int], batch: int) -> dict[str, Any]:
        examples = models.examples(size, max(PER_IMAGE, 2 * batch))
        started = time.perf_counter()
        texts[way, size, batch] = models.run(way, examples, batch)
        seconds = time.perf_counter() - started
        figures = {"expressions": len(examples), "seconds": round(seconds, 3)}
        figures["expressions_per_second"] = round(len(examples) / seconds, 3)
        other = texts.get(("continuous", size, batch)) if way == "generate" else None
        if other:
            figures["texts_equal_to_continuous"] = sum(map(str.__eq__, texts[way, size, batch], other))
        return figures

    # The first passes on a device choose and compile kernels.
    yield "warm-up", lambda: {"answers": len(models.run("continuous", models.examples(scale.sizes[0], 2), 2))}
    for size, batch, way in itertools.product(scale.sizes, scale.batches, models.reasoners):
        name = f"{way}, batch {batch}, {size[0]} x {size[1]}"
        yield name, lambda way=way, size=size, batch=batch: measure(way, size, batch)


def devices(models: Models, scale: Scale) -> Cells:
    """Tell the devices and dtypes of all weights, kept tensors and results."""
    inner, sam = models.model.model, models.segmenter._predictor.model
    parts = (
        ("reasoner, vision tower", inner.visual),
        ("reasoner, language model", inner.language_model),
        ("reasoner, output layer", models.model.lm_head),
        *((f"segmenter, {name}", child) for name, child in sam.named_children()),
    )
    yield "weights", lambda: placement(*parts)

    def kept() -> dict[str, Any]:
        example = models.examples(scale.sizes[0], 1)
        models.run("continuous", example, 1)
        prefix = next(iter(models.reasoners["continuous"].prefixes._kept.values()))
        embedding = next(iter(models.segmenter._kept.values()))._features["image_embed"]
        told = {"keys of an image": prefix.keys[0], "SAM 2 embedding of an image": embedding}
        masks, _ = models.segmenter.segment(np.zeros((48, 64, 3), np.uint8), instances((64, 48)))
        return {name: f"{tensor.dtype} on {tensor.device}, {list(tensor.shape)}" for name, tensor in told.items()} | {
            "mask": f"numpy {masks[0].dtype}, {list(masks[0].shape)}"
        }

    yield "kept and returned", kept


def overlap(models: Models, scale: Scale) -> Cells:
    """Measure each model alone, and both together.

    The share is 1 if the shorter work takes no time of its own, and 0 if the two take turns.
    """
    batch = scale.batches[0]
    for size in scale.sizes:
        examples = models.examples(size, PER_IMAGE * batch)

        def measure(examples=examples) -> dict[str, Any]:
            reasoner = _seconds(lambda: models.run("continuous", examples, batch, segments=False))
            segmenter = _seconds(lambda: models.segment(examples))
            together = _seconds(lambda: models.run("continuous", examples, batch))
            return {
                "expressions": len(examples),
                "reasoner_alone_seconds": reasoner,
                "segmenter_alone_seconds": segmenter,
                "seconds": together,
                "hidden_share_of_the_shorter": round((reasoner + segmenter - together) / min(reasoner, segmenter), 3),
            }

        yield f"batch {batch}, {size[0]} x {size[1]}", measure


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return round(time.perf_counter() - started, 3)


def mask_reward(models: Models, scale: Scale) -> Cells:
    """Measure the mask reward of groups of 8 completions."""
    size, group = scale.sizes[0], 8
    width, height = size
    target = np.zeros((height, width), bool)
    target[height // 8 : height // 2, width // 8 : width // 2] = True
    images = [Image.open(example.image) for example in models.examples(size, PER_IMAGE * scale.prompts)[::PER_IMAGE]]
    columns: dict[str, list] = {"completions": [], "image": [], "image_id": [], "masks": []}
    for number, image in enumerate(images):
        columns["completions"] += [genseg.render("", instances(size, 5.0 * i), size) for i in range(group)]
        columns["image"] += [image] * group
        columns["image_id"] += [str(number)] * group
        columns["masks"] += [[encode_mask(target)]] * group

    def measure() -> dict[str, Any]:
        started = time.perf_counter()
        found = MaskReward(models.segmenter)(**columns)
        seconds = time.perf_counter() - started
        if any(value is None for value in found):
            raise RuntimeError("the segmenter failed on an image; see the log")
        figures = {"images": len(images), "completions": len(found), "seconds": round(seconds, 3)}
        return figures | {"completions_per_second": round(len(found) / seconds, 2)}

    yield f"{len(images)} x {group} completions, {width} x {height}", measure


def grpo(size: str, device: torch.device, scale: Scale, folder: Path) -> Cells:
    """Train two steps with the recipe's options, and measure the second one."""
    options: dict[str, Any] = {"config": str(RECIPE), "output_dir": str(folder / "grpo"), "max_steps": 2}
    options |= {"use_vllm": "false", "max_completion_length": scale.answer, "report_to": "none", "save_steps": 1000}
    options |= {"eval_strategy": "no", "eval_on_start": "false", "disable_tqdm": "true", "model_name_or_path": "random"}
    if device.type == "cpu":
        options |= {"bf16": "false", "use_cpu": "true"}
    if size == "tiny":
        options |= {"num_generations": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}

    def measure() -> dict[str, Any]:
        arguments, config, model_config = parse(options)
        model = reasoner_of(size, device, getattr(torch, model_config.dtype))
        model.model.visual.requires_grad_(False)
        encode_once(model.model.visual)
        special = [getattr(model.config, name) for name in SPECIAL]
        config.generation_kwargs = {"suppress_tokens": special}  # an image token without its image is an error
        prompts = config.per_device_train_batch_size * config.gradient_accumulation_steps // config.num_generations
        clock = _Clock()
        trainer = SegmentationGRPOTrainer(
            segmenter=segmenter_of(size, device),
            eval_dataset=None,
            eval_name="",
            eval_options=ReasonerOptions(),
            model=model,
            args=config,
            reward_funcs=[rewards.of_template(REWARDS[name], False) for name in arguments.rewards],
            train_dataset=pictures.trainable(training_rows(scale.sizes[0], 2 * prompts), ReasonerOptions()),
            processing_class=processor_of(size),
            peft_config=get_peft_config(model_config),
            callbacks=[clock],
        )
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        return {
            "prompts": prompts,
            "completions": prompts * config.num_generations,
            "steps": trainer.state.global_step,
            "step_seconds": clock.seconds,
            "seconds": clock.seconds[-1],
            "logged": logged,
            "placement": placement(("policy with adapters", trainer.model)),
            "options": options | {"config": RECIPE.name, "output_dir": "temporary"},
        }

    yield "genseg_r1_8b with LoRA, the second of two steps", measure


class _Clock(transformers.TrainerCallback):
    """Record the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """See TrainerCallback; the first step begins here."""
        self._begun = self._begun or time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """See TrainerCallback; the next step begins here."""
        now = time.perf_counter()
        self.seconds.append(round(now - self._begun, 3))
        self._begun = now


def training_rows(size: tuple[int, int], count: int) -> Any:
    """Return rows of training about scenes that are enlarged to a size."""
    examples = []
    for example in itertools.islice(refscenes("val"), 0, 4 * count, 4):
        target = np.zeros(size[::-1], bool)
        target[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = True
        image = np.asarray(Image.fromarray(example.image).resize(size, Image.Resampling.BICUBIC))
        examples.append(
            ReferringExample(image, example.expression, (encode_mask(target),), example.example_id, example.image_id)
        )
    return rows.of_examples(to_dataset(examples), "scenes")


def main() -> None:
    """Measure all parts within the minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file of the figures")
    parser.add_argument("--size", choices=sorted(SCALES), default="full", help="full needs a GPU of 80 GB")
    parser.add_argument("--minutes", type=float, default=8.0, help="minutes after which no measurement begins")
    parser.add_argument("--tokens", type=int, help="tokens of each answer (100; tiny: 4)")
    parser.add_argument("--answer", type=int, help="most tokens of an answer in GRPO (256; tiny: 8)")
    asked = parser.parse_args()
    if asked.size == "full" and not torch.cuda.is_available():
        parser.error("there is no GPU for --size full; take --size tiny, which tries the script on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {name: value for name in ("tokens", "answer") if (value := getattr(asked, name))}
    scale = Scale(**vars(SCALES[asked.size]) | chosen)
    report = Report(asked.out, scale, asked.minutes, device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made: list[Models] = []

        def build() -> dict[str, Any]:
            made.append(Models(asked.size, device, scale.tokens, folder))
            return {
                "reasoner_parameters": estimates.count(made[0].model),
                "segmenter_parameters": estimates.count(made[0].segmenter._predictor.model),
            }

        report.part("build", 1, iter([("weights made on the device", build)]))
        if made:
            report.part("pipeline", 0.5, pipeline(made[0], scale))
            report.part("devices", 1, devices(made[0], scale))
            report.part("overlap", 0.3, overlap(made[0], scale))
            report.part("mask_reward", 0.3, mask_reward(made[0], scale))
            made.clear()
        report.part("grpo", 1, grpo(asked.size, device, scale, folder))
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
