"""GenSegR1: from an image and an expression to a mask.

It joins the three parts of a checkpoint (dialect, reasoner, segmenter) and knows none of their
insides.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genseg_hub import checkpoints, dialects
from genseg_hub.images import load_image
from genseg_hub.reasoner import Answer, Reasoner, ReasonerError, TransformersReasoner
from genseg_hub.schema import Failure, ImageLike, Prediction, ReferringExample
from genseg_hub.segmenter import Sam2Segmenter
from genseg_hub.server_reasoner import ServerReasoner


@dataclass
class _Job:
    """One example on its way; `result` is a Failure as soon as something goes wrong.

    Neighbours with an equal `identity` share `key`, which stands for one decoded image, and what of it is `shown` to
    the reasoner.
    """

    example: ReferringExample
    identity: Hashable
    key: object
    image: Image.Image | None = None
    shown: Image.Image | None = None
    chat: list[dict] | None = None
    answer: Answer | None = None
    result: Prediction | Failure | None = None


class GenSegR1:
    """Referring segmentation: reason, then segment.

    Args:
        reasoner: answers chats about images.
        segmenter: turns instance prompts into masks.
        dialect: writes the chats and reads the answers.
        checkpoint: where they came from; its `pinned` name belongs to every result that is kept.

    Example:
        >>> model = GenSegR1.from_pretrained("nano")
        >>> prediction = model.segment("scene.png", "the red circle")
        >>> prediction.mask.shape  # bool[H, W]
    """

    def __init__(
        self,
        reasoner: Reasoner,
        segmenter: Sam2Segmenter,
        dialect: dialects.Dialect,
        checkpoint: checkpoints.Checkpoint | None = None,
    ):
        self.reasoner, self.segmenter, self.dialect, self.checkpoint = reasoner, segmenter, dialect, checkpoint

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        device: str = "auto",
        revision: str | None = None,
        server: str | None = None,
        **server_options: Any,
    ) -> GenSegR1:
        """Load a checkpoint.

        Args:
            name: "nano", a Hub id (also owner/name@revision), or a local folder. A Hub id or folder without
                `genseg.json` is taken as an untuned Qwen3-VL with facebook/sam2.1-hiera-large.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is. Weights are
                bfloat16 on a GPU and float32 on a CPU.
            revision: branch, tag or commit of a Hub id.
            server: address of an OpenAI-compatible server that has the reasoner, such as "http://localhost:8000/v1";
                its weights are then not downloaded, and `device` is that of the segmenter.
            server_options: of `ServerReasoner`: api_key, concurrency, timeout, max_retries, media_folder, and `model`
                where the server calls the checkpoint by another name.

        Raises:
            checkpoints.CheckpointError: the name, the network, the rights, the disk, the memory or
                the device does not allow it.
            reasoner.ReasonerError: the server does not allow it.
        """
        import torch

        target = _device(device)
        if server is None and server_options:
            raise TypeError(f"{', '.join(server_options)} belong to a server; give its address as server=")
        checkpoint = checkpoints.pull(name, revision, with_reasoner=server is None)
        dialect = dialects.load(checkpoint.dialect)
        reasoner: Reasoner | None = None
        if server is not None:
            reasoner = _served_reasoner(checkpoint, dialect, server, server_options)
        try:
            reasoner = reasoner or _loaded_reasoner(checkpoint, dialect, target)
            segmenter = Sam2Segmenter.load(checkpoint.segmenter, checkpoint.segmenter_config, target)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise checkpoints.CheckpointError(
                f"{name} does not fit into the memory of {target}: take a smaller checkpoint or another device"
            ) from error
        except Exception as error:  # files of strangers fail in any way they like
            raise checkpoints.CheckpointError(f"{name} cannot be loaded from {checkpoint.reasoner}: {error}") from error
        return cls(reasoner, segmenter, dialect, checkpoint)

    def segment(self, image: ImageLike, expression: str) -> Prediction:
        """Segment what one expression refers to.

        Args:
            image: path, PIL image or uint8[H, W, 3].
            expression: what to look for.

        Raises:
            images.ImageError: the image cannot be used.
            ValueError, TypeError: the expression cannot be used.
        """
        (result,) = self.segment_many([ReferringExample(image, expression)], batch_size=1)
        if isinstance(result, Failure):
            raise result.cause
        return result

    def segment_many(self, examples: Iterable[ReferringExample], batch_size: int = 8) -> Iterator[Prediction | Failure]:
        """Segment a stream of examples.

        The segmenter works on one batch while the reasoner answers the next. Neighbours with the
        same image share its decoding and its embedding. A bad example becomes a Failure and the
        stream goes on: a batch that fails is halved until the culprit is alone.

        Args:
            examples: read lazily, one batch ahead.
            batch_size: expressions that the reasoner answers at once.

        Yields:
            One result per example, in order.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        stream = iter(examples)
        pending: Future[list[_Job]] | None = None
        last: _Job | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="segmenter") as worker:
            ended: Exception | None = None
            more = True
            while more:
                jobs: list[_Job] = []
                try:
                    for example in itertools.islice(stream, batch_size):
                        last = self._prepare(example, last)
                        jobs.append(last)
                except Exception as error:  # noqa: BLE001  raised below, after what was read before it
                    ended = error
                more = len(jobs) == batch_size and ended is None
                self._answer([job for job in jobs if job.result is None])
                if pending:
                    yield from _results(pending)
                pending = worker.submit(self._segment, jobs)
            if pending:
                yield from _results(pending)
            if ended:
                raise ended

    def _prepare(self, example: ReferringExample, last: _Job | None) -> _Job:
        job = _Job(example, _identity(example), object())
        try:
            if last is not None and last.image is not None and last.identity == job.identity:
                job.key, job.image, job.shown = last.key, last.image, last.shown
            else:
                job.image = job.shown = load_image(example.image)
                if self.dialect.IMAGE_SIZE:
                    job.shown = job.image.resize(self.dialect.IMAGE_SIZE, Image.Resampling.BILINEAR)
            job.chat = self.dialect.messages(job.image.size, example.expression)
        except Exception as error:  # noqa: BLE001  recorded on the example
            job.result = Failure(_explain(error), error)
        return job

    def _answer(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            answers = self.reasoner.answer([job.shown for job in jobs], [job.chat for job in jobs])  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001  recorded on the example
            if len(jobs) == 1:
                jobs[0].result = Failure(_explain(error), error)
                return
            error.__traceback__ = None  # it would keep the failed batch's tensors alive
            middle = len(jobs) // 2
            self._answer(jobs[:middle])
            self._answer(jobs[middle:])
            return
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, ReasonerError):
                job.result = Failure(_explain(answer), answer)
            else:
                job.answer = answer

    def _segment(self, jobs: list[_Job]) -> list[_Job]:
        for _, group in itertools.groupby(jobs, key=lambda job: job.key):
            pixels: np.ndarray | None = None
            for job in group:
                if job.result is not None or job.answer is None or job.image is None:
                    continue
                try:
                    response = self.dialect.parse(job.answer.text, job.image.size, job.answer.truncated)
                    if pixels is None:
                        pixels = np.array(job.image)
                    masks, scores = self.segmenter.segment(pixels, response.instances, job.key, self.dialect.MULTIMASK)
                    job.result = Prediction(response, tuple(masks), tuple(scores), job.image.size)
                except Exception as error:  # noqa: BLE001  recorded on the example
                    job.result = Failure(_explain(error), error)
        return jobs


def _loaded_reasoner(checkpoint: checkpoints.Checkpoint, dialect: dialects.Dialect, target) -> TransformersReasoner:
    import torch
    import transformers

    dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
    processor = transformers.AutoProcessor.from_pretrained(checkpoint.reasoner, trust_remote_code=False)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        checkpoint.reasoner, dtype=dtype, use_safetensors=True, trust_remote_code=False
    ).to(target)
    return TransformersReasoner(model, processor, _limit(dialect, model.generation_config))


def _served_reasoner(
    checkpoint: checkpoints.Checkpoint, dialect: dialects.Dialect, server: str, options: dict[str, Any]
) -> ServerReasoner:
    import transformers

    limit, file = dialect.MAX_NEW_TOKENS, checkpoint.reasoner / "generation_config.json"
    if file.is_file():
        try:
            limit = _limit(dialect, transformers.GenerationConfig.from_pretrained(checkpoint.reasoner))
        except Exception as error:  # a stranger's file
            raise checkpoints.CheckpointError(f"{file} cannot be read: {error}; mend or remove it") from error
    names = (checkpoint.pinned, checkpoint.name, str(checkpoint.reasoner.resolve()))
    return ServerReasoner(server, max_new_tokens=limit, **{"model": names, **options})


def _limit(dialect: dialects.Dialect, generation_config) -> int:
    """Tokens of an answer: what the dialect says, or less where the checkpoint does."""
    return min(dialect.MAX_NEW_TOKENS, generation_config.max_new_tokens or dialect.MAX_NEW_TOKENS)


def _results(jobs: Future[list[_Job]]) -> Iterator[Prediction | Failure]:
    for job in jobs.result():
        assert job.result is not None
        yield job.result


def _identity(example: ReferringExample) -> Hashable:
    """What neighbours have in common when they share an image: an `image_id` or a path."""
    if example.image_id:
        return example.image_id
    return str(example.image) if isinstance(example.image, str | Path) else object()


def _explain(error: Exception) -> str:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"out of memory: take a smaller image, checkpoint or batch size ({error})"
    if isinstance(error, ValueError | TypeError | ReasonerError):
        return str(error)  # written for people: ImageError, the dialects' refusals, a server's failure
    return f"{type(error).__name__}: {error}"


def _device(name: str):
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise checkpoints.CheckpointError(
            f"there is no device {name!r}; choose auto, cpu, cuda, cuda:0 or mps"
        ) from error
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise checkpoints.CheckpointError(f"this machine has no {device.type} device; choose auto or cpu")
    return device
