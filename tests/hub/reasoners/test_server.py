"""Answers of a server: the same weights give the same answers, and a fault fails one prompt only.

The engine is `transformers serve`, started by `genseg serve`. Faults come from a server that the tests control.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import anyio
import numpy as np
import pytest
from genseg_hub import Failure, GenSegR1, Prediction, ReferringExample, checkpoints
from genseg_hub.dialects import genseg
from genseg_hub.errors import CheckpointError, ReasonerError
from genseg_hub.extras import is_installed
from genseg_hub.publishing import publish
from genseg_hub.reasoners.base import Generation, Prompt, Sampling
from genseg_hub.reasoners.server import ServerReasoner
from genseg_training.nano.refscenes import refscenes
from PIL import Image

from tests.helpers.chat_server import expression, said, serving, shown
from tests.helpers.checkpoints import NANO, run
from tests.helpers.hub_server import REPO
from tests.helpers.reasoners import ask as ask_all

KEY = "sk-secret-0123"


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory):
    """Start `genseg serve nano`, which loads while the first tests run; give address, process and log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("engine") / "log"
    command = [Path(sys.executable).with_name("genseg"), "serve", "nano", "--engine", "transformers", "--port", port]
    with log.open("w") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output)
    yield f"http://127.0.0.1:{port}/v1", process, log
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def engine(started):
    """Wait until the engine has loaded; return address and process."""
    if not is_installed("serve"):
        pytest.skip("the extra serve needs a later Transformers than the package")
    url, process, log = started
    while True:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{url}/models").close()
            return url, process
        except OSError:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def served(engine):
    return GenSegR1.from_pretrained("nano", device="cpu", server=engine[0], max_retries=0)


def reasoner(server, **options) -> ServerReasoner:
    return ServerReasoner(server.url, "served", 64, **options)


def about(image: Image.Image, *expressions: str) -> list[Prompt]:
    return [Prompt(image, genseg.messages(image.size, words), "image") for words in expressions]


def ask(reasoner: ServerReasoner, *expressions: str) -> list:
    return ask_all(reasoner, about(Image.new("RGB", (8, 8)), *expressions))


@pytest.fixture
def pauses(monkeypatch):
    """Record the client's pauses before it asks again, in place of sleeping."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return waited


def test_the_weights_that_a_server_has_are_not_downloaded(hub, folder):
    commit = publish.push(folder, REPO).commit
    with serving(lambda request: said("<answer>[]</answer>")) as server:
        server.models = (200, {}, {"data": [{"id": f"{REPO}@{commit}"}]})
        model = GenSegR1.from_pretrained(REPO, device="cpu", server=server.url)
        assert model.segment(Image.new("RGB", (64, 64)), "the star").response.no_target
    assert server.requests[0]["model"] == model.checkpoint.pinned == f"{REPO}@{commit}"
    assert server.requests[0]["max_tokens"] == 320  # generation_config.json of the checkpoint
    assert {path for path in hub.sent if path.endswith("safetensors")} == {"segmenter/model.safetensors"}
    assert not checkpoints.is_on_disk(REPO)
    assert checkpoints.pull(REPO).commit == commit
    assert checkpoints.is_on_disk(REPO)


def test_a_checkpoint_with_broken_settings_is_refused_before_the_server_is_asked(folder):
    (folder / "generation_config.json").write_text('{"max_new_tokens": "many"}')
    with pytest.raises(CheckpointError, match=r"generation_config.json cannot be read: .*; mend or remove it"):
        GenSegR1.from_pretrained(str(folder), device="cpu", server="http://127.0.0.1:1/v1")


def test_as_many_requests_are_open_as_allowed_and_no_more():
    together = threading.Barrier(3, timeout=60)

    def reply(request):
        together.wait()
        return said("[]")

    with serving(reply) as server:
        answers = ask(reasoner(server, concurrency=3, max_retries=0), *"abcdefghi")
    assert answers == [Generation("[]", truncated=False)] * 9
    assert server.open_most == 3


def test_the_answers_come_in_the_order_of_the_questions():
    turn = {"a": threading.Event(), "b": threading.Event(), "c": threading.Event()}
    turn["c"].set()

    def reply(request):
        name = expression(request)[-1]
        turn[name].wait(60)
        for later in {"c": "b", "b": "a"}.get(name, ""):
            turn[later].set()
        return said(name)

    with serving(reply) as server:
        assert [answer.text for answer in ask(reasoner(server), *"abc")] == ["a", "b", "c"]


LLAMA_CPP_IS_FULL = {
    "code": 400,
    "message": "request (5120 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 5120,
    "n_ctx": 4096,
}


def test_a_temporary_failure_is_asked_again(pauses):
    replies = [(503, {}, {}), (429, {"Retry-After": "7"}, {}), said("[]")]
    with serving(lambda request: replies.pop(0)) as server:
        assert ask(reasoner(server), "x") == [Generation("[]", truncated=False)]
    assert len(server.requests) == 3
    assert 0 < pauses[0] <= 0.5
    assert pauses[1] == 7


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((503, {}, {"error": {"message": "busy"}}), "answered 503: busy (asked 3 times)"),
        ((429, {"Retry-After": "7"}, {"detail": "slowly"}), "answered 429: slowly (asked 3 times)"),
        (
            (400, {}, {"message": "maximum context length is 9"}),
            "answered 400: maximum context length is 9; start it wi",
        ),
        (
            (400, {}, {"error": LLAMA_CPP_IS_FULL}),
            "exceeds the available context size (4096 tokens), try increasing it; start it with a longer context",
        ),
        ((413, {}, b"<html>too much"), "answered 413: <html>too much; start it with a longer context"),
        ((404, {}, {"message": "no model served"}), "answered 404: no model served; the address usually ends in /v1"),
        ((401, {}, {"message": f"wrong: {KEY}"}), "refuses the key; set OPENAI_API_KEY"),
        ((500, {}, {"message": f"\x1b[2J {KEY}"}), "answered 500: [2J *** (asked"),
        (said("half", "abort"), "broke the answer off (finish_reason abort)"),
        (said(["no", "text"]), "gave no text, but ['no', 'text']"),
        ((200, {}, {"choices": []}), "gave no chat completion"),
        ((200, {}, [1, KEY]), "gave no chat completion"),
        ((200, {}, None), "gave no chat completion"),
        ((200, {}, b"{"), "JSONDecodeError"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), "gave no chat completion, but <html>"),
    ],
)
def test_a_failed_request_fails_its_own_expression(nano, pauses, reply, message):
    def answer(request):
        return reply if expression(request).endswith("bad") else said("<answer>[]</answer>")

    with serving(answer) as server:
        model = GenSegR1(reasoner(server, max_retries=2, api_key=KEY), nano.segmenter, nano.dialect)
        asked = [ReferringExample(Image.new("RGB", (8, 8)), words) for words in ("one", "bad", "two", "three")]
        results = list(model.segment_many(asked, batch_size=4))
    assert [isinstance(result, Failure) for result in results] == [False, True, False, False]
    assert all(result.response.no_target for result in results if isinstance(result, Prediction))
    assert results[1].message.startswith(f"the server {server.url} ")
    assert message in results[1].message
    assert KEY not in results[1].message
    assert all(character.isprintable() for character in results[1].message)
    good = [expression(request) for request in server.requests if not expression(request).endswith("bad")]
    assert sorted(good) == ["Expression: one", "Expression: three", "Expression: two"]  # each is asked once
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_a_server_that_does_not_answer_in_time_is_given_up():
    over = threading.Event()

    def reply(request):
        if expression(request).endswith("slow"):
            over.wait(60)
        return said("[]")

    with serving(reply) as server:
        quick, slow = ask(reasoner(server, timeout=2.0, max_retries=1), "quick", "slow")
        over.set()
    assert quick == Generation("[]", truncated=False)
    assert "no answer within 2 seconds, asked 2 times" in str(slow)


def test_a_think_part_that_the_server_removed_is_put_back():
    with serving(lambda request: said("<answer>[]</answer>", reasoning="it is red")) as server:
        (answer,) = ask(reasoner(server), "x")
    assert answer.text == "<think>it is red</think><answer>[]</answer>"


def test_the_server_gets_the_very_pixels_and_nothing_else_of_the_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.info |= {"icc_profile": b"profile", "exif": b"Exif\0\0where", "Comment": "whose"}
    with serving(lambda request: said("[]")) as server:
        ask_all(reasoner(server), about(image, "a", "b"))
    for request in server.requests:
        received = shown(request)
        assert np.array_equal(np.asarray(received), pixels)
        assert received.info == {}
        assert (request["model"], request["temperature"], request["max_tokens"]) == ("served", 0, 64)
        assert request["messages"][0] == genseg.messages(image.size, "a")[0]


def test_a_temperature_is_sent_until_the_server_refuses_it():
    def reply(request):
        if request.get("temperature") == 0.5:
            return 400, {}, {"error": {"message": "Unsupported value", "param": "temperature"}}
        return said("[]")

    image = Image.new("RGB", (40, 60))
    with serving(reply) as server:
        sampling = reasoner(server)
        assert isinstance(sampling, Sampling)
        for temperature in (0.7, 0.5):
            sampling.temperature = temperature
            ask_all(sampling, about(image, "a"))
    assert [request.get("temperature") for request in server.requests] == [0.7, 0.5, None]


def test_images_can_be_handed_over_in_a_folder_that_the_server_sees(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    seen = []

    def reply(request):
        url = request["messages"][-1]["content"][0]["image_url"]["url"]
        with Image.open(Path(url.removeprefix("file://"))) as file:
            seen.append((url, np.array_equal(np.asarray(file), np.asarray(image))))
        return said("[]")

    with serving(reply) as server:
        asked = reasoner(server, media_folder=tmp_path)
        assert ask_all(asked, about(image, "x", "x")) == [Generation("[]", truncated=False)] * 2
        assert seen[0] == seen[1]
        assert seen[0][1]
        assert list(tmp_path.iterdir()) == []
        tmp_path.rmdir()
        with pytest.raises(FileNotFoundError):
            ask(asked, "x")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, "does not serve served, but a, b; start it with `genseg serve served`"),
        ({"data": []}, "does not serve served, but nothing"),
        ({"data": None}, "does not list its models"),
        (b"<html>", "JSONDecodeError"),
    ],
)
def test_a_server_without_the_model_is_refused(models, message):
    with serving(lambda request: said("")) as server:
        server.models = (200, {}, models)
        with pytest.raises(ReasonerError, match=message):
            reasoner(server)


def test_a_model_is_known_by_where_it_was_loaded_from():
    with serving(lambda request: said("")) as server:
        assert ServerReasoner(server.url, ["nano", "/weights/nano"], 64).model == "served"


def test_a_server_that_is_not_there_is_named(pauses):
    with pytest.raises(ReasonerError, match=r"127.0.0.1:1/v1 cannot be reached .* asked 3 times; start it"):
        GenSegR1.from_pretrained("nano", device="cpu", server="http://127.0.0.1:1/v1", max_retries=2)
    assert len(pauses) == 2
    with serving(lambda request: said("")) as server:
        with pytest.raises(ReasonerError, match="answered 404: Not Found; the address usually ends in /v1"):
            ServerReasoner(server.url.removesuffix("/v1"), "served", 64)
        server.models = (401, {}, {"message": KEY})
        with pytest.raises(ReasonerError, match="refuses the key; set OPENAI_API_KEY to the server"):
            reasoner(server, api_key=KEY)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://host:no/v1", "http://[/v1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="no address of a server; for example: http://localhost:8000/v1"):
        ServerReasoner(url, "served", 64)


def test_what_cannot_be_used_is_refused(tmp_path):
    for scheme in ("http", "ftp"):
        with pytest.raises(ValueError, match="no user, password or query") as refusal:
            ServerReasoner(f"{scheme}://me:{KEY}@host/v1", "served", 64)
        assert KEY not in str(refusal.value)
    with pytest.raises(ValueError, match="there is no folder"):
        ServerReasoner("http://host/v1", "served", 64, media_folder=tmp_path / "none")
    with pytest.raises(ValueError, match="concurrency must be at least 1"):
        ServerReasoner("http://host/v1", "served", 64, concurrency=0)
    with pytest.raises(TypeError, match="concurrency belong to a server"):
        GenSegR1.from_pretrained("nano", concurrency=2)


def test_it_answers_where_an_event_loop_runs_already():
    async def cell():
        return ask(reasoner(server), "x")

    with serving(lambda request: said("[]")) as server:
        assert asyncio.run(cell()) == [Generation("[]", truncated=False)]


def test_an_interrupt_gives_up_the_open_requests():
    over = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def reply(request):
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(60)
        return said("[]")

    with serving(reply) as server:
        asked = reasoner(server, concurrency=1)
        with pytest.raises(KeyboardInterrupt):
            ask(asked, "first", "never asked")
        over.set()
        server.reply = lambda request: said("[]")
        assert ask(asked, "next") == [Generation("[]", truncated=False)]
    signal.signal(signal.SIGINT, before)
    assert [expression(request).split()[-1] for request in server.requests] == ["first", "next"]


def test_a_server_with_the_same_weights_gives_the_same_answers(nano, served):
    scenes = list(refscenes("val", 12))
    photo = Image.fromarray(scenes[0].image)
    sizes = [(33, 700), (640, 480)]
    examples = scenes + [ReferringExample(photo.resize(size), "all shapes") for size in sizes]
    here = [nano.segment(example.image, example.expression) for example in examples]  # as the engine: one by one
    there = list(served.segment_many(examples, batch_size=5))
    assert [p.response for p in there] == [p.response for p in here]
    assert any(p.response.instances for p in there)
    for one, other in zip(here, there, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.masks, other.masks, strict=True))


def test_an_answer_that_reaches_the_limit_is_truncated(nano, engine):
    example = next(iter(refscenes("val", 1)))
    image = Image.fromarray(example.image)
    (whole,) = ask_all(nano.reasoner, about(image, example.expression))
    (part,) = ask_all(ServerReasoner(engine[0], str(NANO), 5), about(image, example.expression))
    assert part.truncated
    assert not whole.truncated
    assert whole.text.startswith(part.text)
    assert 0 < len(part.text) < len(whole.text)


def test_genseg_segment_asks_a_server(engine, tmp_path, nano):
    picture = tmp_path / "scene.png"
    Image.fromarray(next(iter(refscenes("val", 1))).image).save(picture)
    command = ["segment", picture, "all shapes", "--device", "cpu"]
    asked = run(*command, "--server", engine[0])
    assert asked.exit_code == 0, asked.output
    assert asked.stdout == run(*command).stdout
    other = run(*command, "--model", "nano-sft", "--server", engine[0])
    assert other.exit_code == 1
    assert f"does not serve nano-sft, but {NANO}; start it with `genseg serve nano-sft`" in other.stderr


def test_a_killed_server_loses_nothing_that_was_answered(nano, engine):
    """Kill the engine, which `genseg serve` became; this is the last test of the file."""
    examples = list(refscenes("val", 60))
    # Its own client, because the server may be about to close an older connection, and here nothing is asked twice.
    served = GenSegR1(ServerReasoner(engine[0], str(NANO), 512, max_retries=0), nano.segmenter, nano.dialect)
    stream = served.segment_many(examples, batch_size=2)
    results = [next(stream)]
    engine[1].kill()
    engine[1].wait()
    results += stream
    failed = [result for result in results if isinstance(result, Failure)]
    assert len(results) == 60
    assert isinstance(results[0], Prediction)
    assert isinstance(results[-1], Failure)
    assert all("cannot be reached" in failure.message and "start it" in failure.message for failure in failed)
