"""Errors of this package. Each message says what happened and what to do."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used."""


class ReasonerError(RuntimeError):
    """A reasoner gave no answer."""


class NotServedError(ReasonerError):
    """A server runs, but serves other models."""


class ServingError(ValueError):
    """An engine cannot be started with these arguments."""


class ImageError(ValueError):
    """An image cannot be used; the message names the image."""


class ArchiveError(ValueError):
    """An archive of a benchmark cannot be used."""


class PredictionError(ValueError):
    """A file of predictions cannot be used; the message names the line."""


class RunError(ValueError):
    """A benchmark run cannot start or resume."""


class PublishError(RuntimeError):
    """A checkpoint was not published; the message also says what the Hub holds now."""
