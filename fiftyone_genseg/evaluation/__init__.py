"""Evaluate masks of expressions as a FiftyOne evaluation run.

FiftyOne stores the import path of a run's classes. All of them have this package as their path, whatever their module
is.
"""

from importlib import import_module

_MODULES = {
    "ReferringEvaluation": "config",
    "ReferringEvaluationConfig": "config",
    "ReferringResults": "results",
    "evaluate": "run",
}


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
