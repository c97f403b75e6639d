"""What a run is told about the machine before it starts."""

import pytest
import torch
from genseg_training.start import check_precision
from transformers import TrainingArguments


@pytest.mark.parametrize(
    ("capability", "bf16", "warned"),
    [("AVX2", True, True), ("AVX2", False, False), ("AVX512", True, False), ("DEFAULT", True, False)],
)
def test_slow_bfloat16_is_announced(capability, bf16, warned, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    check_precision(TrainingArguments(tmp_path, use_cpu=True, bf16=bf16))
    assert ("--bf16 false avoids them" in caplog.text) == warned
