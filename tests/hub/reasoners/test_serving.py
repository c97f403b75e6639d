"""Commands that start an engine."""

import json
import shlex
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from genseg_hub import checkpoints, extras
from genseg_hub.errors import ReasonerError, ServingError
from genseg_hub.reasoners import served_models, serving
from genseg_hub.reasoners.server import ServerReasoner

from tests.helpers import chat_server
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


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://localhost:1/v1", True),
        ("http://localhost.:1/v1", True),
        ("http://127.0.0.2:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://0.0.0.0:1/v1", True),
        ("http://[::]:1/v1", True),
        ("http://10.0.0.1:1/v1", False),
        ("https://example.org/v1", False),
    ],
)
def test_this_machine_is_asked_without_a_proxy(address, local, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert serving.client_options(address)["trust_env"] is not local


def test_spaces_around_an_address_do_not_count():
    assert serving.checked_address(" http://localhost:8000/v1/ \n") == "http://localhost:8000/v1"


def test_certificates_that_cannot_be_read_are_told(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with pytest.raises(ValueError, match=r"the certificates of SSL_CERT_FILE \(/no/such/file.pem\) cannot be read"):
        serving.client_options("https://localhost:1/v1")
    assert serving.client_options("http://localhost:1/v1") == {"trust_env": False, "verify": True}


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate of localhost that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "localhost.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return file


def test_a_certificate_of_ones_own_is_trusted_on_this_machine(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nobody listens
    with chat_server.serving(lambda request: chat_server.said("[]")) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        address = f"https://localhost:{server.server_port}/v1"
        with pytest.raises(ReasonerError, match=r"CERTIFICATE_VERIFY_FAILED.*set SSL_CERT_FILE to a file"):
            ServerReasoner(address, "served", 64, max_retries=0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ServerReasoner(address, "served", 64, max_retries=0).label == "served"
        assert [model.name for model in served_models.list_models(address, 10)] == ["served"]


@pytest.mark.parametrize("models", [(200, {"Content-Type": "text/html"}, b"<html>"), (200, {}, [{"id": "served"}])])
def test_an_address_that_lists_no_models_is_told_where_the_api_usually_is(models):
    with chat_server.serving(lambda request: chat_server.said("[]")) as server:
        server.models = models
        with pytest.raises(ReasonerError, match="the address usually ends in /v1"):
            ServerReasoner(server.url, "served", 64, max_retries=0)
