"""Errors of this package. Each message says what happened and what to do."""


def escaped(text: object) -> str:
    """Return a text with its control characters spelled out.

    Messages use it, because a stranger's names can hold control characters.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used."""

    def __init__(self, message: object):
        super().__init__(escaped(message))


class HubError(CheckpointError):
    """The Hub, or the way to it, failed.

    Args:
        message: what happened and what to do.
        fault: what happened, such as "the Hub has a problem (HTTP 503)"; "" for the message.
    """

    def __init__(self, message: object, fault: str = ""):
        super().__init__(message)
        self.fault = fault or str(self)


class ReasonerError(RuntimeError):
    """A reasoner gave no answer."""


class EngineDiedError(ReasonerError):
    """An engine in this process stopped with an error and answers nothing any more."""


class SegmenterError(RuntimeError):
    """A segmenter made no mask that can be used."""


class NotServedError(ReasonerError):
    """A server runs, but serves other models."""


class ServingError(ValueError):
    """An engine cannot be started with these arguments."""


class ImageError(ValueError):
    """An image cannot be used; the message names the image."""


class MaskError(ValueError):
    """A mask cannot be read; the message says why."""


class ArchiveError(ValueError):
    """An archive of a benchmark cannot be used."""


class PredictionError(ValueError):
    """A file of predictions cannot be used; the message names the line."""


class RunError(ValueError):
    """A benchmark run cannot start or resume."""


class PublishError(RuntimeError):
    """A checkpoint was not published; the message names the Hub's present contents."""

    def __init__(self, message: object):
        super().__init__(escaped(message))
