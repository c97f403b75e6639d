"""The dialect of untuned GLM-4.1V, GLM-4.5V and GLM-4.6V checkpoints.

The request is from the maker's model cards (zai-org/GLM-4.5V, "Grounding"). The answer holds `[[x1, y1, x2, y2]]`,
often between `<|begin_of_box|>` and `<|end_of_box|>`, coordinates 0-1000 of the image. The card says that the kind of
brackets varies. The sentence on no-target is this project's own.
"""

from __future__ import annotations

from genseg_hub.dialects import _untuned
from genseg_hub.dialects._prompting import OR_NOTHING, as_data, question

PROMPT = (
    "Please pinpoint the bounding box [[x1,y1,x2,y2], …] in the image as per the given description. {expression}\n"
    f"{OR_NOTHING}"
)
TUNED = False
MODEL_TYPES: tuple[str, ...] = ("glm4v", "glm4v_moe", "glm46v")
NAMES = ("glm-4.1v", "glm-4.5v", "glm-4.6v")
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
