"""Segment a stream of examples while reasoner and segmenter work at once.

The reasoner takes a new prompt whenever it has room. The segmenter works in a second thread and takes all answers about
one image together. On MPS the two take turns. Results come back in the order of the examples.

The memory is bounded whatever the batch: pixels beyond a budget are dropped and read again for the segmenter, and the
segmenter waits while finished masks cannot be given out.
"""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from genseg_hub import answers
from genseg_hub.cpu_threads import Cores
from genseg_hub.errors import ReasonerError, SegmenterError
from genseg_hub.questions import Picture, Questions
from genseg_hub.reasoners.base import Generation, Prompt, Reasoner
from genseg_hub.reasoners.prefixes import is_memory_error
from genseg_hub.schema import Failure, Prediction, ReferringExample
from genseg_hub.segmenters.base import Segmenter

# Batches in flight, counted from the oldest unfinished example: one long answer blocks the results after it.
READ_AHEAD = 4
# Pixels that are kept of images in flight. The rest is dropped, and read again when it is needed.
_KEPT_BYTES = 64_000_000
_HELD_PIXELS = 300_000_000  # of images that are given as pixels, which their owner holds while they are read ahead
# Pixels that the reasoner is given at once, where no single image has more.
_ASKED_BYTES = 32_000_000
# Finished masks that wait for an older result; 4 of a photograph of 12 megapixels.
_MASK_BYTES = 48_000_000


@dataclass(eq=False)
class _Job:
    """One example in flight; `result` is a Failure as soon as a step fails."""

    example: ReferringExample
    prompt: Prompt | None = None
    answer: Generation | None = None
    result: Prediction | Failure | None = None


@dataclass(eq=False)
class _Group:
    """Neighbours about one image, which the segmenter takes together.

    Attributes:
        identity: see `_identity`.
        picture: their image; None if it cannot be read, and after the segmenter's work.
        jobs: the neighbours, in order.
        closed: True when no other example will join.
        segmented: the work of the segmenter, once it has begun.
    """

    identity: Hashable
    picture: Picture | None = None
    jobs: list[_Job] = field(default_factory=list)
    closed: bool = False
    segmented: Future[None] | None = None

    def mask_bytes(self) -> int:
        """Return the bytes of the masks, estimated while the segmenter works."""
        if not self.segmented:
            return 0
        picture = self.picture
        if self.segmented.done():
            results = (job.result for job in self.jobs)
            return sum(mask.nbytes for one in results if isinstance(one, Prediction) for mask in one.masks)
        return len(self.jobs) * math.prod(picture.size) if picture else 0


class Stream:
    """Results of examples, in their order; iterate once.

    Args:
        reasoner, segmenter: parts of a checkpoint.
        questions: questions of the same checkpoint.
        examples: read lazily.
        batch_size: prompts that the reasoner has open at once.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        segmenter: Segmenter,
        questions: Questions,
        examples: Iterable[ReferringExample],
        batch_size: int,
    ):
        self._reasoner, self._segmenter, self._questions = reasoner, segmenter, questions
        self._session = reasoner.session(batch_size)
        self._cores = Cores(divided=reasoner.takes_cores and segmenter.device.type == "cpu")
        self._examples, self._batch_size = iter(examples), batch_size
        self._read_ahead = READ_AHEAD * max(batch_size, self._session.room())
        self._groups: deque[_Group] = deque()  # without groups whose results were yielded; the oldest first
        self._asked: dict[Prompt, _Job] = {}
        self._last: _Group | None = None  # of the last example that was read
        self._last_picture: Picture | None = None
        self._exhausted = False
        self._failure: Exception | None = None  # raised by the iterator of examples

    def __iter__(self) -> Iterator[Prediction | Failure]:
        asked = self._asked
        with ThreadPoolExecutor(1, thread_name_prefix="segmenter") as worker:
            while not self._exhausted or self._groups:
                room = self._session.room()
                while new := self._read_some(room):
                    self._ask(new)
                    room -= len(new)
                if asked:
                    for prompt, answer in self._advance():
                        job = asked.pop(prompt)
                        job.prompt = None
                        if isinstance(answer, Generation):
                            job.answer = answer
                        else:
                            job.result = Failure(explain(answer), answer)
                elif self._groups and self._groups[0].segmented:
                    self._groups[0].segmented.result()
                self._submit(worker)
                while self._groups and self._groups[0].segmented and self._groups[0].segmented.done():
                    for job in self._groups.popleft().jobs:
                        assert job.result is not None
                        yield job.result
        if self._failure:
            raise self._failure

    def _read_some(self, room: int) -> list[Prompt]:
        """Read examples, and return at most `room` prompts, fewer if images are large."""
        new: list[Prompt] = []
        pictures: dict[int, int] = {}  # id of a picture -> its bytes
        while len(new) < room and self._has_room() and sum(pictures.values()) < _ASKED_BYTES:
            job = self._read()
            if job and job.prompt:
                self._asked[job.prompt] = job
                new.append(job.prompt)
                if self._last_picture:
                    pictures[id(self._last_picture)] = self._last_picture.bytes
        return new

    def _ask(self, new: list[Prompt]) -> None:
        with self._cores.share(2 if self._is_segmenting() else 1):
            self._session.ask(new)
        self._trim()

    def _advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        with self._cores.share(2 if self._is_segmenting() else 1):
            return self._session.advance()

    def _is_segmenting(self) -> bool:
        return any(group.segmented and not group.segmented.done() for group in self._groups)

    def _trim(self) -> None:
        """Drop pixels beyond the budget.

        The reasoner's pixels go first, because the reasoner has seen them. Then the pixels go that are needed last.
        """
        pictures = list({id(picture): picture for group in self._groups if (picture := group.picture)}.values())
        for drop in (Picture.drop_shown, Picture.drop):
            kept = sum(picture.bytes for picture in pictures)
            for picture in reversed(pictures):
                if kept <= _KEPT_BYTES:
                    return
                before = picture.bytes
                drop(picture)
                kept -= before - picture.bytes

    def _submit(self, worker: ThreadPoolExecutor) -> None:
        """Give the segmenter, oldest first, the images whose expressions are answered."""
        waiting = sum(group.mask_bytes() for group in self._groups)
        for group in self._groups:
            if group.closed and not group.segmented and all(job.answer or job.result for job in group.jobs):
                if waiting > _MASK_BYTES and group is not self._groups[0]:
                    break
                group.segmented = worker.submit(self._segment, group)
                waiting += group.mask_bytes()
                if self._segmenter.device.type == "mps":
                    group.segmented.result()  # two computing threads crash PyTorch on MPS (its issue 197805)

    def _has_room(self) -> bool:
        if self._exhausted or sum(len(group.jobs) for group in self._groups) >= self._read_ahead:
            return False
        held = {id(its): math.prod(its.size) for group in self._groups if (its := group.picture) and not its.is_file}
        return sum(held.values()) < _HELD_PIXELS

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
        if self._last is None or self._last.identity != identity:
            self._last_picture = None
        self._last = group
        self._prepare(job, group)
        group.jobs.append(job)
        group.closed = len(group.jobs) >= self._batch_size
        return job

    def _prepare(self, job: _Job, group: _Group) -> None:
        """Make the prompt of an example; read its image unless the last one was the same."""
        try:
            if self._last_picture is None:
                self._last_picture = self._questions.open(job.example.image)
            group.picture = self._last_picture
            job.prompt = self._questions.prompt(group.picture, job.example.expression)
        except Exception as error:  # noqa: BLE001  recorded on the example
            job.result = Failure(explain(error), error)

    def _segment(self, group: _Group) -> None:
        """Turn the answers about one image into masks, all in one batch."""
        jobs = [job for job in group.jobs if job.result is None]
        with self._cores.share(2 if self._asked else 1):
            try:
                self._segment_together(group, jobs)
            except Exception as together:  # noqa: BLE001  each example is tried alone, and its error recorded on it
                traceback.clear_frames(together.__traceback__)  # frees tensors, because memory may be short
                if is_memory_error(together):
                    self._reasoner.release()
                    self._segmenter.release()
                for job in jobs:
                    try:
                        self._segment_together(group, [job])
                    except Exception as error:  # noqa: BLE001
                        traceback.clear_frames(error.__traceback__)
                        job.result = Failure(explain(error), error)
        group.picture = None

    def _segment_together(self, group: _Group, jobs: list[_Job]) -> None:
        if not jobs:
            return
        picture = group.picture
        assert picture is not None
        responses = [self._questions.read(picture, job.answer) for job in jobs if job.answer]
        for job, prediction in zip(jobs, self._questions.segment(picture, responses), strict=True):
            job.result = prediction


def _identity(example: ReferringExample) -> Hashable:
    """Return a value that neighbours with the same image share: an id or a path."""
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
