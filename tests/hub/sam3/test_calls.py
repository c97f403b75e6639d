"""The agent's calls: requests that stand alone, and answers that may hold anything."""

import contextlib
import json

import pytest
from genseg_hub.sam3 import calls
from genseg_hub.sam3.calls import EXAMINE, NONE, SEGMENT, SELECT, Call, CallError, accepts, read
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('Cups. {"tool": "segment_phrase", "phrase": "red cup"}', Call(SEGMENT, "red cup")),
        ('```json\n{"tool": "segment_phrase", "phrase": " red\\ncup "}\n```', Call(SEGMENT, "red cup")),
        ('<tool>{"name": "segment_phrase", "parameters": {"text_prompt": "cup"}}</tool>', Call(SEGMENT, "cup")),
        ('<tool_call>{"name": "report_no_mask", "arguments": {}}</tool_call>', Call(NONE)),
        ('{"tool": "examine_each_mask"} {"tool": "report_no_mask"}', Call(EXAMINE)),
        ('<think>{"tool": "report_no_mask"}</think>{"tool": "examine_each_mask"}', Call(EXAMINE)),
        ('{"a": {"tool": "x"}} {"tool": "select_masks_and_return", "masks": [3, 1, 3]}', Call(SELECT, masks=(1, 3))),
        ('{"name": "select_masks_and_return", "parameters": {"final_answer_masks": [2]}}', Call(SELECT, masks=(2,))),
        ('{broken {"tool": "examine_each_mask"}', Call(EXAMINE)),
        ('{"tool": "segment_phrase", "phrase": "<|im_end|>"}', Call(SEGMENT, "< |im_end|>")),
    ],
)
def test_a_call_is_read(text, call):
    assert read(text, 3, {}) == call


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON object"),
        ("I select mask 1.", "no JSON object"),
        ('{"tool": "delete_files"}', "no JSON object"),
        ('{"tool": ["segment_phrase"]}', "no JSON object"),
        ('<think>{"tool": "examine_each_mask"}', "no JSON object"),
        ('{"tool": "segment_phrase"}', 'needs a "phrase"'),
        ('{"tool": "segment_phrase", "phrase": 7}', 'needs a "phrase"'),
        ('{"tool": "segment_phrase", "phrase": " "}', 'needs a "phrase"'),
        ('{"tool": "segment_phrase", "phrase": "\\u0000"}', "the expression is empty"),
        ('{"tool": "segment_phrase", "phrase": "' + "x" * 300 + '"}', "may have 200 characters"),
        ('{"tool": "segment_phrase", "phrase": "CUP"}', 'the phrase "CUP" was used already'),
        ('{"tool": "select_masks_and_return"}', 'needs "masks", a list'),
        ('{"tool": "select_masks_and_return", "masks": 1}', 'needs "masks", a list'),
        ('{"tool": "select_masks_and_return", "masks": []}', "1 to 3"),
        ('{"tool": "select_masks_and_return", "masks": [0]}', "1 to 3"),
        ('{"tool": "select_masks_and_return", "masks": [1, 4]}', "1 to 3"),
        ('{"tool": "select_masks_and_return", "masks": [true]}', "1 to 3"),
        ('{"tool": "select_masks_and_return", "masks": ["1"]}', "1 to 3"),
    ],
)
def test_what_is_no_call_is_told(text, message):
    with pytest.raises(CallError, match=message):
        read(text, 3, {"cup": 3})


@pytest.mark.parametrize("tool", [EXAMINE, SELECT])
def test_without_masks_there_is_nothing_to_choose(tool):
    with pytest.raises(CallError, match="there are no masks yet"):
        read(json.dumps({"tool": tool, "masks": [1]}), 0, {})


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('Whole. {"verdict": "accept"}', True),
        ('{"verdict": "Reject"}', False),
        ('<think>{"verdict": "accept"}</think>{"verdict": "reject"}', False),
        ("accept", None),
        ('{"verdict": 1}', None),
        ("", None),
    ],
)
def test_a_verdict_is_read(text, verdict):
    assert accepts(text) is verdict


_MARKS = ["{", "}", "[", "]", '"', ":", ",", "<think>", "</think>", "\ud800", "\x00", "1", "-1", "1e999", "NaN", "null"]
_NAMES = ["tool", "masks", "phrase", SEGMENT, SELECT, EXAMINE]
_WORDS = st.sampled_from([*_MARKS, *_NAMES, "{" * 3000, '{"a":' * 3000, "[" * 3000])


@given(st.lists(_WORDS | st.text(max_size=5), max_size=40).map("".join))
def test_no_answer_raises_anything_else(text):
    with contextlib.suppress(CallError):
        assert all(1 <= number <= 2 for number in read(text, 2, {"cup": 2}).masks)
    accepts(text)


def test_a_request_says_what_was_tried_and_what_was_wrong():
    system, user = calls.request("the <think> cup", "cup", 2, {"mug": 0, "cup": 2}, "it was cut", 1)
    text = user["content"][-1]["text"]
    assert user["content"][0] == {"type": "image"}
    assert "Expression: the < think> cup" in text
    assert '"mug" (no masks), "cup" (2 masks)' in text
    assert "could not be used: it was cut." in text
    assert "This is the last call" in text
    assert all(tool in system["content"][0]["text"] for tool in (SEGMENT, EXAMINE, SELECT, NONE))
