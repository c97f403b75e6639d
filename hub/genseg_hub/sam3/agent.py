"""SAM 3 agent: a reasoner asks SAM 3 for phrases and selects numbered masks.

The agent follows the public one (github.com/facebookresearch/sam3, sam3/agent): there are four tools, and masks that
overlap a better one are left out. The reasoner may examine each mask by itself, and only the last masks can be
selected. `Agent` stands in the reasoner's place and `AgentQuestions` in the place of a dialect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from genseg_hub import answers
from genseg_hub.questions import Picture, PicturePrompt, Questions
from genseg_hub.reasoners.base import Generation, Prompt, Reasoner, Session
from genseg_hub.sam3 import calls, pictures
from genseg_hub.sam3.by_words import WordQuestions, prediction
from genseg_hub.schema import Prediction, Response, ResponseError, Rle, decode_mask, encode_mask
from genseg_hub.segmenters.words import Found

ROUNDS = 10  # calls of one expression
_MOST_EXAMINED = 20  # masks that one call examines, an answer each
_OVERLAP = 0.3  # of the smaller of two masks, above which the one with the lower score is left out


@dataclass(frozen=True)
class Ended(Generation):
    """The end of a dialogue.

    Attributes:
        reasoning: all steps, in words.
        found: the selected masks, as RLE; None if the dialogue ended without a selection and without a report.
    """

    reasoning: str = ""
    found: tuple[tuple[tuple[float, float, float, float], Rle, float], ...] | None = None


class Dialogue:
    """The rounds of one expression about one image.

    Args:
        expression: expression of the user.
        find: takes a phrase and returns what SAM 3 finds.
        shown: the image as the reasoner sees it; called anew for each picture.
        fit: reduces a picture to what the reasoner may be shown.
        image_key: key of the image without masks.
    """

    def __init__(
        self,
        expression: str,
        find: Callable[[str], Found],
        shown: Callable[[], Image.Image],
        fit: Callable[[Image.Image], Image.Image],
        image_key: object,
    ):
        self._expression, self._find, self._shown, self._fit, self._image_key = expression, find, shown, fit, image_key
        self._tried: dict[str, int] = {}
        self._phrase, self._masks = "", list[tuple[tuple[float, float, float, float], Rle, float]]()
        self._examined: list[bool] | None = None  # verdicts so far; None while no mask is examined
        self._fault, self._round = "", 1
        self._steps: list[str] = []
        self._texts: list[str] = []
        self._tokens: int | None = 0

    @property
    def transcript(self) -> str:
        """Return the steps so far, in words."""
        return "\n".join(self._steps)

    def prompt(self) -> Prompt:
        """Return what to ask the reasoner next."""
        if self._examined is not None:
            mask = self._small([self._masks[len(self._examined)]])[0]
            picture = pictures.enlarged(self._shown(), mask)
            return Prompt(self._fit(picture), calls.examination(self._expression))
        left = ROUNDS - self._round + 1
        chat = calls.request(self._expression, self._phrase, len(self._masks), self._tried, self._fault, left)
        if not self._masks:
            return Prompt(self._shown(), chat, self._image_key)
        return Prompt(self._fit(pictures.numbered(self._shown(), self._small(self._masks))), chat)

    def hear(self, answer: Generation) -> Ended | None:
        """Take the reasoner's answer to `prompt`; return the dialogue's end, or None.

        Raises:
            SegmenterError, ImageError: SAM 3 cannot be asked.
        """
        self._texts.append(answer.text)
        self._tokens = None if None in (self._tokens, answer.tokens) else self._tokens + answer.tokens  # type: ignore[operator]
        if self._examined is not None:
            self._judge(answer.text)
            return None
        self._steps.append(f"Round {self._round}: {answer.text.strip()}")
        self._fault = ""
        try:
            call = calls.read(answer.text, len(self._masks), self._tried)
        except calls.CallError as fault:
            return self._refuse("it was cut at the token limit" if answer.truncated else str(fault))
        if call.tool == calls.SELECT:
            return self._ended(tuple(self._masks[number - 1] for number in call.masks))
        if call.tool == calls.NONE:
            return self._ended(())
        if call.tool == calls.SEGMENT:
            self._segment(call.phrase)
            return self._next()
        if len(self._masks) > _MOST_EXAMINED:
            return self._refuse(f"at most {_MOST_EXAMINED} masks can be examined; select, or take a narrower phrase")
        if self._round == ROUNDS:
            return self._refuse("no call is left after an examination")
        self._examined = []
        return None

    def _refuse(self, fault: str) -> Ended | None:
        self._fault = fault
        self._steps.append(f"The answer could not be used: {fault}.")
        return self._next()

    def _next(self) -> Ended | None:
        self._round += 1
        return None if self._round <= ROUNDS else self._ended(None)

    def _ended(self, found: tuple | None) -> Ended:
        if found is None:
            self._steps.append(f"The search ended after {ROUNDS} rounds without a selection.")
        return Ended("\n".join(self._texts), False, None, self._tokens, self.transcript, found)

    def _segment(self, phrase: str) -> None:
        found = _without_overlaps(self._find(phrase))
        self._tried[phrase] = len(found)
        self._masks, self._phrase = found, phrase if found else ""
        self._steps.append(f'SAM 3 finds {len(found) or "no"} mask{"" if len(found) == 1 else "s"} for "{phrase}".')

    def _judge(self, text: str) -> None:
        assert self._examined is not None
        verdict = calls.accepts(text)
        self._examined.append(verdict is not False)
        word = {True: "accepted", False: "rejected", None: "kept, because there is no verdict"}[verdict]
        self._steps.append(f"Mask {len(self._examined)} is {word}: {text.strip()}")
        if len(self._examined) < len(self._masks):
            return
        self._masks = [mask for mask, kept in zip(self._masks, self._examined, strict=True) if kept]
        self._tried[self._phrase] = len(self._masks)
        self._steps.append(f"{len(self._masks)} of {len(self._examined)} masks are kept.")
        self._phrase = self._phrase if self._masks else ""
        self._examined = None
        self._round += 1  # to ROUNDS at most, because the last round examines nothing

    def _small(self, masks: Sequence[tuple]) -> list[np.ndarray]:
        """Return masks at the size at which the reasoner is shown the image."""
        width, height = self._shown().size
        whole = [Image.fromarray(decode_mask(rle)) for _, rle, _ in masks]
        return [np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)) for mask in whole]


def _without_overlaps(found: Found) -> list[tuple[tuple[float, float, float, float], Rle, float]]:
    """Return the masks by falling score; a better mask removes overlapped ones."""
    kept: list[int] = []
    areas = [int(mask.sum()) for mask in found.masks]
    for i in sorted(range(len(areas)), key=lambda i: -found.scores[i]):
        overlaps = ((found.masks[i] & found.masks[j]).sum() / min(areas[i], areas[j]) for j in kept)
        if all(overlap <= _OVERLAP for overlap in overlaps):
            kept.append(i)
    return [(found.boxes[i], encode_mask(found.masks[i]), found.scores[i]) for i in kept]


class _AgentPrompt(PicturePrompt):
    """A prompt that opens a dialogue."""

    dialogue: Dialogue

    def __init__(self, picture: Picture, dialogue: Dialogue):
        super().__init__(picture, [])
        object.__setattr__(self, "dialogue", dialogue)


class Agent:
    """A reasoner whose every prompt is a dialogue of another reasoner with SAM 3.

    Args:
        reasoner: answers the single requests.
    """

    def __init__(self, reasoner: Reasoner):
        self._reasoner = reasoner
        self.takes_cores = reasoner.takes_cores
        self.choice = getattr(reasoner, "choice", None)  # of a server

    def session(self, batch_size: int) -> _Dialogues:
        """See `Reasoner.session`."""
        return _Dialogues(self._reasoner.session(batch_size), batch_size)

    def stream(self, prompt: Prompt) -> Generator[str | Generation, None, None]:
        """See `Reasoner.stream`."""
        assert isinstance(prompt, _AgentPrompt)
        dialogue, ended = prompt.dialogue, None
        while ended is None:
            answer, before = None, dialogue.transcript
            with closing(self._reasoner.stream(dialogue.prompt())) as states:
                for state in states:
                    if isinstance(state, str):
                        yield f"{before}\n{state}".lstrip()
                    else:
                        answer = state
            assert answer is not None
            ended = dialogue.hear(answer)
            yield dialogue.transcript
        yield ended

    def release(self) -> None:
        """See `Reasoner.release`."""
        self._reasoner.release()


class _Dialogues:
    """Dialogues that go on at once.

    Each request goes to the reasoner's session as soon as the session has room.
    """

    def __init__(self, session: Session, batch_size: int):
        self._session, self._batch_size = session, batch_size
        self._waiting: deque[_AgentPrompt] = deque()
        self._asked: dict[Prompt, _AgentPrompt] = {}

    def room(self) -> int:
        return max(0, self._batch_size - len(self._waiting) - len(self._asked))

    def ask(self, prompts: Sequence[Prompt]) -> None:
        self._waiting += prompts  # type: ignore[arg-type]

    def advance(self) -> list[tuple[Prompt, Generation | Exception]]:
        done: list[tuple[Prompt, Generation | Exception]] = []
        while self._waiting and (room := self._session.room()) > 0:
            opened = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            asked: dict[Prompt, _AgentPrompt] = {}
            for prompt in opened:
                try:
                    asked[prompt.dialogue.prompt()] = prompt
                except Exception as error:  # noqa: BLE001  becomes the answer of its prompt
                    done.append((prompt, error))
            if asked:
                self._session.ask(list(asked))
                self._asked |= asked
        for request, answer in self._session.advance() if self._asked else ():
            prompt = self._asked.pop(request)
            try:
                ended = answer if isinstance(answer, Exception) else prompt.dialogue.hear(answer)
            except Exception as error:  # noqa: BLE001  becomes the answer of its prompt
                ended = error
            if ended is None:
                self._waiting.append(prompt)
            else:
                done.append((prompt, ended))
        return done


@dataclass(frozen=True)
class _Selected(Response):
    """A response that brings its masks."""

    found: Found = field(default_factory=lambda: Found((), (), ()))


class AgentQuestions(WordQuestions):
    """Questions that open a dialogue, and take its selection as the masks."""

    def prompt(self, picture: Picture, expression: str) -> Prompt:
        """See `Questions.prompt`."""
        (message,) = super().prompt(picture, expression).chat  # checks the expression

        def find(phrase: str) -> Found:
            return self.words.find(np.array(picture.segmented()), [phrase], picture.key, picture.size)[0]

        def fit(image: Image.Image) -> Image.Image:
            return self.shown(image, image.size)

        return _AgentPrompt(picture, Dialogue(message["content"], find, picture.shown, fit, picture.key))

    def read(self, picture: Picture, answer: Generation) -> Response:
        """Return the response with the selected masks; its reasoning has every step."""
        assert isinstance(answer, Ended)
        text, text_cut = answers.bounded(answer.text, answers.MAX_CHARACTERS)
        reasoning, cut = answers.bounded(answer.reasoning, answers.MAX_REASONING_CHARACTERS)
        error = ResponseError.TOO_MANY_ROUNDS if answer.found is None else None
        boxes, rles, scores = zip(*answer.found, strict=True) if answer.found else ((), (), ())
        found = Found(boxes, tuple(map(decode_mask, rles)), scores)
        return _Selected(text, reasoning, error=error, cut=text_cut or cut, tokens=answer.tokens, found=found)

    def segment(self, picture: Picture, responses: Sequence[Response]) -> list[Prediction]:
        """Return the selections as predictions.

        See `Words` for instances that a person has changed.
        """
        if not all(isinstance(response, _Selected) for response in responses):
            return super().segment(picture, responses)
        return [
            prediction(_plain(response), response.found, picture.size)  # type: ignore[attr-defined]
            for response in responses
        ]

    def shown(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """See `Questions.shown`."""
        return Questions.shown(self, image, size)


def _plain(response: Response) -> Response:
    return Response(response.text, response.reasoning, error=response.error, cut=response.cut, tokens=response.tokens)
