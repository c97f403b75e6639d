"""What a server refuses is sent in another form, once for all requests, and answers of all shapes are read."""

import base64
import io
import json
import logging
import threading

import pytest
from genseg_hub.dialects import genseg
from genseg_hub.errors import ReasonerError
from genseg_hub.reasoners.base import Generation, Prompt
from genseg_hub.reasoners.chat_requests import RequestForm, change
from genseg_hub.reasoners.server import ServerReasoner
from PIL import Image

from tests.helpers.chat_server import expression, said, serving, shown
from tests.helpers.reasoners import ask
from tests.helpers.simulated_servers import simulated

FORM = RequestForm(64)


def reasoner(server, **options) -> ServerReasoner:
    return ServerReasoner(server.url, None, 64, **{"max_retries": 0, **options})


def about(*expressions: str, size=(8, 8)) -> list[Prompt]:
    image = Image.effect_noise(size, 90).convert("RGB")
    return [Prompt(image, genseg.messages(image.size, words), "image") for words in expressions]


def refused(status: int, message: str, **more):
    return status, {}, {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "body", "field", "value"),
    [
        (
            400,
            {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "param": "max_tokens",
            },
            "limit_name",
            "max_completion_tokens",
        ),
        (
            422,
            {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted", "input": 64}]},
            "limit_name",
            "max_completion_tokens",
        ),
        (400, "unknown field max_tokens", "limit_name", "max_completion_tokens"),
        (
            400,
            {
                "message": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) "
                "value is supported.",
                "param": "temperature",
            },
            "temperature",
            None,
        ),
        (422, {"error": "Input validation error: `temperature` must be strictly positive"}, "temperature", None),
        (400, {"message": "`temperature` is deprecated for this model."}, "temperature", None),
        (422, {"message": "messages[0]: invalid type: sequence, expected a string at line 1"}, "system", "string"),
        (
            400,
            {
                "message": "'messages.0' : for 'role:system' the following must be satisfied[('messages.0.content' : "
                "value must be a string)]"
            },
            "system",
            "string",
        ),
        (
            422,
            {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "Input should be a valid string"}]},
            "system",
            "string",
        ),
        (400, {"message": 'can only concatenate str (not "list") to str'}, "system", "string"),
        (400, {"message": "System role not supported"}, "system", "user"),
        (400, {"message": 'messages: Unexpected role "system".'}, "system", "user"),
        (400, {"message": "Conversation roles must alternate user/assistant/user/assistant/..."}, "system", "user"),
        (400, {"message": "Developer instruction is not enabled for models/gemma-3-27b-it"}, "system", "user"),
        (413, b"<html>413 Request Entity Too Large", "encoding", "jpeg"),
        (415, None, "encoding", "jpeg"),
        (400, {"message": "image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes"}, "encoding", "jpeg"),
        (400, {"message": "Unsupported image format: png. Use jpeg."}, "encoding", "jpeg"),
        (422, {"message": "invalid image type, only image/jpeg is accepted"}, "encoding", "jpeg"),
        (
            400,
            {"message": "This model only support stream mode, please enable the stream parameter to access it."},
            "stream",
            True,
        ),
        (400, {"message": "Non-streaming requests are not supported"}, "stream", True),
        (400, {"detail": "stream must be true"}, "stream", True),
    ],
)
def test_a_refusal_names_what_to_change(status, body, field, value):
    found = change(FORM, status, body)
    assert found is not None
    assert (found.field, found.value) == (field, value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"message": "Unsupported parameter: 'max_tokens'"}),
        (401, {"message": "temperature is not supported"}),
        (400, {"message": "'max_tokens' is too large: 8192. This model's maximum context length is 4096 tokens"}),
        (400, {"message": "maximum context length is 9"}),
        (413, {"message": "Request too large for model, limit 6000 tokens per minute"}),
        (400, {"message": "image dimensions exceed max allowed size: 8000 pixels"}),
        (400, {"message": "image_url is only supported by certain models"}),
        (404, {"message": "No endpoints found that support image input"}),
        (404, {"message": "model 'x' not found"}),
        (422, {"detail": [{"loc": ["body", "top_p"], "msg": "Extra inputs are not permitted", "input": "max_tokens"}]}),
        (400, {"message": "x" * 5000 + " temperature is not supported"}),
        (400, {"message": ["temperature is not supported"], "param": {"a": 1}, "detail": 3, "error": None}),
        (400, {"detail": [None, 1, {"loc": [None], "msg": None}, {"loc": 3}]}),
        (400, [[["temperature"]]]),
        (400, b"\xff\xfe\x00"),
        (400, 7),
        (400, None),
    ],
)
def test_other_refusals_and_hostile_ones_change_nothing(status, body):
    assert change(FORM, status, body) is None


def test_nothing_is_changed_twice():
    changed = RequestForm(64, "max_completion_tokens", None, "user", "jpeg", True)
    for text in ("max_tokens is not supported", "temperature is not supported", "System role not supported", "png"):
        assert change(changed, 400, {"message": text}) is None
    assert change(changed, 413, None) is None


def test_a_gateway_that_refuses_everything_is_asked_in_its_form(nano, caplog):
    caplog.set_level(logging.WARNING, "genseg_hub.reasoners.server")
    image = Image.new("RGB", (64, 64), "white")
    prompts = [Prompt(image, genseg.messages(image.size, f"the star {n}"), n) for n in range(6)]
    with simulated("gateway", nano.reasoner) as server:
        asked = reasoner(server, concurrency=6)
        first = ask(asked, prompts)
        tried = len(server.requests)
        assert ask(asked, prompts) == first
        requests = server.requests[tried:]
    assert all(isinstance(answer, Generation) and not answer.truncated for answer in first)
    here = [answer.text.replace("<answer>", "").replace("</answer>", "") for answer in ask(nano.reasoner, prompts, 1)]
    assert [answer.text for answer in first] == here
    assert len(requests) == 6
    for request in requests:
        assert sorted(request) == ["max_completion_tokens", "messages", "model", "stream"]
        assert [message["role"] for message in request["messages"]] == ["user"]
        assert request["messages"][0]["content"][1]["text"].startswith(genseg.INSTRUCTIONS)
        assert shown(request).format == "JPEG"
        assert shown(request).info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    told = [record.message for record in caplog.records if " refuses " in record.message]
    assert len(told) == len(set(told)) == 6  # each change once, however many requests met it
    assert 6 + 6 <= tried <= 6 * 7  # a prompt meets the refusals that no other has met before it


def test_requests_that_meet_different_refusals_keep_all_changes():
    """Let a slow request meet a refusal of a form that the others have left behind."""
    late, changed = threading.Event(), threading.Event()

    def reply(request):
        if expression(request).endswith("slow") and request["messages"][0]["role"] == "system":
            late.wait(60)
        if isinstance(request["messages"][0]["content"], list) and request["messages"][0]["role"] == "system":
            return refused(400, "system content must be a string")
        if request["messages"][0]["role"] == "system":
            return refused(400, "system role is not supported")
        if expression(request).endswith("quick"):
            late.set()
            changed.set()
        return said("[]")

    with serving(reply) as server:
        asked = reasoner(server)
        assert ask(asked, about("quick", "slow")) == [Generation("[]", False)] * 2
        count = len(server.requests)
        assert ask(asked, about("next")) == [Generation("[]", False)]
    assert len(server.requests) == count + 1
    assert changed.is_set()


def test_an_image_that_is_too_large_as_jpeg_too_is_an_error_and_never_made_smaller(tmp_path):
    with serving(lambda request: (413, {}, {"message": "Payload too large"})) as server:
        (answer,) = ask(reasoner(server), about("x", size=(40, 30)))
    assert isinstance(answer, ReasonerError)
    assert "answered 413: Payload too large" in str(answer)
    assert [shown(request).format for request in server.requests] == ["PNG", "JPEG"]
    assert {shown(request).size for request in server.requests} == {(40, 30)}


def test_files_of_both_encodings_are_removed(tmp_path):
    seen = []

    def reply(request):
        seen.append(request["messages"][-1]["content"][0]["image_url"]["url"])
        return refused(415, "") if seen[-1].endswith(".png") else said("[]")

    with serving(reply) as server:
        assert ask(reasoner(server, media_folder=tmp_path), about("x", "y"))[0] == Generation("[]", False)
    assert {url.rpartition(".")[2] for url in seen} == {"png", "jpeg"}
    assert list(tmp_path.rglob("*.*eg")) == list(tmp_path.rglob("*.png")) == []


@pytest.mark.parametrize(
    ("reply", "generation"),
    [
        (said("[]", "eos"), Generation("[]", False)),
        (said("[]", "STOP"), Generation("[]", False)),
        (said("[]", "end_turn"), Generation("[]", False)),
        (said("[]", None), Generation("[]", False)),
        (said("[", "MAX_TOKENS"), Generation("[", True)),
        (said("[", "length"), Generation("[", True)),
        (said([{"type": "text", "text": "[1"}, {"type": "text", "text": "]"}]), Generation("[1]", False)),
        (said("", reasoning="so []"), Generation("<think>so []</think>", False)),
        (said(None, reasoning_content="so []"), Generation("<think>so []</think>", False)),
        (said("[]", reasoning=""), Generation("[]", False)),
    ],
)
def test_answers_of_all_shapes_are_read(reply, generation):
    with serving(lambda request: reply) as server:
        assert ask(reasoner(server), about("x")) == [generation]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (said([]), "gave no text, but"),
        (said([{"type": "image"}]), "gave no text, but"),
        (said([{"type": "text", "text": 3}]), "gave no text, but"),
        (said("x", ["stop"]), "broke the answer off"),
        (said("x", "content_filter"), "broke the answer off (finish_reason content_filter)"),
    ],
)
def test_answers_without_text_are_errors(reply, message):
    with serving(lambda request: reply) as server:
        (answer,) = ask(reasoner(server), about("x"))
    assert isinstance(answer, ReasonerError)
    assert message in str(answer)


def streamed(*events) -> tuple:
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return 200, {"Content-Type": "text/event-stream"}, "".join(f"data: {line}\n\n" for line in lines).encode()


def piece(finish_reason=None, **delta) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


@pytest.mark.parametrize(
    ("reply", "generation"),
    [
        (streamed(piece(content="["), piece(content="]"), piece("stop"), "[DONE]"), Generation("[]", False)),
        (
            streamed(piece(reasoning="re"), piece(reasoning="d"), piece("stop", content="[]"), {"choices": []}),
            Generation("<think>red</think>[]", False),
        ),
        (streamed(piece(reasoning_content="re"), piece("length")), Generation("<think>re", True)),
        (streamed(piece(content="[]"), "[DONE]"), Generation("[]", False)),
        (streamed(), "gave no piece of a chat completion"),
        (streamed({"choices": None}), "gave no piece of a chat completion"),
        (streamed(piece(content=3)), "gave no text, but 3"),
        (streamed({"error": {"message": "out of memory"}}), "out of memory"),
        ((200, {}, b"<html>"), "gave no piece of a chat completion"),
    ],
)
def test_answers_in_pieces_are_joined(reply, generation):
    def answer(request):
        return reply if request.get("stream") else refused(400, "streaming is required")

    with serving(answer) as server:
        (found,) = ask(reasoner(server), about("x"))
    if isinstance(generation, Generation):
        assert found == generation
    else:
        assert isinstance(found, ReasonerError)
        assert generation in str(found)


@pytest.mark.parametrize("framed", [True, False])
def test_a_stream_whose_server_died_is_cut(framed):
    """The connection ends, and nothing else says that the answer has ended."""
    status, headers, body = streamed(piece(content="there is no d"))
    headers |= {} if framed else {"Content-Length": "", "Connection": "close"}

    def answer(request):
        return (status, headers, body) if request.get("stream") else refused(400, "streaming is required")

    with serving(answer) as server:
        assert ask(reasoner(server), about("x")) == [Generation("there is no d", not framed)]


def thinking(request):
    """Think for more tokens than 64, as a thinking model on Ollama does."""
    if request["max_tokens"] < 8192:
        return said("", "length", reasoning="first I look at")
    return said("[]", reasoning="first I look at all of it")


def test_an_unfinished_thought_gets_more_tokens_once_and_for_all(caplog):
    caplog.set_level(logging.WARNING, "genseg_hub.reasoners.server")
    with serving(thinking) as server:
        asked = reasoner(server, thinking_tokens=8192)
        whole = Generation("<think>first I look at all of it</think>[]", False)
        assert ask(asked, about("a", "b")) == [whole] * 2
        assert ask(asked, about("c")) == [whole]
        own = ask(reasoner(server), about("c"))
    limits = [request["max_tokens"] for request in server.requests]
    assert (sorted(limits[:4]), limits[4:]) == ([64, 64, 8192, 8192], [8192, 64])  # two are open at once
    assert [record.message for record in caplog.records if "thinks for long" in record.message] == [
        "served thinks for long; its answers may now have 8192 tokens"
    ]
    assert own == [Generation("<think>first I look at", True)]


@pytest.mark.parametrize("text", ["<think>first I", "so far [{"])
def test_only_an_unfinished_thought_gets_more_tokens(text):
    with serving(lambda request: said(text, "length")) as server:
        assert ask(reasoner(server, thinking_tokens=8192), about("x")) == [Generation(text, True)]
    assert len(server.requests) == (2 if "<think>" in text else 1)


def test_a_thinking_model_begins_inside_its_thought():
    with serving(lambda request: said("first I", "length")) as server:
        server.models = (200, {}, {"data": [{"id": "Qwen/Qwen3-VL-8B-Thinking", "owned_by": "vllm"}]})
        assert ask(reasoner(server), about("x")) == [Generation("<think>first I", True)]


def test_a_limit_that_the_server_refuses_is_tried_once(caplog):
    def reply(request):
        if request["max_tokens"] > 64:
            return refused(400, "'max_tokens' is too large: 8192. This model's maximum context length is 4096 tokens")
        return said("", "length", reasoning="first")

    with serving(reply) as server:
        asked = reasoner(server, thinking_tokens=8192)
        for _ in range(2):
            assert ask(asked, about("x")) == [Generation("<think>first", True)]
    assert [request["max_tokens"] for request in server.requests] == [64, 8192, 64]
    assert "a thought stays unfinished, because with 8192 tokens the server" in caplog.text


def test_the_choice_of_a_model_is_told(caplog):
    with serving(lambda request: said("")) as server:
        asked = reasoner(server)
        assert asked.choice.why == "the only model of the server"
        assert f"asking served on {server.url}: the only model of the server" in caplog.text
        caplog.clear()
        assert ServerReasoner(server.url, "served", 64).choice.why == ""
        assert caplog.text == ""


def test_a_stream_that_does_not_end_in_time_is_given_up():
    def reply(request):
        if not request.get("stream"):
            return refused(400, "streaming is required")
        head = streamed(piece(content="["))
        return head[0], head[1] | {"Content-Length": "10000"}, head[2]

    with serving(reply) as server:
        (answer,) = ask(reasoner(server, timeout=1.0), about("x"))
    assert isinstance(answer, ReasonerError)
    assert "no answer" in str(answer)


def test_images_are_encoded_without_loss_until_a_server_refuses():
    with serving(lambda request: said("[]")) as server:
        ask(reasoner(server), about("x", size=(30, 20)))
    (request,) = server.requests
    data = request["messages"][-1]["content"][0]["image_url"]["url"].partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(data))).format == "PNG"
