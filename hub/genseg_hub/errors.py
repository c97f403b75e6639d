"""Errors of this package, written for people: each message says what happened and what to do."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says what to do."""


class ReasonerError(RuntimeError):
    """An answer that could not be had; the message says why and what to do."""


class NotServedError(ReasonerError):
    """The server is there, and has other models."""


class ServingError(ValueError):
    """An engine that cannot be started so; the message says what to do."""


class ImageError(ValueError):
    """An image that cannot be used; the message says which and what to do."""


class ArchiveError(ValueError):
    """An archive that cannot be used; the message says what to do."""


class PredictionError(ValueError):
    """A file of predictions that cannot be used; the message says where and why."""


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""


class PublishError(RuntimeError):
    """A checkpoint that was not published; the message says why, what the Hub holds now and what to do."""
