"""Segment a stream of examples with a reasoner and a segmenter that work at the same time.

The reasoner takes a new prompt whenever it has room. The segmenter works in a second thread and takes all answers about
one image together. On MPS the two take turns. Results come back in the order of the examples, and `READ_AHEAD` bounds
the memory.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from genseg_hub import answers
from genseg_hub.cpu_threads import Cores
from genseg_hub.dialects import Dialect
from genseg_hub.errors import ReasonerError, SegmenterError
from genseg_hub.images import load_image
from genseg_hub.options import ReasonerOptions
from genseg_hub.questions import Questions
from genseg_hub.reasoners.base import Generation, Prompt, Reasoner
from genseg_hub.reasoners.prefixes import is_memory_error
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.segmenters.base import Segmenter

# Batches in flight, counted from the oldest unfinished example: one long answer blocks the results after it.
READ_AHEAD = 4
# Decoded images in flight; 300 million pixels are 0.9 GB, or a dozen photographs of 24 megapixels.
_READ_AHEAD_PIXELS = 300_000_000


@dataclass(eq=False)
class _Job:
    """One example in flight; `result` is a Failure as soon as a step fails."""

    example: ReferringExample
    image: Image.Image | None = None
    prompt: Prompt | None = None
    answer: Generation | None = None
    result: Prediction | Failure | None = None


@dataclass(eq=False)
class _Group:
    """Neighbours about one image, which the segmenter takes together.

    Attributes:
        identity: see `_identity`.
        jobs: the neighbours, in order.
        closed: True when no other example will join.
        segmented: the work of the segmenter, once it has begun.
    """

    identity: Hashable
    jobs: list[_Job] = field(default_factory=list)
    closed: bool = False
    segmented: Future[None] | None = None


class Stream:
    """Results of examples, in their order; iterate once.

    Args:
        reasoner, segmenter, dialect: the parts of a checkpoint.
        examples: read lazily.
        batch_size: prompts that the reasoner has open at once.
        options: `min_pixels` and `max_pixels` of the image that the reasoner sees.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        segmenter: Segmenter,
        dialect: Dialect,
        examples: Iterable[ReferringExample],
        batch_size: int,
        options: ReasonerOptions,
    ):
        self._reasoner, self._segmenter = reasoner, segmenter
        self._questions = Questions(segmenter, dialect, options)
        self._session = reasoner.session(batch_size)
        self._cores = Cores(divided=reasoner.takes_cores and segmenter.device.type == "cpu")
        self._examples, self._batch_size = iter(examples), batch_size
        self._read_ahead = READ_AHEAD * max(batch_size, self._session.room())
        self._groups: deque[_Group] = deque()  # without groups whose results were yielded; the oldest first
        self._asked: dict[Prompt, _Job] = {}
        self._last: _Job | None = None
        self._exhausted = False
        self._failure: Exception | None = None  # raised by the iterator of examples

    def __iter__(self) -> Iterator[Prediction | Failure]:
        asked = self._asked
        with ThreadPoolExecutor(1, thread_name_prefix="segmenter") as worker:
            while not self._exhausted or self._groups:
                new: list[Prompt] = []
                while len(new) < self._session.room() and self._has_room():
                    job = self._read()
                    if job and job.prompt:
                        asked[job.prompt] = job
                        new.append(job.prompt)
                if asked:
                    for prompt, answer in self._advance(new):
                        job = asked.pop(prompt)
                        if isinstance(answer, Generation):
                            job.answer = answer
                        else:
                            job.result = Failure(explain(answer), answer)
                elif self._groups and self._groups[0].segmented:
                    self._groups[0].segmented.result()
                for group in self._groups:
                    if group.closed and not group.segmented and all(job.answer or job.result for job in group.jobs):
                        group.segmented = worker.submit(self._segment, group)
                        if self._segmenter.device.type == "mps":
                            group.segmented.result()  # two computing threads crash PyTorch on MPS (its issue 197805)
                while self._groups and self._groups[0].segmented and self._groups[0].segmented.done():
                    for job in self._groups.popleft().jobs:
                        assert job.result is not None
                        yield job.result
        if self._failure:
            raise self._failure

    def _advance(self, new: list[Prompt]) -> list[tuple[Prompt, Generation | Exception]]:
        busy = any(group.segmented and not group.segmented.done() for group in self._groups)
        with self._cores.share(2 if busy else 1):
            if new:
                self._session.ask(new)
            return self._session.advance()

    def _has_room(self) -> bool:
        waiting = sum(len(group.jobs) for group in self._groups)
        images = (group.jobs[0].image for group in self._groups if group.jobs)
        pixels = sum(image.width * image.height for image in images if image)
        return not self._exhausted and waiting < self._read_ahead and pixels < _READ_AHEAD_PIXELS

    def _read(self) -> _Job | None:
        """Read the next example into its group; return None at the end of the examples."""
        group = self._groups[-1] if self._groups else None
        try:
            example = next(self._examples)
        except Exception as error:  # noqa: BLE001  raised after the results of all earlier examples
            self._failure = None if isinstance(error, StopIteration) else error
            self._exhausted = True
            if group:
                group.closed = True
            return None
        job, identity = _Job(example), _identity(example)
        if group and group.identity != identity:
            group.closed = True
        if group is None or group.closed:
            self._groups.append(group := _Group(identity))
        self._prepare(job, self._last if self._last and _identity(self._last.example) == identity else None)
        group.jobs.append(job)
        group.closed = len(group.jobs) >= self._batch_size
        self._last = job
        return job

    def _prepare(self, job: _Job, neighbour: _Job | None) -> None:
        """Make the prompt of an example; `neighbour` is the example before it, about the same image."""
        try:
            if neighbour and neighbour.image and neighbour.prompt:
                job.image = neighbour.image
                job.prompt = self._questions.prompt(job.image, job.example.expression, neighbour.prompt)
            else:
                job.image = load_image(job.example.image)
                job.prompt = self._questions.prompt(job.image, job.example.expression)
        except Exception as error:  # noqa: BLE001  recorded on the example
            job.result = Failure(explain(error), error)

    def _segment(self, group: _Group) -> None:
        """Turn the answers about one image into masks, all in one batch."""
        jobs = [job for job in group.jobs if job.result is None]
        with self._cores.share(2 if self._asked else 1):
            try:
                self._segment_together(jobs)
            except Exception as together:  # noqa: BLE001  each example is tried alone, and its error recorded on it
                traceback.clear_frames(together.__traceback__)  # frees tensors, because memory may be short
                if is_memory_error(together):
                    self._reasoner.release()
                    self._segmenter.release()
                for job in jobs:
                    try:
                        self._segment_together([job])
                    except Exception as error:  # noqa: BLE001
                        traceback.clear_frames(error.__traceback__)
                        job.result = Failure(explain(error), error)

    def _segment_together(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        image, prompt = jobs[0].image, jobs[0].prompt
        assert image is not None
        assert prompt is not None
        responses = [self._questions.read(image, prompt, job.answer) for job in jobs if job.answer]
        for job, prediction in zip(jobs, self._questions.segment(image, prompt, responses), strict=True):
            job.result = prediction


def _identity(example: ReferringExample) -> Hashable:
    """Return a value that neighbours with the same image share: an `image_id` or a path."""
    if example.image_id:
        return example.image_id
    return str(example.image) if isinstance(example.image, str | Path) else id(example)


def explain(error: Exception) -> str:
    """Return a message for people, of bounded length."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        message = f"out of memory: take a smaller image, checkpoint or batch size ({error})"
    elif isinstance(error, ValueError | TypeError | ReasonerError | SegmenterError):
        message = str(error)  # written for people: ImageError, the errors of dialects and servers
    else:
        message = f"{type(error).__name__}: {error}"
    return answers.storable(message, answers.MAX_MESSAGE_CHARACTERS)
