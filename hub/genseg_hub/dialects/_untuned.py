"""Parse the answers of untuned checkpoints, which follow requests loosely.

No function here raises. An answer counts as it is meant: JSON in fences or prose, bare lists, corners such as
`(x1,y1),(x2,y2)`, points alone, and words that say there is nothing. An answer that may mean something else is an
error, never a box. A box before a tool call, or before words that take it back, is a draft and does not count.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from genseg_hub.dialects import _loose_json, _parsing
from genseg_hub.dialects._findings import Finding, Found, Nothing, findings
from genseg_hub.dialects._thought import split_thought
from genseg_hub.dialects._words import says_nothing
from genseg_hub.schema import InstancePrompt, Response, ResponseError

_NUMBER = r"-?\d{1,9}(?:\.\d{1,9})?"
_COMMA = r"\s{0,9},\s{0,9}"
_CORNERS = re.compile(rf"\(\s{{0,9}}{_NUMBER}(?:{_COMMA}{_NUMBER}){{1,3}}\s{{0,9}}\)")
_LINK = re.compile(_COMMA)
_TOKEN = re.compile(r"<\|[a-z_]{1,40}\|>")
_FENCE = " \t\r\n`"
_TOOL_CALL = re.compile(r"<tool_call>((?:(?!</?tool_call>).)*)(?:</tool_call>)?", re.S)
_CALL_KEY = re.compile(r"[\"'](name|arguments|parameters)[\"']\s{0,9}:")
# Labels with their tags, and any other tag.
_LABELS = re.compile(r"<ref>[^<]{0,300}</ref>|<\|object_ref_start\|>[^<]{0,300}<\|object_ref_end\|>|<[^<>]{1,40}>")
# Words of correction count only where a sentence starts, because labels may contain them. "2." ends no sentence.
_SENTENCE = r"(?:\A|\n|(?<!\d)[.!?])[\s`*#\"')\]}>,;\u2014]{0,20}(?:(?:but|no|oh|so),? )?"
_WAIT = r"wait(?=\s?[^\w\s]| (?:i|no|that|this)\b)"
_RETRACTION = re.compile(_SENTENCE + _WAIT, re.I)
_CORRECTION = re.compile(
    rf"{_SENTENCE}(?:{_WAIT}|no(?:[,!]|\.(?!\s{{0,9}}(?:\d|\Z)))|correction\*{{0,2}}[:,.!]"
    r"|(?:hm+|actually|or rather|on second thought|(?:the )?final (?:answer|output|result))\b)",
    re.I,
)
_ANSWER = re.compile(r"\banswer\*{0,2}:", re.I)


@dataclass(frozen=True)
class Frame:
    """Coordinates of a family's answers.

    Attributes:
        scale: (x, y) coordinates of the lower right corner of the image.
        limits: largest x and y that are read as rounding. A larger number is a sign of another scale.
    """

    scale: tuple[float, float]
    limits: tuple[float, float]


THOUSANDTHS = Frame((1000, 1000), (1010, 1010))


def parse(text: str, image_size: tuple[int, int], truncated: bool, frame: Frame = THOUSANDTHS) -> Response:
    """Read an answer into a Response.

    Args:
        text: the generated answer.
        image_size: (width, height) of the original image in pixels.
        truncated: whether generation stopped at the token limit.
        frame: coordinates of the dialect.
    """
    reasoning, rest, unfinished = split_thought(text)
    if unfinished:
        return Response(text, reasoning, error=ResponseError.TRUNCATED_THOUGHT)
    if not rest.strip() and not truncated:
        rest = _json_at_the_end(reasoning)
    _, opened, tail = rest.rpartition("<answer>")
    answer, closing, after = tail.partition("</answer>") if opened else (_after_tool_calls(rest), "", "")
    open_ended = not closing and (truncated or bool(opened))
    reading = _loose_json.read(answer, open_ended)
    if draft := _end_of_draft(reading):
        answer = answer[draft:]
        reading = _loose_json.read(answer, open_ended)
    found = _in_json(reading, open_ended)
    corners, words_follow = _in_corners(answer) if not found else ([], reading.goes_on)
    if truncated and (after.strip() if closing else words_follow):
        return Response(text, reasoning, error=ResponseError.TRUNCATED)  # the box was a guess
    found = found or corners
    if not found and not reading.values and says_nothing(_TOKEN.sub("", answer)):
        found = [Nothing.IN_WORDS]
    instances, problem = _instances(found, image_size, frame)
    error = None
    if open_ended and (truncated or reading.unclosed or not found):
        error = ResponseError.TRUNCATED
    elif not found:
        garbled = not reading.values or any(value.lost for value in reading.values)
        error = ResponseError.INVALID_JSON if garbled else ResponseError.WRONG_SCHEMA
    error = error or problem
    repaired = not all(value.strict for value in reading.values)
    in_words = not instances and error is None and Nothing.EMPTY_LIST not in found
    return Response(text, reasoning, tuple(instances), error, repaired, in_words)


def parse_thousandths(
    text: str,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """Read an answer in 0-1000 of the image.

    This is the `parse` of most untuned dialects, see `Dialect.parse`.
    """
    return parse(text, image_size, truncated)


def _after_tool_calls(text: str) -> str:
    """Return the text after the last call of a tool.

    A model may also set its answer between the tags of a tool call.
    """
    blocks = [(set(_CALL_KEY.findall(block[1])), block.end()) for block in _TOOL_CALL.finditer(text)]
    return text[max((end for keys, end in blocks if "name" in keys and len(keys) > 1), default=0) :]


def _end_of_draft(reading: _loose_json.Reading) -> int:
    """Return the end of the last value that the words after it take back, 0 for none.

    Words after the last value of all count only if they cannot introduce it. Numbers in prose are no value.
    """
    places = [(value.start, value.end) for value in reading.values if _is_readable(findings(value.data))]
    last = places[-1][1] if places else 0
    if not any(findings(value.data) for value in reading.values if value.start >= last):  # JSON beats corners
        places += [(start, end) for numbers, start, end in _linked(reading.text, last) if len(numbers) == 4]
    if not places:
        return 0
    if _RETRACTION.search(_LABELS.sub("", reading.text[places[-1][1] :])):
        return places[-1][1]
    labelled = _ANSWER.search(reading.text[: places[0][0]]) is not None  # each box may be labelled so
    for (_, end), (start, _) in reversed(list(itertools.pairwise(places))):
        between = _LABELS.sub("", reading.text[end:start])
        if _CORRECTION.search(between) or (not labelled and _ANSWER.search(between)):
            return end
    return 0


def _is_readable(found: Sequence[Finding]) -> bool:
    return any(not isinstance(finding, ResponseError) for finding in found)


def _json_at_the_end(thought: str) -> str:
    """Return the JSON with which a thought ends, or "".

    Ollama sometimes puts the whole output into the thought (ollama issue 14716).
    """
    reading = _loose_json.read(thought, cut=False)
    last = reading.last_values()
    if not last or reading.unclosed or thought[last[-1].end :].strip(_FENCE):
        return ""
    return thought[last[0].start :]


def _in_json(reading: _loose_json.Reading, open_ended: bool) -> list[Finding]:
    """Return the findings of all values.

    Bare lists beside objects with boxes or points are only prose. If the last value is cut, the values before words are
    guesses. A closed value that lacks parts is garbled, so that none of its numbers is certain.
    """
    values = reading.last_values() if open_ended and reading.unclosed else reading.values
    each = [(value, findings(value.data)) for value in values]
    if any(isinstance(finding, Found) for value, found in each if not _is_bare(value) for finding in found):
        each = [(value, found) for value, found in each if not _is_bare(value)]
    all_found: list[Finding] = []
    for value, found in each:
        unclosed = reading.unclosed and value is reading.values[-1]
        if found and value.lost and not unclosed:
            return [ResponseError.INVALID_JSON]
        all_found += [*found, ResponseError.INVALID_JSON] if found and value.lost else found
    return all_found


def _is_bare(value: _loose_json.Value) -> bool:
    return isinstance(value.data, list) and not any(isinstance(item, _loose_json.Object) for item in value.data)


def _in_corners(text: str) -> tuple[list[Finding], bool]:
    """Return the boxes in the form of corners, and whether words follow them.

    The form is `(x1,y1),(x2,y2)` or `(x1,y1,x2,y2)`. Qwen2-VL sets them between `<|box_start|>` and `<|box_end|>`;
    decoding may remove the two tokens. More than two linked corners are a polygon, which is an error.
    """
    linked = _linked(text)
    many = [numbers for numbers, _, _ in linked if len(numbers) > 2]  # a single corner is only prose
    found: list[Finding] = [Found(numbers) if len(numbers) == 4 else ResponseError.WRONG_SCHEMA for numbers in many]
    return found, _loose_json.has_words(text[linked[-1][2] if linked else 0 :])


def _linked(text: str, begin: int = 0) -> list[tuple[list[float], int, int]]:
    """Return the numbers, the start and the end of linked corners, left to right."""
    linked: list[tuple[list[float], int, int]] = []
    for match in _CORNERS.finditer(text, begin):
        numbers = [float(number) for number in re.findall(_NUMBER, match[0])]
        start = match.start()
        if linked and _LINK.fullmatch(text, linked[-1][2], start):
            before, start, _ = linked.pop()
            before += numbers
            numbers = before
        linked.append((numbers, start, match.end()))
    return linked


def _instances(
    found: Sequence[Finding], image_size: tuple[int, int], frame: Frame
) -> tuple[list[InstancePrompt], ResponseError | None]:
    """Return the instances in pixels, and the first error."""
    said = [finding for finding in found if isinstance(finding, Found)]
    if _has_wrong_scale(said, frame):
        return [], ResponseError.WRONG_SCALE
    error: ResponseError | None = None
    instances = []
    for finding in found:
        if isinstance(finding, ResponseError):
            error = error or finding
        elif isinstance(finding, Found):
            instance, problem = _instance(finding, image_size, frame)
            error = error or problem
            if instance:
                instances.append(instance)
    return instances, error


def _has_wrong_scale(said: Sequence[Found], frame: Frame) -> bool:
    """Return whether a box is on another scale, or all boxes may be shares of 1.

    Without boxes the points are judged.
    """
    boxes = [instance.box for instance in said if instance.box]
    points = [_parsing.finite(point, 2) for instance in said for point in _listed(instance.points)]
    each = [numbers for numbers in boxes or points if numbers]
    shares = any(map(any, each)) and all(0 <= number <= 1 for numbers in each for number in numbers)
    return shares or any(_parsing.has_wrong_scale(numbers, frame.limits) for numbers in each)


def _listed(points: object) -> list:
    return points if isinstance(points, list) else []


def _instance(
    found: Found, image_size: tuple[int, int], frame: Frame
) -> tuple[InstancePrompt | None, ResponseError | None]:
    box, problem = (None, None)
    if found.box:
        box, problem = _parsing.pixel_box(found.box, image_size, frame.scale)
        if box is None:
            return None, problem
    if found.points is None:
        return InstancePrompt(box, ()), None
    points, clean = _parsing.pixel_points(found.points, image_size, frame.scale)
    if box is None and len(points) > 2:
        return None, ResponseError.WRONG_SCHEMA  # each point may be an instance
    points = points[:2]
    problem = None if clean else ResponseError.WRONG_SCHEMA
    if box:
        outside = sum(not _parsing.inside(point, box) for point in points)
        return InstancePrompt(box, tuple(points), outside), problem
    whole_image = (0.0, 0.0, float(image_size[0]), float(image_size[1]))
    if not points or not all(_parsing.inside(point, whole_image) for point in points):
        return None, problem or ResponseError.POINT_OUT_OF_IMAGE
    return InstancePrompt(None, tuple(points)), problem
