"""Gate through which every answer of a reasoner passes.

The reasoner may be in this process or on a server. A Response that has passed can be stored anywhere and read back. Its
text is valid Unicode of bounded length. Its boxes lie inside the image, its points lie near the image, and the masks of
its instances fit into memory.
"""

from __future__ import annotations

import re
from dataclasses import replace

from genseg_hub.dialects import Dialect
from genseg_hub.schema import InstancePrompt, Point, Response, ResponseError

MAX_CHARACTERS = 50_000
MAX_REASONING_CHARACTERS = 20_000  # MongoDB stores at most 16 MB of results per sample
MAX_MESSAGE_CHARACTERS = 2_000
MAX_INSTANCES = 100
MAX_MASK_PIXELS = 1_000_000_000  # of all masks of one answer, one byte each in memory
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read(
    dialect: Dialect,
    text: str | bytes,
    image_size: tuple[int, int],
    truncated: bool = False,
    shown_size: tuple[int, int] | None = None,
) -> Response:
    """Read an answer; never raise, because `Response.error` says what is wrong.

    A text longer than MAX_CHARACTERS is cut, and then read like an answer that ended at the token limit.

    Args:
        dialect: dialect of the checkpoint that answered.
        text: the generated answer, which may hold anything.
        image_size: (width, height) of the original image in pixels.
        truncated: see `Dialect.parse`.
        shown_size: see `Dialect.parse`.
    """
    kept, cut = bounded(text, MAX_CHARACTERS)
    response = dialect.parse(kept, image_size, truncated or cut, shown_size)
    reasoning, reasoning_cut = bounded(response.reasoning, MAX_REASONING_CHARACTERS)
    instances, problem = _near_image(response.instances, image_size)
    distinct = tuple(dict.fromkeys(instances))
    return replace(
        response,
        text=kept,
        reasoning=reasoning,
        instances=distinct,
        error=response.error or problem,
        repeated=len(instances) - len(distinct),
        cut=cut or reasoning_cut,
    )


def storable(text: str, characters: int) -> str:
    """Return text that every file and database can hold.

    NUL and lone surrogates become U+FFFD, and a longer text is cut.

    Args:
        text: text of any length.
        characters: the longest text to return.
    """
    return bounded(text, characters)[0]


def bounded(text: str | bytes, characters: int) -> tuple[str, bool]:
    """Return text as `storable` does, and whether it was cut."""
    if isinstance(text, bytes):
        text = text[: 4 * (characters + 1)].decode("utf-8", errors="replace")  # UTF-8 takes at most 4 bytes
    return _UNSTORABLE.sub("\ufffd", text[:characters]), len(text) > characters


def _near_image(
    said: tuple[InstancePrompt, ...], image_size: tuple[int, int]
) -> tuple[list[InstancePrompt], ResponseError | None]:
    """Return the instances that can be segmented, and the first error."""
    limit = min(MAX_INSTANCES, max(1, MAX_MASK_PIXELS // (image_size[0] * image_size[1])))
    error = ResponseError.TOO_MANY_INSTANCES if len(said) > limit else None
    kept = []
    for instance in said[:limit]:
        near, problem = _near(instance, image_size)
        error = error or problem
        if near:
            kept.append(near)
    return kept, error


def _near(instance: InstancePrompt, image_size: tuple[int, int]) -> tuple[InstancePrompt | None, ResponseError | None]:
    """Return the instance without points far from the image, and the error.

    The instance is None if nothing is left of it.
    """
    if instance.box is not None:
        x1, y1, x2, y2 = instance.box
        if not (0 <= x1 < x2 <= image_size[0] and 0 <= y1 < y2 <= image_size[1]):
            return None, ResponseError.BOX_OUT_OF_IMAGE
    points = tuple(point for point in instance.points if _is_near(point, image_size))
    negative = tuple(point for point in instance.negative_points if _is_near(point, image_size))
    far = len(instance.points) - len(points)
    if not far and len(negative) == len(instance.negative_points):
        return instance, None
    if instance.box is None and not points:
        return None, ResponseError.POINT_OUT_OF_IMAGE
    outside = max(0, instance.points_outside_box - far)  # a point far from the image is outside the box, too
    return InstancePrompt(instance.box, points, outside, negative), ResponseError.POINT_OUT_OF_IMAGE


def _is_near(point: Point, image_size: tuple[int, int]) -> bool:
    """Return whether a point is at most one width and one height off the image.

    A NaN is never near.
    """
    return all(-side <= value <= 2 * side for value, side in zip(point, image_size, strict=True))
