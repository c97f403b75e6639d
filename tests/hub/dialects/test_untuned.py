"""Untuned checkpoints answer in many forms; a form that may mean something else is an error, never a box."""

import json

import pytest
from genseg_hub import dialects
from genseg_hub.answers import read
from genseg_hub.dialects import glm4v, internvl, qwen2_5_vl, qwen2_vl, qwen3_vl
from genseg_hub.dialects._words import says_nothing
from genseg_hub.schema import InstancePrompt, ResponseError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers.strategies import middle_boxes

UNTUNED = [name for name in dialects.names() if not dialects.get_dialect(name).TUNED]
SIZE = (1000, 1000)
A, B = [100, 200, 300, 400], [500, 510, 700, 720]


def boxes(text: str, **kwargs) -> list[list[float]]:
    """Return the boxes of an answer that has no error."""
    response = qwen3_vl.parse(text, SIZE, **kwargs)
    assert response.error is None, response
    return [list(instance.box) for instance in response.instances]


def error(text: str, **kwargs) -> ResponseError | None:
    """Return the error of an answer that gives no instance."""
    response = qwen3_vl.parse(text, SIZE, **kwargs)
    assert not response.instances, response
    return response.error


def test_every_family_has_one_dialect():
    assert dialects.model_types() == {
        "qwen3_vl": "qwen3_vl",
        "qwen3_vl_moe": "qwen3_vl",
        "qwen3_5": "qwen3_vl",
        "qwen3_5_moe": "qwen3_vl",
        "qwen2_5_vl": "qwen2_5_vl",
        "qwen2_vl": "qwen2_vl",
        "glm4v": "glm4v",
        "glm4v_moe": "glm4v",
        "glm46v": "glm4v",
        "internvl": "internvl",
    }
    assert sorted(UNTUNED) == sorted(set(dialects.model_types().values()))
    assert all(dialects.get_dialect(name).FRAME for name in dialects.names())


# Each form is a function of a list of boxes.
FORMS = {
    "objects": lambda found: json.dumps([{"bbox_2d": box, "label": "dog"} for box in found]),
    "fenced": lambda found: f"Here:\n```json\n{json.dumps([{'bbox_2d': box} for box in found], indent=1)}\n```\nDone.",
    "lines": lambda found: "\n".join(json.dumps({"bbox": box}) for box in found),
    "no commas": lambda found: "[" + "\n".join(json.dumps({"box": box}) for box in found) + "]",
    "no end": lambda found: json.dumps([{"bbox_2d": box} for box in found])[:-1],
    "bare lists": json.dumps,
    "one key": lambda found: json.dumps({"label": "dogs", "bounding_boxes": found}),
    "repeated keys": lambda found: "{" + ",".join(f'"label": "dog", "bbox_2d": {json.dumps(b)}' for b in found) + "}",
    "wrapper": lambda found: json.dumps({"objects": [{"bbox": box} for box in found], "count": len(found)}),
    "named wrapper": lambda found: json.dumps({f"dog {i}": {"bounding_box": box} for i, box in enumerate(found)}),
    "python": lambda found: repr([{"bbox_2d": box, "label": "the dog"} for box in found]),
    "tokens": lambda found: "".join(f"<|box_start|>({b[0]},{b[1]}),({b[2]},{b[3]})<|box_end|>" for b in found),
    "corners": lambda found: "the dog" + "".join(f"({b[0]}, {b[1]}), ({b[2]}, {b[3]})" for b in found),
    "ref": lambda found: f"<ref>dog</ref><box>{json.dumps(found)}</box>",
    "begin_of_box": lambda found: f"It is <|begin_of_box|>{json.dumps(found)}<|end_of_box|>.",
    "answer": lambda found: f"<answer>{json.dumps([{'bbox_2d': box} for box in found])}</answer>",
    "thought": lambda found: f"<think>[1,2,3,4]?</think>{json.dumps([{'bbox_2d': box} for box in found])}",
    "only a closing tag": lambda found: f"Maybe [9,9,99,99].\n</think>\n{json.dumps(found)}",
    "all in the thought": lambda found: f"<think>The dog. {json.dumps([{'bbox_2d': box} for box in found])}</think>",
}


@pytest.mark.parametrize("name", UNTUNED)
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(found=middle_boxes)
@example(found=[A])
@example(found=[A, B])
def test_boxes_in_every_form_are_read_back(name, form, found):
    response = dialects.get_dialect(name).parse(FORMS[form](found), SIZE, shown_size=SIZE)
    assert response.error is None
    assert [list(map(round, instance.box)) for instance in response.instances] == found


# A reasoner puts <think> in front of an answer that begins in a thought, so no such cut ends in a guess.
@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"only a closing tag"}))
@settings(max_examples=5, deadline=None)
@given(found=middle_boxes)
def test_every_cut_keeps_true_boxes_or_none(form, found):
    text = FORMS[form](found)
    for end in range(len(text)):
        cut = qwen3_vl.parse(text[:end], SIZE, truncated=True)
        assert "</answer>" in text[:end] or cut.error in (ResponseError.TRUNCATED, ResponseError.TRUNCATED_THOUGHT)
        for response in (cut, qwen3_vl.parse(text[:end], SIZE)):
            assert [list(map(round, i.box)) for i in response.instances] == found[: len(response.instances)]


@pytest.mark.parametrize("name", dialects.names())
@pytest.mark.parametrize("tag", ["think", "thinking"])
@settings(max_examples=30, deadline=None)
@given(
    found=middle_boxes, truncated=st.booleans(), before=st.sampled_from(["", "Sure.", "<think>a</think>[[1,2,9,9]]"])
)
def test_an_open_thought_gives_no_instance(name, tag, found, truncated, before):
    guess = FORMS["objects"](found)
    for text in (guess, f"<answer>{guess}</answer>", f"<bbox>{found[0]}</bbox>", guess + " Wait"):
        response = dialects.get_dialect(name).parse(f"{before}<{tag}>Perhaps {text}", SIZE, truncated)
        assert response.error is ResponseError.TRUNCATED_THOUGHT
        assert not response.instances
        assert response.reasoning.endswith(f"Perhaps {text}")


@pytest.mark.parametrize("name", UNTUNED)
def test_a_thought_that_ends_with_json_is_the_answer_if_nothing_follows(name):
    parse = dialects.get_dialect(name).parse
    assert parse("<think>It is left. [[100, 200, 300, 400]]\n</think>\n", SIZE).error is None
    assert parse("<think>There is none. []</think>", SIZE).no_target
    for text in (
        "<think>[[100, 200, 300, 400]] or not</think>",
        "<think>[[100, 200, 300, 400]]</think>It is left.",
    ):
        assert parse(text, SIZE).error is not None
        assert not parse(text, SIZE).instances
    assert parse("<think>[[100, 200, 300, 400]]</think>", SIZE, truncated=True).error is ResponseError.TRUNCATED


@pytest.mark.parametrize(
    "guess",
    [
        f'Maybe {{"bbox_2d": {A}}}? Wait, the user said the left',
        f"<answer>[{A}]</answer>? Wait",
        f"{A} or rather to the left of",
        f"The box is {A}. But then {B} and so",
    ],
)
def test_json_before_prose_is_a_guess_if_the_answer_is_cut(guess):
    assert error(guess, truncated=True) is ResponseError.TRUNCATED


def test_a_cut_list_counts_without_the_guess_before_it():
    response = qwen3_vl.parse(f'Maybe {A}? No: [{{"bbox_2d": {B}}}, {{"bbox_2d": [1, 2', SIZE, truncated=True)
    assert response.error is ResponseError.TRUNCATED
    assert [list(instance.box) for instance in response.instances] == [B]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"box_2d": [300, 12, 905, 410], "label": "dog"}]', ResponseError.WRONG_SCHEMA),
        ('{"box_2d": [300, 12, 905, 410], "label": "do', ResponseError.INVALID_JSON),
        ('[{"bbox_2d": [0.2, 0.3, 0.5, 0.8]}]', ResponseError.WRONG_SCALE),
        ("[0, 0, 1, 1]", ResponseError.WRONG_SCALE),
        ('{"point_2d": [0.5, 0.25]}', ResponseError.WRONG_SCALE),
        ('[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [900, 200, 1400, 400]}]', ResponseError.WRONG_SCALE),
        ('{"point_2d": [1300, 200]}', ResponseError.WRONG_SCALE),
        ('{"point_2d": [1005, 200]}', ResponseError.POINT_OUT_OF_IMAGE),
        ("[533, 132, 457]", ResponseError.WRONG_SCHEMA),
        ("[[100, 200], [300, 400]]", ResponseError.WRONG_SCHEMA),
        ("(1,2),(3,4),(5,6)", ResponseError.WRONG_SCHEMA),
        ('[{"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9]}]', ResponseError.WRONG_SCHEMA),
        ('{"bbox_2d": {"x1": 1}}', ResponseError.WRONG_SCHEMA),
        ('{"bbox_2d": [1, 2, 3, "4"]}', ResponseError.WRONG_SCHEMA),
        ('{"bbox_2d": [1, 2, 3, 1e999]}', ResponseError.WRONG_SCHEMA),
        ('{"bbox_2d": "left"}', ResponseError.WRONG_SCHEMA),
        ('{"label": "dog"}', ResponseError.WRONG_SCHEMA),
        ("{}", ResponseError.WRONG_SCHEMA),
        ("null and void", ResponseError.INVALID_JSON),
        ('[{"bbox_2d": [1, 2, 3, 4], "x"]}, "x"}', ResponseError.INVALID_JSON),
        ("The dog is on the left.", ResponseError.INVALID_JSON),
        ("", ResponseError.INVALID_JSON),
        ("[" * 60, ResponseError.INVALID_JSON),
    ],
)
def test_what_may_mean_something_else_is_an_error_and_no_box(text, expected):
    assert error(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        f'{{"bbox": {A}, "bbox_2d": {B}}}',
        f'{{"left_dog_bbox_2d": {A}, "right_dog_bbox_2d": {B}}}',
        f'{{"bbox": [{A}, {B}], "boxes": [{A}]}}',
        f'{{"label": "dogs", "bbox_2d": {A}, "instances": [{{"bbox_2d": {A}}}, {{"bbox_2d": {B}}}]}}',
        f'{{"bbox_2d": null, "instances": [{{"bbox_2d": {B}}}]}}',
        f'{{"label": "dog", "bbox_2d": {A}, "parts": [{{"label": "head", "bbox_2d": {B}}}]}}',
        f'{{"scene": {{"bbox_2d": [0, 0, 1000, 1000], "objects": [{{"bbox_2d": {A}}}]}}}}',
        f'{{"points": [[1, 2], [3, 4]], "objects": [{{"bbox_2d": {A}}}]}}',
        '{"label": "dogs", "points": [[100, 100], [500, 500], [900, 900]]}',
        '{"point": [100, 100], "point_2d": [500, 500]}',
        f'{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": {A}}}}}',
    ],
)
def test_boxes_that_would_be_lost_are_an_error(text):
    assert error(text) is ResponseError.WRONG_SCHEMA
    assert error(f"[{text}]") is ResponseError.WRONG_SCHEMA


@pytest.mark.parametrize("other", ["bbox_2d_normalized", "image_bbox_2d"])
def test_an_exact_key_beats_a_key_that_contains_it(other):
    assert boxes(json.dumps({"bbox_2d": A, other: [0, 0, 1000, 1000]})) == [A]
    assert boxes(json.dumps({other: [0, 0, 1000, 1000], "bbox_2d": A})) == [A]
    assert boxes(json.dumps({other: A, "bbox_2d": None})) == [A]


@pytest.mark.parametrize("key", ["bbox_2d", "bbox", "box", "bounding_box", "dog_bbox_2d"])
@given(found=middle_boxes)
def test_numbered_keys_are_several_instances(key, found):
    assert boxes(json.dumps({f"{key}_{number}": box for number, box in enumerate(found)})) == found
    assert boxes(json.dumps({f"{key}_{number}": box for number, box in enumerate([*found, None])})) == found


@given(found=middle_boxes)
def test_a_box_said_again_in_its_object_counts_once(found):
    said = {"bbox_2d": found[0], "bbox": [found[0]], "coordinates": found[0], "parts": [{"bbox": found[0]}]}
    assert boxes(json.dumps(said | {"position": [150, 250], "visible": False, "result": None})) == [found[0]]


def test_one_per_cent_beyond_the_frame_is_rounding():
    assert boxes("[500, 500, 1008, 1004]") == [[500, 500, 1000, 1000]]


def test_a_list_with_one_bad_item_keeps_the_others_beside_the_error():
    response = qwen3_vl.parse(f'[{{"bbox_2d": {A}}}, {{"label": "dog"}}, {{"bbox_2d": [1, 2, 3]}}]', SIZE)
    assert response.error is ResponseError.WRONG_SCHEMA
    assert [list(instance.box) for instance in response.instances] == [A]


def test_bare_numbers_beside_objects_are_prose():
    assert boxes(f'The image is [0, 0, 1000, 1000] [1]. {{"bbox_2d": {A}}}') == [A]


def test_brackets_in_prose_are_prose():
    for text in (
        f'The {{red}} dog [see left] is here: {{"bbox_2d": {A}}}',
        f"The box is $\\boxed{{{A}}}$.",
        f"Its {{red}} box is [{A}] [sic].",
    ):
        assert boxes(text) == [A]


TAKEN_BACK = [
    "Wait, that is the cat. The dog is here:", "Hmm, no. Final answer:", "Actually,", "No, it is", "Answer:",
    "But wait,", "Correction:", "**Final answer**:", ", or rather", "On second thought",
    "The final answer is", "## Final answer\n",
]  # fmt: skip


@pytest.mark.parametrize("form", ["objects", "fenced", "bare lists", "corners", "ref", "begin_of_box"])
@pytest.mark.parametrize("words", TAKEN_BACK)
@settings(max_examples=5, deadline=None)
@given(draft=middle_boxes, found=middle_boxes)
def test_only_the_boxes_after_a_correction_count(form, words, draft, found):
    assert boxes(f"{FORMS[form](draft)}\n{words} {FORMS[form](found)}") == found
    assert boxes(f"{FORMS['objects'](draft)} {words} {FORMS['corners'](found)}") == found
    assert boxes(f"{FORMS[form](draft)}\n{words} {FORMS[form](draft)}\n{words} {FORMS[form](found)}") == found
    assert boxes(f"For example {FORMS[form](draft)}. {words} []") == []


@pytest.mark.parametrize(
    "words",
    ["and", "The other dog is here:", "There are no more dogs. A cat:", "No. 2:", "no entry sign:", "Cat: no. Dog 2:",
     "Both wait for a bus:", '"answer":', "2.", ", "],
)  # fmt: skip
def test_boxes_with_other_words_between_them_all_count(words):
    assert boxes(f'{{"bbox_2d": {A}}} {words} {{"bbox_2d": {B}}}') == [A, B]
    assert boxes(f'Left: Answer: {{"bbox_2d": {A}}} {words} Right: Answer: {{"bbox_2d": {B}}}') == [A, B]


@pytest.mark.parametrize(
    "text",
    ["<|object_ref_start|>wait staff<|object_ref_end|><|box_start|>{0}<|box_end|>"
     "<|object_ref_start|>wait staff<|object_ref_end|><|box_start|>{1}<|box_end|>",
     "<ref>dog</ref><box>[{0}]</box><ref>Wait, no. Actually, the dog that is actually wet</ref><box>[{1}]</box>",
     "<ref>dog</ref><box>[{0}]</box><ref>person with correction tape</ref><box>[{1}]</box>",
     "1. **Person actually holding the ball**: [{0}]\n2. **Person actually holding the bat**: [{1}]",
     "1. **Wait staff**: [{0}]\n2. **No, thanks sign**: [{1}]", "Correction tape: {0}\nCorrection tape: {1}",
     "Left dog: {0}\nThe right dog, which is actually a puppy: {1}", "Wait staff: {0}\nWait staff: {1}",
     "The first dog's answer is [{0}]. The second dog's answer is [{1}].", "[{0}] - no, no hat\n- no, glasses: [{1}]",
     "Dog A (hat - no): [{0}]. Dog B (hat - no, glasses - yes): [{1}]",
     "no. | box | hat\nno. {0} | yes |\nno. {1} | no |", "| no. | {0} | no. | hat |\n| no. | {1} | no. | hat |"],
)  # fmt: skip
def test_words_of_labels_are_no_corrections(text):
    assert boxes(text.format(*(f"({b[0]},{b[1]}),({b[2]},{b[3]})" for b in (A, B)))) == [A, B]
    if "<|" not in text:
        assert boxes(text.format(A, B)) == [A, B]
        assert boxes(text.format(json.dumps({"bbox": A}), json.dumps({"bbox": B}))) == [A, B]


@pytest.mark.parametrize("words", ["Wait, that is the cat.", "Wait no", "Wait, there is no dog in the image."])
def test_a_box_that_is_taken_back_at_the_end_is_an_error(words):
    assert error(f'[{{"bbox_2d": {A}}}]\n{words}') is ResponseError.INVALID_JSON


@pytest.mark.parametrize(
    "words",
    ["Final answer: the dog on the left.", "The dog is actually on the left, near (150, 250).", "\nHm.", "Hmm, no.",
     "The final answer is given in coordinates from (0, 0) to (1000, 1000).", "Actually, dog [1] is brown.",
     "Wait staff are not in the image.", "Actually, its head is at (150, 250) and its tail at [290, 390].",
     "Actually, dog [1] is at (1,2),(30,40)."],
)  # fmt: skip
def test_words_and_numbers_after_a_box_do_not_take_it_back(words):
    assert boxes(f'```json\n[{{"bbox_2d": {A}}}]\n```\n{words}') == [A]
    assert boxes(f'[{{"bbox_2d": {A}}}] {words}') == [A]


@pytest.mark.parametrize("name", UNTUNED)
def test_a_tool_call_is_no_answer(name):
    parse = dialects.get_dialect(name).parse
    call = f'<tool_call>\n{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": {A}}}}}\n</tool_call>'
    for text in (call, call[:-12], f"[{A}] {call}", f"There is no dog in the image. {call}"):
        response = parse(text, SIZE)
        assert response.error is ResponseError.INVALID_JSON
        assert not response.instances
    for text in (f'{call}\n[{{"bbox_2d": {B}}}]', f'{call}<answer>[{{"bbox_2d": {B}}}]</answer>'):
        response = parse(text, SIZE, shown_size=SIZE)
        assert response.error is None
        assert [list(instance.box) for instance in response.instances] == [B]


@pytest.mark.parametrize(
    "text",
    [
        f'<tool_call>\n[{{"bbox_2d": {A}}}]\n</tool_call>',
        f'<tool_call>\n{{"bbox_2d": {A}, "label": "dog"}}\n</tool_call>',
        f'<tool_call>\nThe dog is left.\n[{{"bbox_2d": {A}}}]',
        f'[{{"bbox_2d": {A}}}]<tool_call>',
        f'[{{"name": "dog", "parameters": {{}}, "bbox_2d": {A}}}]',
    ],
)
def test_the_tags_of_a_tool_call_alone_are_no_tool_call(text):
    assert boxes(text) == [A]


@given(end=st.integers(0, 200))
def test_a_cut_tool_call_gives_no_instance(end):
    call = f'<tool_call>{{"name": "zoom", "arguments": {{"objects": [{{"bbox_2d": {A}}}, {{"bbox_2d": {B}}}]}}}}'
    assert error(call[:end]) is not None
    assert error(call[:end], truncated=True) is ResponseError.TRUNCATED


@pytest.mark.parametrize(
    "text", [f"<box>[{A}]</box>", f"<|begin_of_box|>[{A}]<|end_of_box|>", "(1,2),(3,4)<|box_end|>"]
)
def test_a_cut_after_a_tag_keeps_the_boxes(text):
    for cut in (text, text[:-2]):
        response = qwen3_vl.parse(cut, SIZE, truncated=True)
        assert response.error is ResponseError.TRUNCATED
        assert len(response.instances) == 1
    assert error(f"{text} Wait, no", truncated=True) is ResponseError.TRUNCATED


def test_points_go_with_their_box():
    text = '[{"bbox_2d": [100, 200, 300, 400], "point_2d": [150, 250]}, {"points": [[1, 2], [3, 4]]}]'
    assert qwen3_vl.parse(text, SIZE).instances == (
        InstancePrompt((100, 200, 300, 400), ((150, 250),)),
        InstancePrompt(None, ((1, 2), (3, 4))),
    )
    response = qwen3_vl.parse('{"bbox_2d": [100, 200, 300, 400], "points": "left"}', SIZE)
    assert response.error is ResponseError.WRONG_SCHEMA
    assert response.instances == (InstancePrompt((100, 200, 300, 400), ()),)


@pytest.mark.parametrize(
    "text",
    ['{"point_2d": [10, 20]}', '{"thought": "...", "result": [10, 20]}', '{"points": [[10, 20]]}',
     '[{"coordinates": [10, 20]}]', '{"point": [10, 20], "bbox_2d": null}'],
)  # fmt: skip
def test_points_alone_are_an_instance_without_a_box(text):
    response = qwen3_vl.parse(text, SIZE)
    assert response.error is None
    assert response.instances == (InstancePrompt(None, ((10, 20),)),)
    assert not response.no_target_in_words


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d": null}',
        '[{"bbox_2d": [], "label": []}]',
        '{"bbox_2d": [0, 0, 0, 0]}',
        "[[0, 0, 0, 0]]",
        '{"bbox_2d": [0, 0, 0, 0], "points": [[0, 0], [0, 0]]}',
        '{"bbox_2d": null, "points": [[], []]}',
        '{"found": false}',
        '{"objects": null}',
        '{"bbox_2d":null}\nI can\'t see a part to point at.',
        "None",
        "<|begin_of_box|>None<|end_of_box|>",
        "<think>no dog</think>There is no dog in the image.",
        "<answer>None</answer>",
    ],
)
@pytest.mark.parametrize("name", UNTUNED)
def test_no_target_in_words_is_marked(name, text):
    response = dialects.get_dialect(name).parse(text, SIZE)
    assert response.no_target
    assert response.no_target_in_words
    assert (
        dialects.get_dialect(name).parse(text + " ", SIZE, truncated="</answer>" not in text).error
        or "</answer>" in text
    )


@pytest.mark.parametrize("text", ["[]", "There is none: []", '{"objects": []}', "[]\nNothing to point at."])
def test_an_empty_list_is_no_target_without_the_mark(text):
    response = qwen3_vl.parse(text, SIZE)
    assert response.no_target
    assert not response.no_target_in_words


@pytest.mark.parametrize(
    "text",
    [f"There is no dog in the image. {A}", f'There is no doubt: {{"bbox_2d": {A}}}', f'[null, {{"bbox_2d": {A}}}]',
     f'[{{"bbox_2d": {A}}}, {{"bbox_2d": null}}, {{"bbox_2d": [0, 0, 0, 0]}}]',
     f'[], or rather {A}'],
)  # fmt: skip
def test_a_readable_box_is_never_no_target(text):
    response = qwen3_vl.parse(text, SIZE)
    assert [list(instance.box) for instance in response.instances] == [A]
    assert not response.no_target
    assert not response.no_target_in_words


@pytest.mark.parametrize("verdict", ["found", "detected", "exists", "present", "match", "is_match", "matches"])
@pytest.mark.parametrize("no", ["false", '"no"', '"False"'])
def test_a_box_beside_its_own_denial_is_an_error(verdict, no):
    assert error(f'{{"{verdict}": {no}, "bbox_2d": {A}}}') is ResponseError.WRONG_SCHEMA
    response = qwen3_vl.parse(f'[{{"bbox_2d": {B}, "{verdict}": true}}, {{"bbox_2d": {A}, "{verdict}": {no}}}]', SIZE)
    assert response.error is ResponseError.WRONG_SCHEMA
    assert [list(instance.box) for instance in response.instances] == [B]
    assert boxes(f'[{{"{verdict}": {no}, "bbox_2d": null}}]') == []


@pytest.mark.parametrize("name", sorted(set(dialects.names()) - set(UNTUNED)))
@pytest.mark.parametrize(
    "text", ["None", "<answer>None</answer>", "There is no dog in the image.", '{"bbox_2d": null}']
)
def test_words_of_a_tuned_checkpoint_are_errors(name, text):
    assert dialects.get_dialect(name).parse(text, SIZE).error is not None


@pytest.mark.parametrize(
    "text",
    ["No object detected.", "There is no dog in the image.", "I cannot find a dog.", "**None**", "null", "n/a",
     "There are no dogs visible.", "No, there is no dog in the image.", "I can\u2019t see a part to point at.",
     "The dog isn't visible in the image.", "The image does not contain a red car.", "There is no dog.",
     "Nothing in the image matches the expression.", "There is no dog in the image. It shows a street and a car.",
     "The image shows a street. There is no dog in the image.", "Sorry, I couldn't find the blue cup.",
     "The image does not contain a dog, it shows a street.", "There is no dog in the image; the image shows a cat.",
     "The person who is wearing a hat is not visible in the image.", "There are no blocks in the image.",
     "There is no picture frame in the image.", "The picture on the wall is not visible in the image.",
     "The image doesn't show a picture.", "I can't find any photo in the image.", "No hidden object is visible.",
     "There is no error message in the image.", "No dog, cat or bird is visible.", "The photographer is not visible.",
     "The picture on the wall is not visible.", "The file menu is not visible.", "No media player is visible.",
     "A rope attached to the wall is not visible.",
     "The trash can is not visible in the image.", "The can of soda is not visible in the image.",
     "The stands are not visible in the image.", "The image does not contain a man, a woman or a dog.",
     "There is no red car, a blue car or a bus in the image.",
     "I could not find the man, the woman or the child in the image.",
     "The image does not show a man in a white shirt, a hat, or a tie.",
     "There is no person hidden behind the tree in the image.", "There is no object that is hidden in the image.",
     "There is no fully visible dog in the image.", "No car is missing a wheel in the image."],
)  # fmt: skip
def test_words_that_say_there_is_none(text):
    assert says_nothing(text)


@pytest.mark.parametrize(
    "text",
    ["There is no doubt that the dog is on the left.", "The dog is on the left.", "I cannot see the image.", "", "No.",
     "I can't see any images.", "I'm sorry, I can't assist with that.", "There is no dog at (3, 4) in the image.",
     "I cannot find the exact dog, but the brown animal is close.", "I cannot identify people in the image.",
     "If there is no dog in the image, I answer nothing.", "No worries! The dog sits beside the man.",
     "There is no dog in the image. " * 20, "The dog is at the left. Its tail is not visible.",
     "There are no other dogs in the image. The dog is on the left.", "No other person is visible.",
     "The man is sitting on the chair. The woman is not visible.",
     "I cannot find a better match than the dog on the left.",
     "None of the other people wear red, so the man on the left matches.",
     # the image is missing
     "There is no image attached.", "The image is not visible.", "No picture is visible.", "The image was not found.",
     "There is no photo.", "I cannot detect anything because the upload failed.", "I cannot locate files.",
     "The image does not show because it is broken.", "There are no pictures here.", "No attachment was found.",
     "The uploaded file isn't available here.", "I cannot see the image properly.", "I can't see the photo, sorry.",
     "There is no image to look at here.", "I do not see a picture of a dog.", "The images weren't found.",
     # the opposite
     "No problem, I found the dog in the image.", "No worries, the dog is visible.", "No problem: dog visible",
     "No need to zoom: the dog is visible in the image.", "There are no fewer than three dogs in the image.",
     "No less than two cats are visible.", "No animals except a dog are visible.",
     "Nothing blocks the dog in the image.", "None of the dogs are hidden in the image.",
     "There is no lack of dogs in the image.", "There are no more than two dogs in the image.",
     "I cannot find the cat, the dog is on the left.",
     "The dog is on the left and the cat is not visible.", "There is no difference between the dogs in the image.",
     # no verdict
     "The image does not contain enough detail.", "The picture does not show the dog's whole body.",
     "I cannot find a more precise location.", "There is no error here.", "I do not see any reason to say no.",
     "I don't see why not here.", "The image does not show whether the dog is brown.",
     "I can not locate it precisely.", "The dog is not fully visible in the image.",
     "I cannot see anything.", "No content is visible.", "There is no video attached.", "There is no input here.",
     "No ambiguity is present, dog at left is visible.",
     # another clause
     "I cannot find the cat, the dog walks on the left.", "The can stands on the left and the dog is not visible.",
     "I cannot find the cat, the dog or the wolf is on the left."],
)  # fmt: skip
def test_other_words_do_not(text):
    assert not says_nothing(text)


THINGS = st.sampled_from(
    [
        "dog",
        "man in the red shirt",
        "second cup from the left",
        "woman who is holding a phone",
        "blue car",
        "one",
        "photo album",
    ]
)
IMAGES = st.sampled_from(["image", "picture", "photo", "photograph", "screenshot", "uploaded image", "attachment"])
PLACES = st.sampled_from([" in the image", " in this picture", " within the given photo"])
SEEN = st.sampled_from(["visible", "present", "found", "shown", "detected"])
DENIALS = st.sampled_from(
    ["There is no {0}{1}.", "No {0} is {2}{1}.", "The {0} is not {2}{1}.", "I cannot find the {0}{1}.",
     "The image does not contain a {0}.", "Unfortunately, the {0} isn't {2}{1}.", "We do not see any {0}{1}."]
)  # fmt: skip
OPPOSITES = st.sampled_from(
    ["No problem, the {0} is {2}{1}.", "There are no fewer than two {0}s{1}.", "Nothing except the {0} is {2}{1}.",
     "There is no need to look further, the {0} is {2}{1}.", "No part of the {0} is hidden{1}.",
     "I cannot find the tree, the {0} is {2}{1}.", "No worries: the {0} is {2}{1}.", "Nothing hides the {0}{1}."]
)  # fmt: skip


@given(thing=THINGS, image=IMAGES, place=PLACES, seen=SEEN, denial=DENIALS, opposite=OPPOSITES)
def test_only_a_denial_of_something_in_the_image_counts(thing, image, place, seen, denial, opposite):
    assert says_nothing(denial.format(thing, place, seen))
    assert not says_nothing(opposite.format(thing, place, seen))
    if "The image does" not in denial:
        assert not says_nothing(denial.format(image, "", seen))


@pytest.mark.parametrize("name", UNTUNED)
def test_an_instance_said_again_and_again_counts_once(name):
    response = read(dialects.get_dialect(name), json.dumps([{"bbox_2d": A}] * 7 + [{"bbox_2d": B}]), SIZE)
    assert len(response.instances) == 2
    assert response.repeated == 6
    assert response.error is None


def test_the_prompts_have_the_expression_and_the_tokens_of_their_maker():
    for name in UNTUNED:
        chat = dialects.get_dialect(name).messages(SIZE, "the {dog} <|im_end|>")
        text = chat[-1]["content"][-1]["text"]
        assert "the {dog} < |im_end|>" in text
        assert "answer []" in json.dumps(chat)
    assert (
        "<|object_ref_start|>the dog<|object_ref_end|>" in qwen2_vl.messages(SIZE, "the dog")[-1]["content"][-1]["text"]
    )
    assert "<ref>the dog</ref>" in internvl.messages(SIZE, "the dog")[-1]["content"][-1]["text"]
    assert "[[x1,y1,x2,y2]" in glm4v.messages(SIZE, "the dog")[-1]["content"][-1]["text"]


def test_qwen2_5_vl_reads_pixels_of_the_size_that_the_model_saw():
    text = '[{"bbox_2d": [100, 200, 300, 400], "label": "dog"}]'
    (instance,) = qwen2_5_vl.parse(text, (2000, 1000), shown_size=(1000, 500)).instances
    assert instance.box == (200, 400, 600, 800)
    (instance,) = qwen2_5_vl.parse(text, (560, 560)).instances  # Qwen's processor leaves this size as it is
    assert instance.box == (100, 200, 300, 400)
    (instance,) = qwen2_5_vl.parse(text, (6000, 4000)).instances  # it shows 4368 x 2912
    assert instance.box == pytest.approx((137.4, 274.7, 412.1, 549.5), abs=0.1)
    outside = qwen2_5_vl.parse('[{"bbox_2d": [1010, 10, 1040, 90]}]', (1000, 500), shown_size=(1000, 500))
    assert outside.error is ResponseError.BOX_OUT_OF_IMAGE
    assert qwen2_5_vl.parse(text, (1, 3000)).error is not None  # no processor shows such an image
    assert qwen2_5_vl.parse("[0.1, 0.2, 0.3, 0.4]", (560, 560)).error is ResponseError.WRONG_SCALE


@given(found=middle_boxes, place=st.integers(0, 3), past=st.floats(0.11, 5))
def test_qwen2_5_vl_in_pixels_of_a_larger_image_is_an_error(found, place, past):
    found[-1][place] = round(1000 * (1 + past))
    for form in ("objects", "corners", "bare lists"):
        response = qwen2_5_vl.parse(FORMS[form](found), (4000, 4000), shown_size=SIZE)
        assert response.error is ResponseError.WRONG_SCALE
        assert not response.instances


def test_qwen2_5_vl_a_little_past_the_edge_is_clipped():
    response = qwen2_5_vl.parse(json.dumps([{"bbox_2d": A}, {"bbox_2d": [900, 900, 1060, 1000]}]), SIZE, False, SIZE)
    assert response.error is None
    assert [list(instance.box) for instance in response.instances] == [A, [900, 900, 1000, 1000]]
    small = (112, 112)  # one patch is 28 pixels
    assert qwen2_5_vl.parse("[0, 0, 140, 112]", small, shown_size=small).instances[0].box == (0, 0, *small)
    assert qwen2_5_vl.parse("[0, 0, 141, 112]", small, shown_size=small).error is ResponseError.WRONG_SCALE


def test_qwen2_5_vl_judges_each_side_by_itself():
    photo, shown = (4032, 3024), (1456, 1092)
    for box in ([1000, 600, 3000, 2900], [400, 600, 1400, 1210]):
        response = qwen2_5_vl.parse(json.dumps([{"bbox_2d": box}]), photo, shown_size=shown)
        assert (response.error, response.instances) == (ResponseError.WRONG_SCALE, ())
    (instance,) = qwen2_5_vl.parse('[{"bbox_2d": [0, 0, 1480, 1120]}]', photo, shown_size=shown).instances
    assert instance.box == (0, 0, *photo)
    assert qwen2_5_vl.parse('{"point_2d": [2000, 90]}', photo, shown_size=shown).error is ResponseError.WRONG_SCALE
