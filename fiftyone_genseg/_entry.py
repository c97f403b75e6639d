"""Find the real package for FiftyOne.

FiftyOne executes this file anew at each operator call, under a name of its own. Everything else must be imported by its
real name, or two copies of each class would exist. `fiftyone.yml` therefore points here.
"""

import importlib.util
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
for _package, _folder in (
    ("fiftyone_genseg", _ROOT),
    ("genseg_hub", _ROOT / "hub"),
    ("genseg_training", _ROOT / "training"),
):
    _spec = importlib.util.find_spec(_package)
    if _spec is None or _spec.origin is None:  # not installed, or a folder that happens to have its name
        sys.path.insert(0, str(_folder))

import fiftyone_genseg  # noqa: E402
from fiftyone_genseg import missing  # noqa: E402


def register(context) -> None:
    """Register the operators and panels, or operators that say why they cannot run."""
    if problem := missing.problem():
        missing.register(context, problem)
    else:
        fiftyone_genseg.register(context)
