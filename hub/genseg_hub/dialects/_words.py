"""Tell whether an English answer says that the image has no such object.

The patterns are few and strict. An answer that hedges, refuses, or names coordinates does not count.
"""

from __future__ import annotations

import re

_MAX_CHARACTERS = 400
_WHOLE = {
    "empty", "n/a", "no match", "no matches", "no object", "no objects", "no such object", "no target", "none",
    "not applicable", "not found", "not present", "not visible", "nothing", "null",
}  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?\n]+")
_PREFIX = re.compile(r"(?:no|sorry|unfortunately|based on the image|in (?:the|this) image)[,:] ")
_PLACE = r"(?:in|on|within) (?:the|this) (?:given |provided )?(?:image|picture|photo|scene)"
_SEEN = rf"(?:visible|present|detected|found|shown|seen|identified|depicted)(?: {_PLACE})?"
_CLAIMS = re.compile(
    rf"there (?:is|are) (?:no|not any|none|nothing)\b.*\b(?:{_PLACE}|{_SEEN}|here)"
    r"|there (?:is|are) no [\w-]+(?: [\w-]+)?"
    rf"|(?:no|none of the|nothing)\b.*\b(?:{_SEEN}|{_PLACE})"
    r"|(?:no|none of the|nothing)\b.*\b(?:match|matches|matching|fits|corresponds)\b.*"
    rf"|.*\b(?:is|are|was|were)(?: not|n't) (?:{_SEEN}|{_PLACE})"
    r"|(?:i|we) (?:can ?not|can't|could not|couldn't|do not|don't|did not|didn't) (?:find|see|locate|detect) .*"
    r"|(?:the )?(?:image|picture|photo|scene) (?:does not|doesn't) (?:contain|show|have|include|depict) .*"
)
# A description of the image may stand beside the claim. Any other sentence may be about the object.
_NEUTRAL = re.compile(
    r"(?:it|(?:the|this) (?:image|picture|photo|scene)) (?:only |just )?(?:shows|depicts|contains) .*"
)
_DOUBT = re.compile(
    r"\b(?:but|however|although|though|unless|if|maybe|perhaps|might|may|could be|instead|closest|only|doubt|question"
    r"|clearly|well|unable|assist|help|other|others|else|another|better|so|its|their|rest|remaining)\b|[\d\[\]{}<>]"
)
_BLIND = re.compile(
    r"\b(?:find|see|locate|detect) (?:(?:an?|any|the|this|your|attached) ){0,3}(?:image|picture|photo)s?\b"
)


def says_nothing(answer: str) -> bool:
    """Return whether an answer as a whole says that the image has no such object.

    The first or the last sentence must say it. Every other sentence must say it, too, or describe the image.
    """
    text = answer.lower().replace("\u2019", "'").replace("*", "").strip(" \t\r\n\"'`.")
    if text in _WHOLE:
        return True
    if len(answer) > _MAX_CHARACTERS or _DOUBT.search(text) or _BLIND.search(text):
        return False
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    claims = [_CLAIMS.fullmatch(_PREFIX.sub("", said, count=1)) is not None for said in sentences]
    neutral = (claim or _NEUTRAL.fullmatch(said) for claim, said in zip(claims, sentences, strict=True))
    return bool(claims) and (claims[0] or claims[-1]) and all(neutral)
