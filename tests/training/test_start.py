"""What a run is told about the machine before it starts."""

import pytest
import torch
from genseg_training.start import check_precision
from transformers import TrainingArguments
from trl import ModelConfig


@pytest.mark.parametrize(
    ("capability", "bf16", "dtype", "warned"),
    [
        ("AVX2", True, None, True),
        ("AVX2", False, "bfloat16", True),
        ("AVX2", False, "float32", False),
        ("AVX512", True, "bfloat16", False),
        ("DEFAULT", True, None, False),
    ],
)
def test_slow_bfloat16_is_announced(capability, bf16, dtype, warned, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    check_precision(TrainingArguments(tmp_path, use_cpu=True, bf16=bf16), ModelConfig(dtype=dtype))
    assert ("give --bf16 false and --dtype float32" in caplog.text) == warned
