"""Commands that start an engine."""

import json
import shlex
import stat

import pytest
from genseg_hub import checkpoints, extras
from genseg_hub.errors import ServingError
from genseg_hub.reasoners import serving

from tests.helpers.checkpoints import NANO, run


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that puts an executable with the name of an engine on PATH."""

    def install(name):
        executable = tmp_path / name
        executable.touch()
        executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return str(executable)

    return install


@pytest.fixture
def transformers_can_serve(monkeypatch):
    """Let `transformers serve` count as installed, which is not started here."""
    monkeypatch.setattr(serving, "_transformers_can_serve", lambda: True)


def words(*arguments) -> list[str]:
    result = run("serve", "--dry-run", *arguments)
    assert result.exit_code == 0, result.output
    return shlex.split(result.stdout)


def value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_vllm_gets_the_pulled_folder_and_the_checkpoints_name(installed, tmp_path):
    executable = installed("vllm")
    command = words("nano", "--port", "9000", "--media-folder", tmp_path, "--", "--max-num-seqs", "8")
    assert command[:3] == [executable, "serve", str(NANO)]  # the first engine that is installed
    assert command[-2:] == ["--max-num-seqs", "8"]
    assert value(command, "--served-model-name") == "nano"
    assert value(command, "--load-format") == "safetensors"
    assert value(command, "--host") == "127.0.0.1"
    assert value(command, "--port") == "9000"
    assert value(command, "--max-model-len") == "4096"  # nano has no more positions
    assert json.loads(value(command, "--limit-mm-per-prompt")) == {"image": 1, "video": 0}
    assert value(command, "--allowed-local-media-path") == str(tmp_path)
    assert not [word for word in command if "trust" in word]


def test_sglang_and_transformers_have_their_own_words(installed, transformers_can_serve):
    executable = installed("sglang")
    command = words("nano", "--engine", "sglang", "--max-model-len", "2000")
    assert command[:4] == [executable, "serve", "--model-path", str(NANO)]
    assert value(command, "--served-model-name") == "nano"
    assert value(command, "--context-length") == "2000"
    command = words("nano", "--engine", "transformers")
    assert command[1:3] == ["serve", str(NANO)]
    assert value(command, "--port") == "8000"


@pytest.mark.parametrize("engine", [[], ["--engine", "transformers"]])
def test_a_transformers_that_is_too_old_for_the_extra_is_no_engine(engine, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "serve", ("openai>=2", "transformers[serving]>=999"))
    result = run("serve", "--dry-run", "nano", *engine)
    assert result.exit_code == 1
    assert 'pip install "openai>=2" "transformers[serving]>=999"' in result.stderr


def test_a_commit_of_the_hub_is_part_of_the_served_name():
    pulled = checkpoints.Checkpoint("owner/name", NANO, NANO / "segmenter", None, "genseg", commit="c" * 40)
    pinned = f"owner/name@{'c' * 40}"
    vllm, sglang, transformers = (
        serving.command(pulled, engine, engine, "127.0.0.1", 8000, "bfloat16") for engine in serving.ENGINES
    )
    assert [value(command, "--served-model-name") for command in (vllm, sglang)] == [pinned, pinned]
    assert "owner/name" not in vllm  # a client that wants another commit would get this one
    assert transformers[2] == pinned


def test_a_long_context_is_cut_to_what_an_image_needs(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 262_144
    (folder / "config.json").write_text(json.dumps(config))
    pulled = checkpoints.pull(str(folder))
    command = serving.command(pulled, "vllm", "vllm", "127.0.0.1", 8000, "bfloat16")
    assert value(command, "--max-model-len") == str(serving.MAX_MODEL_LEN)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ServingError, match=r"config.json of .* cannot be read"):
        serving.command(pulled, "vllm", "vllm", "127.0.0.1", 8000, "bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nano", "--engine", "llama"], "there is no engine 'llama'; choose one of vllm, sglang, transformers"),
        (["nano", "--engine", "sglang"], "sglang is not installed here: pip install vllm"),
        (["nanno"], "there is no checkpoint 'nanno'"),
        (["nano", "--engine", "transformers", "--max-model-len", "9"], "`transformers serve` has no limit"),
        (["nano", "--engine", "transformers", "--media-folder", "."], "only vLLM has to be told"),
        (["nano", "--", "--trust-remote-code"], "code of a repository is never run"),
        (["nano", "--", "--Trust_remote=1"], "code of a repository is never run"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(arguments, message, transformers_can_serve):
    result = run("serve", "--dry-run", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
