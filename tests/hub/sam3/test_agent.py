"""The SAM 3 agent: dialogues with a served reasoner whose answers the test scripts, and with nano in this process."""

import json

import numpy as np
import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.checkpoints import fingerprint
from genseg_hub.errors import CheckpointError
from genseg_hub.sam3 import agent, pictures
from genseg_hub.schema import Failure, ReferringExample, ResponseError
from genseg_hub.segmenters.words import Found
from PIL import Image

from tests.helpers.chat_server import expression, in_pieces, said, serving, shown
from tests.helpers.sam3_words import FOUND, NOT_FOUND, picture

ONE, MANY = FOUND[3], FOUND[2]  # phrases
SERVED = {"object": "list", "data": [{"id": "Qwen/Qwen3-VL-8B-Instruct", "object": "model"}]}


def segment(phrase):
    return json.dumps({"tool": "segment_phrase", "phrase": phrase})


def select(*numbers):
    return json.dumps({"tool": "select_masks_and_return", "masks": numbers})


EXAMINE, NONE = '{"tool": "examine_each_mask"}', '{"tool": "report_no_mask"}'


class Script:
    """Answers by the expression: what is asked about an expression is answered in the order of its list."""

    def __init__(self, answers):
        self.left = {words: list(texts) for words, texts in answers.items()}
        self.requests = []

    def __call__(self, request):
        asked = expression(request)
        self.requests.append((asked, shown(request).convert("RGB"), request["messages"][0]["content"]))
        words = asked.partition("\n")[0].removeprefix("Expression: ")
        text = self.left[words].pop(0)
        if request.get("stream"):
            return in_pieces([{"content": text[:5]}, {"content": text[5:]}])
        status, headers, body = said(text)
        return status, headers, body | {"usage": {"prompt_tokens": 900, "completion_tokens": 7, "total_tokens": 907}}


@pytest.fixture(autouse=True)
def _keep_all(request, monkeypatch):
    """Keep masks that overlap, because masks of random weights do."""
    if "overlaps" not in request.node.name:
        monkeypatch.setattr(agent, "_OVERLAP", 1.0)


@pytest.fixture
def asked(sam3_folder):
    """Return a function that runs a script and returns the predictions, by expression."""

    def run(answers, batch_size=4, image=None):
        script = Script(answers)
        with serving(script) as server:
            server.models = (200, {}, SERVED)
            model = GenSegR1.from_pretrained(
                None, device="cpu", server=server.url, segmenter=f"sam3-agent:{sam3_folder}"
            )
            image = picture() if image is None else image
            examples = [ReferringExample(image, words) for words in answers]
            results = dict(zip(answers, model.segment_many(examples, batch_size), strict=True))
        assert not any(script.left.values()), "every scripted answer was asked for"
        return results, script

    return run


def kept(words, phrase):
    """Return what the agent makes of a phrase: the best masks first, without overlaps."""
    (found,) = words.find(picture(), [phrase])
    return agent._without_overlaps(found)


def test_the_selected_masks_are_the_answer(asked, words):
    masks = kept(words, MANY)
    assert len(masks) >= 2
    results, script = asked({"the first": ["Look.\n" + segment(MANY), select(2)]})
    result = results["the first"]
    assert result.scores == (pytest.approx(masks[1][2]),)
    assert (result.masks[0] == agent.decode_mask(masks[1][1])).all()
    assert result.response.instances[0].box == pytest.approx(masks[1][0])
    assert result.response.error is None
    assert result.response.tokens == 14
    assert result.response.reasoning == (
        f'Round 1: Look.\n{segment(MANY)}\nSAM 3 finds {len(masks)} masks for "{MANY}".\nRound 2: {select(2)}'
    )
    (first, image, _), (second, numbered, _) = script.requests
    assert "There are no masks yet" in first
    assert image.size == (140, 90)
    assert f'{len(masks)} masks of "{MANY}"' in second
    assert numbered.size == (2 * 140 + 8, 90)
    assert "Calls left: 9." in second


def test_a_report_of_no_mask_is_no_target(asked):
    results, _ = asked({"a unicorn": [segment(NOT_FOUND[0]), NONE], "a dragon": [NONE]})
    assert all(result.response.no_target for result in results.values())
    assert f'finds no masks for "{NOT_FOUND[0]}"' in results["a unicorn"].response.reasoning


def test_examined_masks_are_shown_one_by_one_and_rejected_ones_go(asked, words):
    masks = kept(words, MANY)
    verdicts = ['{"verdict": "reject"}', *(['It fits. {"verdict": "accept"}'] * (len(masks) - 2)), "Hard to say."]
    results, script = asked({"it": [segment(MANY), EXAMINE, *verdicts, select(1)]})
    assert results["it"].scores == (pytest.approx(masks[1][2]),)
    reasoning = results["it"].response.reasoning
    assert 'Mask 1 is rejected: {"verdict": "reject"}' in reasoning
    assert f"Mask {len(masks)} is kept, because there is no verdict: Hard to say." in reasoning
    assert f"{len(masks) - 1} of {len(masks)} masks are kept." in reasoning
    assert all("You judge one mask" in str(request[2]) for request in script.requests[2:-1])
    assert f"{len(masks) - 1} masks of" in script.requests[-1][0] or len(masks) == 2


def test_masks_that_are_all_rejected_leave_the_search_open(asked, words):
    count = len(kept(words, MANY))
    answers = [segment(MANY), EXAMINE, *['{"verdict": "reject"}'] * count, select(1), segment(ONE), select(1)]
    results, script = asked({"it": answers})
    assert "there are no masks yet" in results["it"].response.reasoning
    assert len(results["it"].masks) == 1
    assert f'Phrases so far: "{MANY}" (no masks)' in script.requests[-3][0]


def test_what_cannot_be_used_is_told_and_counts(asked):
    wrong = ["I cannot.", '{"tool": "rm"}', segment(ONE), segment(ONE.upper()), select(99), select(1)]
    results, script = asked({"it": wrong})
    assert results["it"].masks
    told = [text.partition("could not be used: ")[2].partition(".\n")[0] for text, _, _ in script.requests]
    assert told[0] == told[3] == ""
    assert "no JSON object" in told[1]
    assert "was used already" in told[4]
    assert "must be of masks in the picture" in told[5]


def test_the_rounds_end(asked):
    results, script = asked({"it": ["no"] * agent.ROUNDS, "other": [NONE]})
    assert len(script.requests) == agent.ROUNDS + 1
    response = results["it"].response
    assert response.error == ResponseError.TOO_MANY_ROUNDS
    assert not response.no_target
    assert response.reasoning.endswith(f"The search ended after {agent.ROUNDS} rounds without a selection.")
    assert "This is the last call" in [text for text, _, _ in script.requests if "Expression: it" in text][-1]


def test_the_last_round_examines_nothing(asked):
    results, script = asked({"it": [segment(MANY), *["no"] * (agent.ROUNDS - 2), EXAMINE]})
    assert "no call is left after an examination" in results["it"].response.reasoning
    assert results["it"].response.error == ResponseError.TOO_MANY_ROUNDS
    assert len(script.requests) == agent.ROUNDS


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_many_dialogues_go_on_at_once(asked, batch_size):
    answers = {f"thing {i}": [segment(FOUND[i % 4]), *["?"] * (i % 3), select(1)] for i in range(9)}
    results, _ = asked(answers, batch_size)
    for i, result in enumerate(results.values()):
        assert f'for "{FOUND[i % 4]}"' in result.response.reasoning
        assert len(result.masks) == 1


def test_hostile_text_ends_as_text(asked):
    nasty = "\x00\x07<think>" + "{" * 5000 + "\u202e" + '{"tool": "select_masks_and_return", "masks": [1e999]}' * 500
    results, _ = asked({"it": [nasty] * agent.ROUNDS})
    response = results["it"].response
    assert response.cut
    assert "\x00" not in response.reasoning + response.text
    assert len(response.reasoning) <= 20_000


def test_a_failing_server_fails_its_expression_alone(sam3_folder):
    def reply(request):
        if "Expression: bad" in expression(request):
            return 400, {}, {"error": {"message": "too large"}}
        return said(NONE)

    with serving(reply) as server:
        server.models = (200, {}, SERVED)
        model = GenSegR1.from_pretrained(None, device="cpu", server=server.url, segmenter=f"sam3-agent:{sam3_folder}")
        examples = [ReferringExample(picture(), words) for words in ("good", "bad", "fine", " ")]
        results = list(model.segment_many(examples, 2))
    assert [isinstance(result, Failure) for result in results] == [False, True, False, True]
    assert "too large" in results[1].message


def test_a_question_of_the_app_tells_each_step(sam3_folder):
    script = Script({"it": [segment(ONE), select(1)]})
    with serving(script) as server:
        server.models = (200, {}, SERVED)
        model = GenSegR1.from_pretrained(None, device="cpu", server=server.url, segmenter=f"sam3-agent:{sam3_folder}")
        states = list(model.ask(picture(), "it"))
    assert states[-1].prediction.masks
    assert any(f'masks for "{ONE}"' in state.text or f'mask for "{ONE}"' in state.text for state in states[:-2])
    assert model.checkpoint.pinned == f"Qwen/Qwen3-VL-8B-Instruct+sam3-agent:{sam3_folder}"


def test_a_reasoner_in_this_process_takes_part(sam3_folder):
    model = GenSegR1.from_pretrained(f"nano+sam3-agent:{sam3_folder}", device="cpu", max_new_tokens=8)
    results = list(model.segment_many([ReferringExample(picture(), words) for words in ("a", "b", "c")], 2))
    for result in results:  # nano knows no tools, and says what it always says
        assert result.response.error == ResponseError.TOO_MANY_ROUNDS
        assert result.response.reasoning.count("Round ") == agent.ROUNDS
        assert result.response.tokens == 8 * agent.ROUNDS
    assert list(model.ask(picture(), "a"))[-1].prediction.response.error == ResponseError.TOO_MANY_ROUNDS


def test_an_agent_is_named_pinned_and_refused(sam3_folder, tmp_path):
    name = f"nano+sam3-agent:{sam3_folder}"
    checkpoints.check_available(name)
    found = checkpoints.pull(name)
    assert found.agent
    assert found.pinned == name
    who = fingerprint.identify(name)
    assert who["model"] == "nano+sam3-agent:by-words0/sam3"
    assert who != fingerprint.identify("nano")
    with pytest.raises(CheckpointError, match="cannot be trained: it is an agent; name its reasoner alone, nano"):
        found.check_reasons("trained")
    with pytest.raises(CheckpointError, match="an agent is two checkpoints"):
        GenSegR1.from_pretrained(name, device="cpu").save_pretrained(tmp_path / "new")
    assert checkpoints.split_agent("sam3-agent") == ("facebook/sam3", True)
    assert checkpoints.split_agent("sam3-agent:me/x@v1") == ("me/x@v1", True)
    assert checkpoints.split_agent("facebook/sam3") == ("facebook/sam3", False)
    for bad, message in (
        ("nano+sam3-agent:", "must be sam3-agent, or sam3-agent: and a Hub id or folder"),
        ("nano+sam3-agent:nano", "needs SAM 3 that takes words, with the model_type sam3 or sam3_video"),
        ("nano+sam3-agent:./none", "neither a usable folder nor a Hub id"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoints.check_available(bad)


def test_masks_that_a_better_one_overlaps_are_left_out():
    def box(x1, x2):
        mask = np.zeros((10, 40), bool)
        mask[:, x1:x2] = True
        return mask

    masks = (box(0, 10), box(5, 15), box(30, 40), box(7, 30), box(31, 33))
    found = Found(tuple((float(i), 0.0, 1.0, 1.0) for i in range(5)), masks, (0.6, 0.9, 0.7, 0.8, 0.95))
    # 4 is inside 2; 1 shares half with 0 and 8 of its 10 columns with 3.
    assert [box[0] for box, _, _ in agent._without_overlaps(found)] == [4.0, 1.0]


def test_pictures_show_the_masks():
    image = Image.new("RGB", (100, 60), (10, 10, 10))
    mask = np.zeros((60, 100), bool)
    mask[10:20, 20:40] = True
    numbered = np.asarray(pictures.numbered(image, [mask]))
    assert numbered.shape == (60, 208, 3)
    assert (numbered[:, :100] == 10).all()
    assert (numbered[10:20, 128:148] != 10).any()
    enlarged = pictures.enlarged(image, mask)
    assert enlarged.height == 60
    assert enlarged.width > 200
    assert pictures.enlarged(image, np.zeros((60, 100), bool)).height == 60
