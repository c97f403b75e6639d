"""The device of the simulated vLLM."""

from types import SimpleNamespace

current_platform = SimpleNamespace(device_type="cpu")
