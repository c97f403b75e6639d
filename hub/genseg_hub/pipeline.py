"""GenSegR1: from an image and an expression to a mask.

It joins the three parts of a checkpoint: dialect, reasoner and segmenter. It knows none of their insides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from genseg_hub import checkpoints, dialects
from genseg_hub.errors import CheckpointError
from genseg_hub.reasoners.base import Reasoner
from genseg_hub.reasoners.loading import connect, load_reasoner
from genseg_hub.schema import Failure, ImageLike, Prediction, ReferringExample
from genseg_hub.segmenters.base import Segmenter
from genseg_hub.segmenters.loading import load_segmenter
from genseg_hub.streaming import Stream


class GenSegR1:
    """Referring segmentation: reason, then segment.

    Args:
        reasoner: answers chats about images.
        segmenter: turns instance prompts into masks.
        dialect: writes the chats and reads the answers.
        checkpoint: the origin of the three; store its `pinned` name with every result.

    Example:
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
    ):
        self.reasoner, self.segmenter, self.dialect, self.checkpoint = reasoner, segmenter, dialect, checkpoint

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        device: str = "auto",
        revision: str | None = None,
        server: str | None = None,
        segmenter: str | None = None,
        **server_options: Any,
    ) -> GenSegR1:
        """Load a checkpoint.

        Args:
            name: "nano", a Hub id (also owner/name@revision), or a local folder. A Hub id or folder without
                `genseg.json` counts as an untuned Qwen3-VL with facebook/sam2.1-hiera-large.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best device. Weights are bfloat16 on a GPU and
                float32 on a CPU.
            revision: branch, tag or commit of a Hub id.
            server: address of an OpenAI-compatible server that has the reasoner, such as "http://localhost:8000/v1".
                The reasoner's weights are then not downloaded, and `device` is the segmenter's device. See
                `reasoners.loading.connect`.
            segmenter: replaces the checkpoint's own: "nano", a Hub id such as facebook/sam2.1-hiera-tiny, or a local
                folder. from_pretrained("nano+./sam") is from_pretrained("nano", segmenter="./sam").
            server_options: of `ServerReasoner`: api_key, concurrency, timeout, max_retries, media_folder, and `model`
                if the server has another name for the checkpoint.

        Raises:
            CheckpointError: the name, the network, the rights, the disk, the memory or the device does not allow it.
            ReasonerError: the server does not allow it.
            TypeError: there are server options, but no server.
        """
        import torch

        target = _device(device)
        if server is None and server_options:
            raise TypeError(f"{', '.join(server_options)} belong to a server; give its address as server=")
        checkpoint = checkpoints.pull(name, revision, with_reasoner=server is None, segmenter=segmenter)
        dialect = dialects.get_dialect(checkpoint.dialect)
        part = checkpoint.reasoner
        reasoner: Reasoner | None = None
        if server is not None:
            reasoner, checkpoint = connect(checkpoint, server, **server_options)
        try:
            reasoner = reasoner or load_reasoner(checkpoint, dialect, target)
            part = checkpoint.segmenter
            masks = load_segmenter(part, checkpoint.segmenter_config, target)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise CheckpointError(
                f"{name} does not fit into the memory of {target}: take a smaller checkpoint or another device"
            ) from error
        except Exception as error:  # a stranger's files can raise errors of any type
            raise CheckpointError(f"{name} cannot be loaded from {part}: {error}") from error
        return cls(reasoner, masks, dialect, checkpoint)

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

    def segment_many(self, examples: Iterable[ReferringExample], batch_size: int = 8) -> Iterator[Prediction | Failure]:
        """Segment a stream of examples.

        The segmenter works on one image while the reasoner answers about the next images. Neighbours with the same
        image share its decoding, its embedding and the image's part of the reasoner's prompt. A bad example becomes a
        Failure, and the stream goes on.

        Args:
            examples: read lazily, `streaming.READ_AHEAD` batches ahead.
            batch_size: expressions that the reasoner answers at once.

        Yields:
            One result per example, in order.

        Raises:
            ValueError: the batch size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        yield from Stream(self.reasoner, self.segmenter, self.dialect, examples, batch_size)


def _device(name: str):
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
    return device
