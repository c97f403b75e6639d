"""Answer one question in steps: the text so far, the parsed answer, the masks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from genseg_hub.answers import MAX_CHARACTERS, MAX_REASONING_CHARACTERS, storable
from genseg_hub.dialects._thought import split_thought
from genseg_hub.questions import Questions
from genseg_hub.reasoners.base import Reasoner
from genseg_hub.reasoners.prefixes import is_memory_error
from genseg_hub.schema import ImageLike, Progress
from genseg_hub.segmenters.base import Segmenter


def ask(
    reasoner: Reasoner, segmenter: Segmenter, questions: Questions, image: ImageLike, expression: str
) -> Generator[Progress, None, None]:
    """Yield the states of one question; see `GenSegR1.ask`.

    Args:
        reasoner: answers the prompt.
        segmenter: makes the masks.
        questions: questions of the same checkpoint.
        image: as `GenSegR1.ask` takes it.
        expression: the natural-language query.
    """
    picture = questions.open(image)
    prompt = questions.prompt(picture, expression)
    yield Progress("")
    answer = None
    with closing(reasoner.stream(prompt)) as states:
        for state in states:
            if isinstance(state, str):
                thought = split_thought(state).reasoning
                yield Progress(storable(state, MAX_CHARACTERS), storable(thought, MAX_REASONING_CHARACTERS))
            else:
                answer = state
    assert answer is not None
    response = questions.read(picture, answer)
    yield Progress(response.text, response.reasoning, response)
    try:
        predictions = questions.segment(picture, [response])
    except Exception as error:
        if not is_memory_error(error):
            raise
        reasoner.release()
        segmenter.release()
        predictions = questions.segment(picture, [response])
    (prediction,) = predictions
    yield Progress(response.text, response.reasoning, response, prediction)
