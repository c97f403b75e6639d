"""The agent's calls: requests to the reasoner, and the tools that it asks for.

The tools come from the public SAM 3 agent (github.com/facebookresearch/sam3, sam3/agent). The words are this project's
own, and each request stands alone: the steps so far are in it as text, because a reasoner sees one picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genseg_hub.dialects._prompting import as_data, chat
from genseg_hub.dialects._thought import split_thought

SEGMENT, EXAMINE, SELECT, NONE = "segment_phrase", "examine_each_mask", "select_masks_and_return", "report_no_mask"
_MOST_OPENINGS = 50  # of braces in an answer at which a call is looked for
_PHRASE_CHARACTERS = 200
_INSTRUCTIONS = f"""\
You find what an expression refers to in a picture. A segmentation model, which understands only short noun phrases, \
makes masks for you. Answer with your reasons, and then with exactly one call, as one JSON object:

{{"tool": "{SEGMENT}", "phrase": "..."}} makes masks of everything that a simple noun phrase names, such as "red cup". \
Name the thing itself, and no other things that only help to find it. Words for a place or a relation rarely help.
{{"tool": "{EXAMINE}"}} shows you each mask by itself, larger, and keeps the masks that you accept. Use it when masks \
are small, close together or hard to tell apart.
{{"tool": "{SELECT}", "masks": [1, 3]}} ends the search: these masks, by their numbers in the picture, are the answer.
{{"tool": "{NONE}"}} ends the search: nothing in the picture fits the expression.

Look at the whole picture before you choose. The expression can mean one thing, several or none. If no mask fits, try \
another phrase, more general or with other words. Never repeat a phrase."""
_EXAMINING = """\
You judge one mask. The picture has three parts: the whole picture with the mask marked, then the place of the mask \
enlarged, without and with the mask. Say whether the mask covers a whole thing that the expression refers to, and not \
a part, a neighbour, or a thing that only helps to find it. Answer with your reasons, and then with one JSON object: \
{"verdict": "accept"} or {"verdict": "reject"}."""


@dataclass(frozen=True)
class Call:
    """A call that can be carried out.

    Attributes:
        tool: SEGMENT, EXAMINE, SELECT or NONE.
        phrase: phrase of SEGMENT.
        masks: numbers of SELECT, ascending, each once, each among the masks of the picture.
    """

    tool: str
    phrase: str = ""
    masks: tuple[int, ...] = ()


class CallError(ValueError):
    """An answer holds no call that can be carried out.

    The message tells the reasoner why.
    """


def request(expression: str, phrase: str, masks: int, tried: Mapping[str, int], fault: str, left: int) -> list[dict]:
    """Return the chat that asks for the next call.

    Args:
        expression: expression of the user.
        phrase: phrase whose masks the picture shows; "" for the picture without masks.
        masks: their number.
        tried: phrase -> number of its masks.
        fault: why the last answer could not be used; "" if it could.
        left: number of remaining calls, this call included.
    """
    lines = [f"Expression: {as_data(expression)}"]
    if phrase:
        lines.append(
            f'The picture shows the image on the left, and the same image with {_counted(masks)} of "{phrase}", '
            "numbered, on the right."
        )
    else:
        lines.append(f"There are no masks yet: call {SEGMENT} or {NONE}.")
    if tried:
        said = ", ".join(f'"{name}" ({_counted(count)})' for name, count in tried.items())
        lines.append(f"Phrases so far: {said}.")
    if fault:
        lines.append(f"Your last answer could not be used: {fault}.")
    lines.append(f"Calls left: {left}." if left > 1 else f"This is the last call: {SELECT} or {NONE}.")
    return chat(_INSTRUCTIONS, "\n".join(lines))


def examination(expression: str) -> list[dict]:
    """Return the chat that asks for a verdict on one mask."""
    return chat(_EXAMINING, f"Expression: {as_data(expression)}")


def read(text: str, masks: int, tried: Mapping[str, int]) -> Call:
    """Return the first call of an answer.

    Args:
        text: the answer, which may hold anything.
        masks: number of masks in the picture.
        tried: phrases that were used.

    Raises:
        CallError: there is no call, or it cannot be carried out.
    """
    for found in _objects(text):
        named = found.get("tool") or found.get("name")
        if named not in (SEGMENT, EXAMINE, SELECT, NONE):
            continue
        inner = next((found[key] for key in ("parameters", "arguments") if isinstance(found.get(key), dict)), found)
        return _checked(str(named), inner, masks, tried)
    raise CallError(f"it has no JSON object with one of the tools {SEGMENT}, {EXAMINE}, {SELECT} and {NONE}")


def accepts(text: str) -> bool | None:
    """Return the verdict on a mask; None if the answer has none."""
    for found in _objects(text):
        said = str(found.get("verdict", "")).strip().lower()
        if said in ("accept", "reject"):
            return said == "accept"
    return None


def _checked(tool: str, given: Mapping[str, Any], masks: int, tried: Mapping[str, int]) -> Call:
    if tool == NONE:
        return Call(NONE)
    if tool == SEGMENT:
        said = given.get("phrase") or given.get("text_prompt")
        if not isinstance(said, str) or not said.strip():
            raise CallError(f'{SEGMENT} needs a "phrase"')
        try:
            phrase = as_data(said[: 2 * _PHRASE_CHARACTERS])
        except ValueError as error:
            raise CallError(str(error)) from error
        if len(phrase) > _PHRASE_CHARACTERS:
            raise CallError(f"a phrase may have {_PHRASE_CHARACTERS} characters; take a short noun phrase")
        if phrase.lower() in (name.lower() for name in tried):
            raise CallError(f'the phrase "{phrase}" was used already')
        return Call(SEGMENT, phrase)
    if not masks:
        raise CallError(f"there are no masks yet for {tool}")
    if tool == EXAMINE:
        return Call(EXAMINE)
    numbers = given.get("masks", given.get("final_answer_masks"))
    if not isinstance(numbers, list):
        raise CallError(f'{SELECT} needs "masks", a list of numbers')
    whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
    wrong = len(whole) < len(numbers) or any(not 1 <= number <= masks for number in whole)
    if wrong or not whole:
        raise CallError(f"the numbers of {SELECT} must be of masks in the picture, 1 to {masks}")
    return Call(SELECT, masks=tuple(sorted(set(whole))))


def _counted(masks: int) -> str:
    return f"{masks or 'no'} mask{'' if masks == 1 else 's'}"


def _objects(text: str) -> Sequence[dict[str, Any]]:
    """Return the JSON objects after the thought of a text, the outer ones, in order."""
    thought = split_thought(text)
    answer, decoder, found, place = thought.answer, json.JSONDecoder(), list[dict[str, Any]](), 0
    for _ in range(_MOST_OPENINGS):
        place = answer.find("{", place)
        if place < 0:
            break
        try:
            value, place = decoder.raw_decode(answer, place)
            found.append(value)
        except (ValueError, RecursionError):
            place += 1
    return found
