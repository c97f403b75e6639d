"""Tell whether an English answer says that the image has no such object.

The patterns are strict, so that some denials are errors. An answer does not count if it hedges, refuses, or names
coordinates. Nor does it count if it says that the image itself is missing. Tests list sentences of both kinds.
"""

from __future__ import annotations

import re

_MAX_CHARACTERS = 400
_WHOLE = {
    "empty", "n/a", "no match", "no matches", "no object", "no objects", "no such object", "no target", "none",
    "not applicable", "not found", "not present", "not visible", "nothing", "null",
}  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?;\n]+")
_PREFIX = re.compile(r"(?:no|sorry|unfortunately|based on the image|in (?:the|this) image)[,:] ")
_PLACE = r"(?:in|on|within) (?:the|this) (?:given |provided )?(?:image|picture|photo|scene)"
_SEEN = rf"(?:visible|present|detected|found|shown|seen|identified|depicted)(?: {_PLACE})?"
_SHOWS = r"(?:only |just )?(?:shows|depicts|contains)\b"
_NOT_RELATIVE = r"(?<!\bthat )(?<!\bwho )(?<!\bwhich )"
# A noun may look like a verb: "the trash can is", "the can of soda", "the stands are".
_VERB = (
    rf"{_NOT_RELATIVE}\b(?:is|are|was|were|has|have|can|appears|holds|lies|sits|stands|wears)\b"
    r"(?! (?:is|are|was|were|of)\b)"
)
_SUBJECT = rf"(?:(?!{_VERB}).)*"
# A denial ends where another clause begins, because that clause may say where the object is. A list goes on: "no man, a
# woman or a dog".
_CLAUSE = (
    rf"(?:,|:| [-\u2013\u2014]) (?:(?:an?|the)\b(?!{_SUBJECT} or {_SUBJECT}$)"
    r"|(?:he|here|i|it|she|that|there|they|this|we|you)\b)"
    rf"(?! (?:(?:image|picture|photo|scene) )?{_SHOWS})"
)
_DENIED = rf"(?:(?!{_CLAUSE}).)*"
_OBJECT = rf"(?!(?:because|how|what|whether|where|which|who|why)\b){_DENIED}"
_IMAGE_LACKS = (
    r"(?:(?:the|this) )?(?:image|picture|photo|scene) (?:does not|doesn't) (?:contain|show|have|include|depict) "
)
_CLAIMS = re.compile(
    rf"there (?:is|are) (?:no|not any|none|nothing)\b{_DENIED}\b(?:{_PLACE}|{_SEEN}|here)"
    r"|there (?:is|are) no [\w-]+(?: [\w-]+)?"
    rf"|(?:no|none of the|nothing)\b{_DENIED}\b(?:{_SEEN}|{_PLACE})"
    rf"|(?:no|none of the|nothing)\b{_DENIED}\b(?:match|matches|matching|fits|corresponds)\b{_DENIED}"
    rf"|{_SUBJECT}\b(?:is|are|was|were)(?: not|n't) (?:{_SEEN}|{_PLACE})"
    r"|(?:i|we) (?:can ?not|can't|could not|couldn't|do not|don't|did not|didn't) (?:find|see|locate|detect) "
    rf"{_OBJECT}"
    rf"|{_IMAGE_LACKS}{_OBJECT}"
)
# A description of the image may stand beside the claim. Any other sentence may be about the object.
_NEUTRAL = re.compile(rf"(?:it|(?:the|this) (?:image|picture|photo|scene)) {_SHOWS} .*")
_HEDGE = (
    r"but|however|although|though|unless|if|maybe|perhaps|might|may|could be|instead|closest|only|doubt|question"
    r"|clearly|well|unable|assist|help|other|others|else|another|better|so|its|their|rest|remaining"
)
_OPPOSITE = (
    r"fewer|less than|more|except|excluding|besides|apart from|aside from"
    r"|(?:blocks|covers|hides|obscures) (?:an?|her|him|it|the|them)"
    r"|(?<!\bno )(?<!\bthe )(?<!\ba )(?<!\bany )(?:absent|invisible|missing(?! an?\b))"
    rf"|{_NOT_RELATIVE}(?:is|are|was|were) (?:hidden|obscured|occluded)"
    r"|(?<!\bin )(?:no|any|an?) (?:ambiguity|difference|error|issue|lack|mistake|need|problem|reason|shortage|trouble"
    r"|way|wonder|worry|worrie)s?(?! (?:message|sign)s?\b)"
    r"|(?:i|we) (?:can |could )?(?:detect|detected|find|found|identified|located|see|spotted)"
)
_NO_VERDICT = (
    r"enough|sufficient|entirely|exact|exactly|precise|precisely|detail|details|resolution|failed|anything wrong"
    r"|(?<!\bno )(?<!\ba )(?<!\bany )(?:whole|entire|fully)"
    r"|see anything(?=$)"
    r"|(?:find|see|locate|detect|contain|show|have|include|depict) (?:all|both|each|every)"
    r"|(?:find|see|locate|detect) .*(?:bounding box|coordinates|location|position)(?= of| for|[.;,]|$)"
)
_DOUBT = re.compile(rf"\b(?:{_HEDGE}|{_OPPOSITE}|{_NO_VERDICT})\b|[\d\[\]{{}}<>]")
# A sentence about an image, but not about something in an image, comes from a server that dropped the image.
_IMAGE = re.compile(
    r"\b(?:attachment|content|file|image|input|media|photo|photograph|picture|screenshot|upload|video|visual)s?"
    r"(?=$|[^\w\s'-]| (?:are|could|did|does|failed|has|is|was|were)(?:n't)?\b"
    r"| (?:an?|as|at all|attached|available|because|for|from|given|here|in|included|of|properly|provided|sent|that"
    rf"|to|uploaded|with|yet|{_SEEN})\b)"
)
_IN_IMAGE = re.compile(rf"\b{_PLACE}\b|^{_IMAGE_LACKS}|(?:image|picture|photo) {_SHOWS}")


def says_nothing(answer: str) -> bool:
    """Return whether an answer as a whole says that the image has no such object.

    The first or the last sentence must say it. Every other sentence must say it, too, or describe the image.
    """
    text = answer.lower().replace("\u2019", "'").replace("*", "").strip(" \t\r\n\"'`.")
    if text in _WHOLE:
        return True
    if len(answer) > _MAX_CHARACTERS or _DOUBT.search(text):
        return False
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    claims = [_denies(_PREFIX.sub("", said, count=1)) for said in sentences]
    neutral = (claim or _NEUTRAL.fullmatch(said) for claim, said in zip(claims, sentences, strict=True))
    return bool(claims) and (claims[0] or claims[-1]) and all(neutral)


def _denies(sentence: str) -> bool:
    """Return whether a sentence says that the image has no such object."""
    if _IMAGE.search(sentence) and not _IN_IMAGE.search(sentence):
        return False
    return _CLAIMS.fullmatch(sentence) is not None
