"""One question about an image: its prompt, its answer, and the masks of the answer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from PIL import Image

from genseg_hub import answers
from genseg_hub.dialects import Dialect
from genseg_hub.errors import SegmenterError
from genseg_hub.images import content_key, shown_size
from genseg_hub.options import MAX_IMAGE_TOKENS, ReasonerOptions
from genseg_hub.reasoners.base import Generation, Prompt
from genseg_hub.schema import Prediction, Response
from genseg_hub.segmenters.base import Segmenter

_LEAST_TOKENS = 4  # of an image; Qwen2.5-VL's processor shows no image with fewer


class Questions:
    """Prompts and predictions of one checkpoint.

    Args:
        segmenter, dialect: the parts of the checkpoint.
        options: `min_pixels` and `max_pixels` of the image that the reasoner sees.
    """

    def __init__(self, segmenter: Segmenter, dialect: Dialect, options: ReasonerOptions):
        self._segmenter, self._dialect, self._options = segmenter, dialect, options
        self._name = dialect.__name__.rpartition(".")[2]

    def prompt(self, image: Image.Image, expression: str, neighbour: Prompt | None = None) -> Prompt:
        """Return the prompt of an expression.

        Args:
            image: the whole image.
            expression: the natural-language query.
            neighbour: an earlier prompt about the same image.

        Raises:
            ValueError, TypeError: the expression cannot be used.
        """
        chat = self._dialect.messages(image.size, expression)
        if neighbour:
            return Prompt(neighbour.image, chat, neighbour.image_key)
        return Prompt(self._shown(image), chat, self.key(image))

    def read(self, image: Image.Image, prompt: Prompt, answer: Generation) -> Response:
        """Return the parsed answer to a prompt about an image."""
        shown = answer.shown_size or prompt.image.size
        return answers.read(self._dialect, answer.text, image.size, answer.truncated, shown)

    def segment(self, image: Image.Image, prompt: Prompt, responses: Sequence[Response]) -> list[Prediction]:
        """Turn responses about one image into predictions, all in one batch.

        Args:
            image: the whole image.
            prompt: of one of the responses.
            responses: the parsed answers.

        Raises:
            SegmenterError: the segmenter's numbers cannot be used.
        """
        instances = [instance for response in responses for instance in response.instances]
        masks, scores = (
            self._segmenter.segment(np.array(image), instances, prompt.image_key, self._dialect.MULTIMASK)
            if instances
            else ([], [])
        )
        if not all(map(math.isfinite, scores)):
            raise SegmenterError("the segmenter predicts an IoU that is no number; try another dtype or device")
        start, predictions = 0, []
        for response in responses:
            its = slice(start, start := start + len(response.instances))
            predictions.append(Prediction(response, tuple(masks[its]), tuple(scores[its]), image.size, self._name))
        return predictions

    def key(self, image: Image.Image) -> Hashable:
        """Return a key that only this image has, shown in this way."""
        return content_key(image), self._name, self._options.min_pixels, self._options.max_pixels

    def _shown(self, image: Image.Image) -> Image.Image:
        """Return an image as the reasoner is to see it.

        An image within the limits is left to the processor, unless the answer's coordinates are pixels of the resized
        image: then it has a size that every processor, also one on a server, leaves as it is.
        """
        if self._dialect.IMAGE_SIZE:
            return image.resize(self._dialect.IMAGE_SIZE, Image.Resampling.BILINEAR)
        side = self._dialect.TOKEN_SIDE
        least = self._options.min_pixels or 0
        most = self._options.max_pixels or max(least, MAX_IMAGE_TOKENS * side * side)
        if least <= image.width * image.height <= most and not self._dialect.PIXELS:
            return image
        size = shown_size(image.size, side, least or min(_LEAST_TOKENS * side * side, most), most)
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
