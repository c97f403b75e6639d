"""Segmenting the samples of a view, written as it goes and resumable."""

from fiftyone_genseg.segmentation.run import OVERWRITE, SKIP, Summary, segment_view, store

__all__ = ["OVERWRITE", "SKIP", "Summary", "segment_view", "store"]
