"""GenSegR1: from an image and an expression to a mask.

The class joins a checkpoint's dialect, reasoner and segmenter, and knows none of their insides.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from genseg_hub import asking, checkpoints, costs, dialects, memory
from genseg_hub.checkpoints import trial
from genseg_hub.errors import CheckpointError
from genseg_hub.options import OF_WEIGHTS, VLLM, HubOptions, ReasonerOptions, pick
from genseg_hub.publishing import commits, publish, writing
from genseg_hub.questions import Questions
from genseg_hub.reasoners.base import InProcess, Reasoner
from genseg_hub.reasoners.loading import answer_limit, connect, connect_by_name, dtype_bytes, load_reasoner
from genseg_hub.reasoners.server import ServerReasoner
from genseg_hub.sam3.agent import Agent, AgentQuestions
from genseg_hub.sam3.by_words import Verbatim, WordQuestions
from genseg_hub.schema import Failure, ImageLike, Prediction, Progress, ReferringExample, Response
from genseg_hub.segmenters.base import Segmenter
from genseg_hub.segmenters.loading import load_segmenter
from genseg_hub.segmenters.words import Words
from genseg_hub.streaming import Stream
from genseg_hub.thinking import template_opens_thought

_DEFAULTS = ReasonerOptions()
_log = logging.getLogger(__name__)


class GenSegR1:
    """Referring segmentation: reason, then segment.

    Args:
        reasoner: answers chats about images.
        segmenter: turns instance prompts into masks.
        dialect: writes the chats and reads the answers.
        checkpoint: the origin of the three; store its `pinned` name with every result.
        options: `min_pixels` and `max_pixels` of the image that the reasoner sees.
        needed: forecast of the memory, by which batches are checked; None to check none.
        questions: puts expressions to the reasoner, and its answers to the segmenter.

    Examples:
        >>> model = GenSegR1.from_pretrained("nano")
        >>> prediction = model.segment("scene.png", "the red circle")
        >>> prediction.mask.shape  # bool[H, W]
    """

    def __init__(
        self,
        reasoner: Reasoner,
        segmenter: Segmenter,
        dialect: dialects.Dialect,
        checkpoint: checkpoints.Checkpoint | None = None,
        options: ReasonerOptions = _DEFAULTS,
        needed: memory.Forecast | None = None,
        questions: type[Questions] = Questions,
    ):
        self.reasoner, self.segmenter, self.dialect, self.checkpoint = reasoner, segmenter, dialect, checkpoint
        self.options, self.needed, self._questions = options, needed, questions

    @classmethod
    def from_pretrained(
        cls,
        name: str | None = None,
        device: str = "auto",
        revision: str | None = None,
        server: str | None = None,
        segmenter: str | None = None,
        served_model: str | None = None,
        **options: Any,
    ) -> GenSegR1:
        """Load a checkpoint.

        Args:
            name: "nano", a Hub id (also owner/name@revision), or a local folder. Without `genseg.json`, the family in
                config.json decides the dialect, and the segmenter is facebook/sam2.1-hiera-large. None for a model
                that only a server knows: its name there decides the dialect.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best device.
            revision: branch, tag or commit of a Hub id.
            server: address of an OpenAI-compatible server that has the reasoner, such as "http://localhost:8000/v1".
                The reasoner's weights are then not downloaded, and `device` is the segmenter's device. See
                `reasoners.loading.connect`.
            segmenter: replaces the checkpoint's own: "nano", a Hub id such as facebook/sam2.1-hiera-tiny, or a local
                folder. from_pretrained("nano+./sam") is from_pretrained("nano", segmenter="./sam").
            served_model: name of the model on the server, such as "qwen3-vl:8b-instruct". None to look for `name`, or,
                without a name, for the only model that takes images. See `reasoners.served_models.choose`.
            options: options of `options.ReasonerOptions` (dialect, max_new_tokens, max_pixels, min_pixels, dtype,
                device_map, attn_implementation, quantization, backend), which count before the options of
                `genseg.json`; of `options.HubOptions` (token, cache_dir, local_files_only, force_download); and, with a
                server, of `ServerReasoner` (api_key, concurrency, timeout, max_retries, media_folder).

        Raises:
            CheckpointError: the name, the network, the rights, the disk, the memory or the device does not allow it,
                or no dialect is known for the checkpoint.
            ReasonerError: the server does not allow it.
            TypeError: there is no such option, it does not go with or without a server, or there is neither a name
                nor a server.
            ValueError: an option has a value that cannot be.
        """
        target = pick_device(device)
        given, hub = pick(ReasonerOptions, options), pick(HubOptions, options)
        server_options = {k: v for k, v in options.items() if not (hasattr(given, k) or hasattr(hub, k))}
        _check_options(given, server_options, server)
        if server is None and (name is None or served_model is not None):
            raise TypeError(
                "give the name of a checkpoint; a model that only a server knows needs its address, server= (--server)"
            )
        reasoner: Reasoner | None = None
        if name is None:
            if revision is not None:
                raise TypeError(f"revision {revision!r} belongs to the name of a checkpoint; leave it out")
            reasoner, checkpoint = connect_by_name(str(server), served_model, segmenter, given, hub, **server_options)
        else:
            checkpoint = checkpoints.pull(
                name, revision, with_reasoner=server is None, segmenter=segmenter, dialect=given.dialect, options=hub
            )
        if checkpoint.note:
            _log.warning("%s", checkpoint.note)
        if checkpoint.takes_words:
            return cls._by_words(checkpoint, target, given, server)
        chosen = given.over(checkpoint.options)
        dialect = dialects.get_dialect(checkpoint.dialect)
        label = name or checkpoint.name
        trial.check(checkpoint.reasoner, label)
        if dialect.IMAGE_SIZE and (given.min_pixels or given.max_pixels):
            size = "{} x {}".format(*dialect.IMAGE_SIZE)
            raise ValueError(f"the dialect {checkpoint.dialect} always shows {size} pixels; leave max_pixels out")
        if server is not None and reasoner is None:
            reasoner, checkpoint = connect(checkpoint, server, chosen.max_new_tokens, served_model, **server_options)
            told = reasoner.choice.model.dialect
            if told not in (None, checkpoint.dialect) and not dialect.TUNED and given.dialect is None:
                raise CheckpointError(
                    f"the server's model {reasoner.label} speaks the dialect {told} by its name, and {label} speaks "
                    f"{checkpoint.dialect}; leave the checkpoint out, or name the dialect (--dialect)"
                )
        needed = None
        if server is None and chosen.device_map is None:
            thinks = template_opens_thought(checkpoint.reasoner)
            limit = answer_limit(checkpoint, dialect, chosen.max_new_tokens, thinks)
            needed = memory.forecast(checkpoint, chosen, dtype_bytes(target, chosen), limit, batch_size=1)
            memory.check(checkpoint, needed, chosen, memory.free_bytes(target), str(target))
        if reasoner is None:
            with _loading(label, checkpoint.reasoner, target):
                reserved = needed.segmenter if needed else 0
                reasoner = load_reasoner(checkpoint, dialect, target, chosen, reserved)
        masks: Segmenter
        with _loading(label, checkpoint.segmenter, target):
            if checkpoint.agent:
                masks = Words.load(checkpoint.segmenter, target)
            else:
                masks = load_segmenter(checkpoint.segmenter, checkpoint.segmenter_config, target)
        # vLLM has taken its memory by now, and makes room for answers by itself.
        needed = needed if chosen.backend != VLLM else None
        if checkpoint.agent:
            return cls(Agent(reasoner), masks, dialect, checkpoint, chosen, needed, AgentQuestions)
        return cls(reasoner, masks, dialect, checkpoint, chosen, needed)

    @classmethod
    def _by_words(
        cls, checkpoint: checkpoints.Checkpoint, target, given: ReasonerOptions, server: str | None
    ) -> GenSegR1:
        """Load SAM 3, which takes words."""
        useless = [field.name for field in fields(given) if getattr(given, field.name)]
        useless += ["server"] if server else []
        if useless:
            raise CheckpointError(
                f"{checkpoint.name} is SAM 3, which takes words and has no reasoner; leave {', '.join(useless)} out"
            )
        trial.check(checkpoint.reasoner, checkpoint.name)
        needed = memory.forecast(checkpoint, given, dtype_bytes=4, max_new_tokens=0, batch_size=1)
        memory.check(checkpoint, needed, given, memory.free_bytes(target), str(target))
        with _loading(checkpoint.name, checkpoint.segmenter, target):
            words = Words.load(checkpoint.segmenter, target)
        return cls(Verbatim(), words, dialects.get_dialect("genseg"), checkpoint, questions=WordQuestions)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write a checkpoint folder.

        `from_pretrained` loads the folder, and `genseg push` publishes it. The reasoner's weights are written as they
        are in memory, in their dtype. The segmenter is frozen: genseg.json names a segmenter of the Hub, and the files
        of another segmenter are copied. The folder is written beside its place and swapped in. It replaces an earlier
        checkpoint with its figures and keeps other files.

        Args:
            save_directory: folder of the checkpoint; made if it does not exist.

        Raises:
            CheckpointError: a server has the weights, or the model was made of parts without a checkpoint.
            DiskFullError: the disk is full; an earlier checkpoint stays.
            FileExistsError: the path is a file.
        """
        checkpoint = self._saveable()
        folder = Path(save_directory).expanduser()
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file: name a folder to save the checkpoint in")
        options = replace(self.options, device_map=None, attn_implementation=None, quantization=None, backend=None)
        segmenter = checkpoint.segmenter_id or checkpoint.segmenter
        with writing.written_checkpoint(folder) as new:
            writing.write(
                new,
                self.reasoner.model,  # type: ignore[attr-defined]
                self.reasoner.processor,  # type: ignore[attr-defined]
                segmenter,
                self.dialect.__name__.rpartition(".")[2],
                options,
                writing.origin(checkpoint),
            )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
    ) -> publish.Push:
        """Publish the checkpoint on the Hugging Face Hub in one commit, with a model card.

        `save_pretrained` writes the files, in a temporary folder. Figures and logs of a training are in its folder:
        `genseg push FOLDER` publishes them, too.

        Args:
            repo_id: owner/name; a missing repository is created.
            private: whether the repository is private. An existing public repository is refused.
            revision: branch; a missing branch is created. The main branch by default.
            commit_message: title of the commit.
            token: token for the Hub; by default the token of `hf auth login` or HF_TOKEN.

        Raises:
            CheckpointError, DiskFullError: as `save_pretrained`.
            PublishError: the name, the rights, the network, the Hub or a concurrent push does not allow it.
        """
        self._saveable()
        commits.check_id(repo_id)
        commits.find_token(token)
        with tempfile.TemporaryDirectory() as outer:
            folder = Path(outer) / repo_id.rpartition("/")[2]
            self.save_pretrained(folder)
            return publish.push(
                folder, repo_id, private=private, revision=revision, message=commit_message, token=token
            )

    def segment(self, image: ImageLike, expression: str) -> Prediction:
        """Segment the instances that one expression refers to.

        Args:
            image: path, PIL image or uint8[H, W, 3].
            expression: the natural-language query.

        Raises:
            ImageError: the image cannot be used.
            ValueError, TypeError: the expression cannot be used.
        """
        (result,) = self.segment_many([ReferringExample(image, expression)], batch_size=1)
        if isinstance(result, Failure):
            raise result.cause
        return result

    def ask(self, image: ImageLike, expression: str) -> Generator[Progress, None, None]:
        """Segment as `segment` does, and tell the progress.

        The images of the last questions are kept in a form that makes the next question about them cheaper; see
        `release`. Closing the iterator stops the generation.

        Args:
            image: path, PIL image or uint8[H, W, 3].
            expression: the natural-language query.

        Yields:
            States with the text so far, a state with the parsed answer, and a last state with the prediction. A slow
            server or `generate` repeats its last text twice a second, so that the caller has the chance to stop.

        Raises:
            ImageError: the image cannot be used.
            ValueError, TypeError: the expression cannot be used.
            CheckpointError: the answer does not fit into the memory.
        """
        self._fitting(1)
        yield from asking.ask(self.reasoner, self.segmenter, self._asked(), image, expression)

    def segment_prompts(self, image: ImageLike, response: Response) -> Prediction:
        """Turn boxes and points, such as corrected ones, into masks.

        The reasoner is not asked. The image is kept as by `ask`.

        Args:
            image: path, PIL image or uint8[H, W, 3].
            response: its instances have boxes and points in pixels of the image.

        Raises:
            ImageError: the image cannot be used.
            SegmenterError: the segmenter's numbers cannot be used.
        """
        questions = self._asked()
        (prediction,) = questions.segment(questions.open(image), [response])
        return prediction

    def release(self) -> None:
        """Free the memory that the last images take.

        This memory holds the segmenter's embeddings and the reasoner's prefixes. Call it after changing the weights of
        a part, too.
        """
        self.reasoner.release()
        self.segmenter.release()

    def segment_many(self, examples: Iterable[ReferringExample], batch_size: int = 8) -> Iterator[Prediction | Failure]:
        """Segment a stream of examples.

        The segmenter works on one image while the reasoner answers about the next images. Neighbours with the same
        image share its decoding. All questions about one of the last images share its embedding, and the image's part
        of the reasoner's prompt. A bad example becomes a Failure, and the stream goes on.

        Args:
            examples: read lazily, `streaming.READ_AHEAD` batches ahead; their pixels are kept within a budget.
            batch_size: expressions that the reasoner answers at once; fewer if the memory does not hold more.

        Yields:
            One result per example, in order.

        Raises:
            ValueError: the batch size is below 1.
            CheckpointError: not even one answer fits into the memory.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        batch_size = self._fitting(batch_size)
        results = Stream(self.reasoner, self.segmenter, self._asked(), examples, batch_size)
        yield from costs.measured(results, self.segmenter.device)

    @property
    def takes_words(self) -> bool:
        """Return whether the segmenter is SAM 3 by words, without boxes and points."""
        return isinstance(self.segmenter, Words)

    def _asked(self) -> Questions:
        return self._questions(self.segmenter, self.dialect, self.options)

    def _saveable(self) -> checkpoints.Checkpoint:
        """Return the checkpoint of a model that can be saved.

        Raises:
            CheckpointError: as `save_pretrained`.
        """
        if self.checkpoint and self.checkpoint.takes_words:
            raise CheckpointError(
                f"{self.checkpoint.name} is SAM 3 as Transformers saves it, and nothing here changes it: copy "
                f"{self.checkpoint.reasoner}"
            )
        if self.checkpoint and self.checkpoint.agent:
            raise CheckpointError("an agent is two checkpoints, which cannot be saved as one: save the reasoner's")
        if not isinstance(self.reasoner, InProcess):
            name = self.checkpoint.served if self.checkpoint else None
            raise CheckpointError(
                f"the weights of {name or 'the reasoner'} are not in this process and cannot be saved: load the "
                "checkpoint without a server, GenSegR1.from_pretrained(name)"
            )
        if self.checkpoint is None:
            raise CheckpointError(
                "this model was made of parts, so the files of its segmenter are unknown: give GenSegR1 a checkpoint="
            )
        return self.checkpoint

    def _fitting(self, batch_size: int) -> int:
        """Return how many answers at once fit into memory, at most the given number.

        Raises:
            CheckpointError: not even one answer fits.
        """
        if not (self.needed and self.checkpoint):
            return batch_size
        device = self.segmenter.device
        free = memory.free_bytes(device)
        fits = memory.fitting_batch(self.needed, free)
        if fits < batch_size:
            self.release()
            free = memory.free_bytes(device)
            fits = memory.fitting_batch(self.needed, free)
        if fits < 1:
            answers = replace(self.needed, weights=0, segmenter=0)
            memory.check(self.checkpoint, answers, self.options, free, str(device))
        if fits < batch_size:
            _log.warning("%d answers at once instead of %d, because more do not fit into %s", fits, batch_size, device)
        return min(fits, batch_size)


@contextlib.contextmanager
def _loading(label: str, part: Path, target) -> Iterator[None]:
    """Turn every error of loading a part of a checkpoint into a CheckpointError."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CheckpointError(
            f"{label} does not fit into the memory of {target}: take a smaller checkpoint or another device"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a stranger's files can raise errors of any type
        raise CheckpointError(f"{label} cannot be loaded from {part}: {error}") from error


def _check_options(given: ReasonerOptions, others: dict[str, Any], server: str | None) -> None:
    """Raise TypeError for options that do not go with, or without, a server."""
    known = set(inspect.signature(ServerReasoner).parameters) - {
        "base_url",
        "model",
        "max_new_tokens",
        "thinking_tokens",
    }
    unknown = sorted(set(others) - known)
    if unknown:
        raise TypeError(f"there is no option {unknown[0]!r}; see GenSegR1.from_pretrained")
    if server is None and others:
        raise TypeError(f"{', '.join(others)} belong to a server; give its address as server=")
    here = [name for name in OF_WEIGHTS if getattr(given, name)]
    if server is not None and here:
        raise TypeError(f"{', '.join(here)} belong to a reasoner in this process; give them to the server instead")


def pick_device(name: str):
    """Return the torch.device of a name; "auto" is the best device of this machine.

    Raises:
        CheckpointError: there is no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"there is no device {name!r}; choose auto, cpu, cuda, cuda:0 or mps") from error
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise CheckpointError(f"this machine has no {device.type} device; choose auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"there is no {name}; this machine has {torch.cuda.device_count()} CUDA devices")
    return device
