"""The dialect of untuned Qwen2-VL checkpoints.

The request is from ModelScope's guide for Qwen2-VL (swift.readthedocs.io, Qwen2-VL best practice, grounding). The
answers have the form of the report (arXiv 2409.12191): `<|object_ref_start|>…<|object_ref_end|><|box_start|>(x1,y1),
(x2,y2)<|box_end|>`, coordinates 0-1000 of the image. Decoding without special tokens leaves `…(x1,y1),(x2,y2)`, and
`parse` reads both. The sentence on no-target is this project's own.
"""

from __future__ import annotations

from genseg_hub.dialects import _untuned
from genseg_hub.dialects._prompting import OR_NOTHING, as_data, question

PROMPT = f"Find <|object_ref_start|>{{expression}}<|object_ref_end|>. {OR_NOTHING}"
TUNED = False
MODEL_TYPES: tuple[str, ...] = ("qwen2_vl",)
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
