"""GenSeg-R1 in FiftyOne: operators that segment what an expression refers to.

Importing this package is cheap; models load when they run.
"""

__version__ = "0.1.0"


def register(plugin) -> None:
    """Called by FiftyOne with its plugin context."""
    from fiftyone_genseg.operators.referring_segment import ReferringSegment

    plugin.register(ReferringSegment)
