"""The simulated vLLM of `simulated_vllm`, installed for a while.

No module of this folder is named `vllm`, because a script of this folder would then import it as vLLM.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

SIMULATED = Path(__file__).parent / "simulated_vllm"
_VARIABLES = ("VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL")


@contextmanager
def installed() -> Iterator[ModuleType]:
    """Install the simulated vLLM in this process, and give its module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SIMULATED)
        for name in _VARIABLES:
            patch.setenv(name, "1")  # set back afterwards
        import vllm

        try:
            yield vllm
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
                del sys.modules[name]


@contextmanager
def installed_for_trl() -> Iterator[ModuleType]:
    """Install the simulated vLLM also in TRL, which looks for vLLM when it is imported."""
    from trl.generation import vllm_generation

    with installed() as vllm, pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_generation, "is_vllm_available", lambda: True)
        patch.setattr(vllm_generation, "LLM", vllm.LLM, raising=False)
        patch.setattr(vllm_generation, "SamplingParams", vllm.SamplingParams, raising=False)
        yield vllm
