"""Mining with vLLM, which is simulated: the pass rates of Transformers, and sampled answers."""

import pytest
from genseg_hub.errors import RunError
from genseg_training import cli
from trl import GRPOTrainer  # noqa: F401  TRL would look into the simulated vLLM if it were imported later

from tests.helpers.vllm_installed import installed
from tests.training.test_mining import command, rates

VLLM = {"model_options": '{"backend": "vllm"}', "data": "refscenes:6", "below": 0.95}


def test_greedy_answers_have_the_rates_of_transformers(tmp_path):
    with installed() as vllm:
        cli.main(command(tmp_path / "vllm", **VLLM))
        assert len(vllm.LLM.made) == 1
    cli.main(command(tmp_path / "ours", **VLLM | {"model_options": "{}"}))
    assert rates(tmp_path / "vllm") == rates(tmp_path / "ours")
    with pytest.raises((RunError, SystemExit), match="backend"):
        cli.main(command(tmp_path / "vllm", **VLLM | {"model_options": "{}"}))


def test_sampled_answers_differ(tmp_path):
    with installed():
        cli.main(
            command(tmp_path / "mined", **VLLM, model="nano-sft", samples=3, temperature=1.5, max_rate=1, min_rate=0)
        )
    assert any(len(set(line["ious"])) > 1 for line in rates(tmp_path / "mined"))
