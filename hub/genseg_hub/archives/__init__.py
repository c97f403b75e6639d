"""Benchmarks of referring segmentation: their official archives as referring examples.

The archives are not in this package and are not fetched.
"""

from genseg_hub.archives.base import Benchmark, Problem
from genseg_hub.archives.loading import Report, by_name, check, first_expressions, load_archive

__all__ = ["Benchmark", "Problem", "Report", "by_name", "check", "first_expressions", "load_archive"]
