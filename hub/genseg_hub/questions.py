"""One question about an image: its prompt, its answer, and its masks.

An image of more than `WHOLE_PIXELS` is read once and reduced to the sizes that the two models take. A smaller image is
given to the models as it is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from genseg_hub import answers
from genseg_hub.dialects import Dialect
from genseg_hub.errors import ImageError, SegmenterError
from genseg_hub.images import bytes_of, content_key, image_size, load_image, shown_size
from genseg_hub.options import MAX_IMAGE_TOKENS, ReasonerOptions
from genseg_hub.reasoners.base import Generation, Prompt
from genseg_hub.schema import ImageLike, Prediction, Response
from genseg_hub.segmenters.base import Segmenter

# The most that a reasoner with tokens of 32 x 32 pixels is shown.
WHOLE_PIXELS = MAX_IMAGE_TOKENS * 32 * 32
_LEAST_TOKENS = 4  # of an image; Qwen2.5-VL's processor shows no image with fewer


class Picture:
    """An image as the two models take it, read through `Questions.open`.

    Its pixels may be dropped at any time. They are read again when a model asks for them.

    Args:
        source: the image.
        questions: questions of the checkpoint.

    Attributes:
        size: (width, height) of the original image in pixels.
        shown_size: (width, height) in pixels of the image that the reasoner is shown.
        key: a value that only this image has, shown in this way.
        is_file: whether the pixels can be dropped and read again.
    """

    def __init__(self, source: ImageLike, questions: Questions):
        self._source, self._questions = source, questions
        self.is_file = isinstance(source, str | Path)
        if isinstance(source, str | Path | bytes):
            self.size = image_size(source)
            pixels = questions.load(source, self.size)
        else:
            pixels = load_image(source)
            self.size = pixels.size
        self._shown: Image.Image | None = questions.shown(pixels, self.size)
        self._segmented: Image.Image | None = questions.segmented(pixels, self.size)
        self.shown_size = self._shown.size
        self.key: tuple[Hashable, ...] = (content_key(pixels), self.size, *questions.ways)

    @property
    def bytes(self) -> int:
        """Return the bytes of the pixels that are kept now."""
        return sum({id(image): bytes_of(image) for image in (self._shown, self._segmented) if image}.values())

    def shown(self) -> Image.Image:
        """Return the image that the reasoner is shown.

        Raises:
            ImageError: the pixels were dropped, and the file cannot be read again.
        """
        shown = self._shown
        return self._questions.shown(self._again(), self.size) if shown is None else shown

    def segmented(self) -> Image.Image:
        """Return the image for the segmenter, whole or reduced; see `shown`."""
        segmented = self._segmented
        return self._questions.segmented(self._again(), self.size) if segmented is None else segmented

    def drop_shown(self) -> None:
        """Drop the pixels that only the reasoner needs.

        Pixels stay if no file can be read again, or if the segmenter takes the same pixels.
        """
        if self.is_file and self._shown is not self._segmented:
            self._shown = None

    def drop(self) -> None:
        """Drop the pixels, if there is a file to read again.

        Pixels in memory stay, because they may change meanwhile.
        """
        if self.is_file:
            self._shown = self._segmented = None

    def _again(self) -> Image.Image:
        assert isinstance(self._source, str | Path)  # others keep their pixels
        same_size = image_size(self._source) == self.size
        pixels = self._questions.load(self._source, self.size) if same_size else None
        if pixels is None or content_key(pixels) != self.key[0]:
            raise ImageError(f"{self._source!s:.200} has changed while it was asked about; ask again")
        return pixels


class PicturePrompt(Prompt):
    """A prompt whose image is read again if its picture has dropped it."""

    picture: Picture

    def __init__(self, picture: Picture, chat: list[dict]):
        object.__setattr__(self, "picture", picture)
        object.__setattr__(self, "chat", chat)
        object.__setattr__(self, "image_key", picture.key)

    @property
    def image(self) -> Image.Image:  # type: ignore[override]
        """Return the image that the reasoner is shown."""
        return self.picture.shown()


class Questions:
    """Prompts and predictions of one checkpoint.

    Args:
        segmenter, dialect: the parts of the checkpoint.
        options: `min_pixels` and `max_pixels` of the image that the reasoner sees.

    Attributes:
        ways: settings that decide how an image is shown.
    """

    def __init__(self, segmenter: Segmenter, dialect: Dialect, options: ReasonerOptions):
        self._segmenter, self._dialect, self._options = segmenter, dialect, options
        self._name = dialect.__name__.rpartition(".")[2]
        self.ways: tuple[Hashable, ...] = (self._name, options.min_pixels, options.max_pixels)

    def open(self, image: ImageLike) -> Picture:
        """Read an image for the two models.

        Args:
            image: as `load_image` takes it.

        Raises:
            ImageError: the image cannot be used.
        """
        return Picture(image, self)

    def prompt(self, picture: Picture, expression: str) -> Prompt:
        """Return the prompt of an expression.

        Args:
            picture: picture of the image.
            expression: the natural-language query.

        Raises:
            ValueError, TypeError: the expression cannot be used.
        """
        return PicturePrompt(picture, self._dialect.messages(picture.size, expression))

    def read(self, picture: Picture, answer: Generation) -> Response:
        """Return the parsed answer to a prompt about an image."""
        shown = answer.shown_size or picture.shown_size
        response = answers.read(self._dialect, answer.text, picture.size, answer.truncated, shown)
        return replace(response, tokens=answer.tokens)

    def segment(self, picture: Picture, responses: Sequence[Response]) -> list[Prediction]:
        """Turn responses about one image into predictions, all in one batch.

        Args:
            picture: picture of the image.
            responses: the parsed answers.

        Raises:
            ImageError: the image was dropped, and cannot be read again.
            SegmenterError: the segmenter's numbers cannot be used.
        """
        instances = [instance for response in responses for instance in response.instances]
        masks, scores = (
            self._segmenter.segment(
                np.array(picture.segmented()), instances, picture.key, self._dialect.MULTIMASK, picture.size
            )
            if instances
            else ([], [])
        )
        if not all(map(math.isfinite, scores)):
            raise SegmenterError("the segmenter predicts an IoU that is no number; try another dtype or device")
        start, predictions = 0, []
        for response in responses:
            its = slice(start, start := start + len(response.instances))
            predictions.append(Prediction(response, tuple(masks[its]), tuple(scores[its]), picture.size, self._name))
        return predictions

    def load(self, image: ImageLike, size: tuple[int, int]) -> Image.Image:
        """Return the pixels of an image of a size.

        A large JPEG file may give fewer pixels, which are enough.

        Raises:
            ImageError: the image cannot be used.
        """
        if size[0] * size[1] <= WHOLE_PIXELS:
            return load_image(image)
        width, height = self._size_shown(size) or size
        return load_image(image, (max(width, self._segmenter.side), max(height, self._segmenter.side)))

    def shown(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return an image as the reasoner is to see it.

        Args:
            image: its pixels, see `load`.
            size: (width, height) of the original in pixels.
        """
        wanted = self._size_shown(size)
        if wanted is None:
            return image
        if self._dialect.IMAGE_SIZE:
            return image.resize(wanted, Image.Resampling.BILINEAR)
        return image.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=3.0)

    def segmented(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return an image for the segmenter.

        A large image is reduced to the side of the segmenter's input.

        Args:
            image: its pixels, see `load`.
            size: (width, height) of the original in pixels.
        """
        if size[0] * size[1] <= WHOLE_PIXELS:
            return image
        return image.resize((self._segmenter.side, self._segmenter.side), Image.Resampling.BILINEAR)

    def _size_shown(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Return the size that the reasoner sees; None for no resizing.

        An image within the limits is left to the processor, unless the answer's coordinates are pixels of the resized
        image: then it has a size that every processor, also one on a server, leaves as it is.
        """
        if self._dialect.IMAGE_SIZE:
            return self._dialect.IMAGE_SIZE
        side = self._dialect.TOKEN_SIDE
        least = self._options.min_pixels or 0
        most = self._options.max_pixels or max(least, MAX_IMAGE_TOKENS * side * side)
        if least <= size[0] * size[1] <= most and not self._dialect.PIXELS:
            return None
        return shown_size(size, side, least or min(_LEAST_TOKENS * side * side, most), most)
