"""SAM 3 by words: the expression itself goes to SAM 3, and no reasoner takes part.

`Verbatim` stands in the reasoner's place and `WordQuestions` in the place of a dialect. So streams of examples, the
App's questions and their limits of memory work as for every other checkpoint.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from genseg_hub.dialects._prompting import as_data
from genseg_hub.questions import Picture, PicturePrompt, Questions
from genseg_hub.reasoners.base import Generation, Prompt
from genseg_hub.reasoners.transformers import Batches
from genseg_hub.schema import InstancePrompt, Prediction, Response, ResponseError
from genseg_hub.segmenters.words import Found, Words


class Verbatim:
    """A reasoner that answers each prompt at once with its expression, without tokens."""

    takes_cores = False

    def session(self, batch_size: int) -> Batches:
        """See `Reasoner.session`."""
        return Batches(self, batch_size)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """See `Reasoner.stream`."""
        yield from self.generate([prompt])

    def generate(self, batch: Sequence[Prompt], /) -> list[Generation]:
        """See `Generates.generate`."""
        return [Generation(prompt.chat[-1]["content"], truncated=False, tokens=0) for prompt in batch]

    def release(self) -> None:
        """Do nothing: there is nothing to free."""


class WordQuestions(Questions):
    """Questions whose expression is the phrase that SAM 3 looks for."""

    def prompt(self, picture: Picture, expression: str) -> Prompt:
        """See `Questions.prompt`."""
        return PicturePrompt(picture, [{"role": "user", "content": as_data(expression)}])

    def read(self, picture: Picture, answer: Generation) -> Response:
        """Return a response with the phrase as its text.

        The response has no instances, because only `segment` finds them.
        """
        return Response(answer.text, tokens=answer.tokens)

    def segment(self, picture: Picture, responses: Sequence[Response]) -> list[Prediction]:
        """Return the instances that SAM 3 finds for the phrases.

        See `Words` for instances that a person has changed.

        Raises:
            ImageError, SegmenterError: as `Questions.segment`.
        """
        if any(response.instances for response in responses):
            return super().segment(picture, responses)
        found = self.words.find(
            np.array(picture.segmented()), [response.text for response in responses], picture.key, picture.size
        )
        return [
            prediction(replace(response, text=""), one, picture.size)
            for response, one in zip(responses, found, strict=True)
        ]

    @property
    def words(self) -> Words:
        """Return the segmenter, which takes words."""
        assert isinstance(self._segmenter, Words)
        return self._segmenter

    def shown(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the image as the segmenter takes it, because nothing else looks at it."""
        return self.segmented(image, size)


def prediction(response: Response, found: Found, size: tuple[int, int]) -> Prediction:
    """Return what SAM 3 has found as the prediction of an expression.

    Args:
        response: response without instances.
        found: an empty one is the no-target answer.
        size: (width, height) of the original image in pixels.
    """
    instances = tuple(InstancePrompt(box, ()) for box in found.boxes)
    error = ResponseError.TOO_MANY_INSTANCES if found.left_out else response.error
    return Prediction(replace(response, instances=instances, error=error), found.masks, found.scores, size)
