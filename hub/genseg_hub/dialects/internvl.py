"""The dialect of untuned InternVL checkpoints.

The request is from the maker's guide (internvl.readthedocs.io, chat data format, "Grounding / Detection Data"). The
answer is `<ref>…</ref><box>[[x1, y1, x2, y2], …]</box>`, coordinates 0-1000 of the image. The sentence on no-target is
this project's own.
"""

from __future__ import annotations

from genseg_hub.dialects import _untuned
from genseg_hub.dialects._prompting import OR_NOTHING, as_data, question

PROMPT = (
    "Please provide the bounding box coordinate of the region this sentence describes: <ref>{expression}</ref>. "
    f"{OR_NOTHING}"
)
TUNED = False
MODEL_TYPES: tuple[str, ...] = ("internvl",)
FRAME = "0-1000 of the image"
PIXELS = False
TOKEN_SIDE = 28
MAX_NEW_TOKENS = 1024
IMAGE_SIZE: tuple[int, int] | None = None
MULTIMASK = False
parse = _untuned.parse_thousandths


def messages(image_size: tuple[int, int], expression: str) -> list[dict]:
    """See `Dialect.messages`."""
    return question(PROMPT.format(expression=as_data(expression)))
