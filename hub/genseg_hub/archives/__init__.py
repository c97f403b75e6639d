"""Read official archives of benchmarks as referring examples.

This package contains no archive and downloads none.
"""

from genseg_hub.archives.base import Benchmark, Problem
from genseg_hub.archives.loading import Report, by_name, check, first_expressions, load_archive

__all__ = ["Benchmark", "Problem", "Report", "by_name", "check", "first_expressions", "load_archive"]
