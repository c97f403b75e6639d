"""Answers that models gave, or that public sources give as samples, are read as they are meant.

`tests/data/real_answers.jsonl` has one answer per line, with its source. `kind` is `output` (a model said it), `sample`
(training data or documentation) or `shape` (made after a described form). `expected` has the boxes in the family's own
numbers ("pixels": those of the resized image), [] for no-target, "point" for points only; any other value means an
error.
"""

import json
from pathlib import Path

import pytest
from genseg_hub import dialects
from genseg_hub.images import shown_size
from genseg_hub.schema import Response, ResponseError

ANSWERS = [json.loads(line) for line in Path("tests/data/real_answers.jsonl").read_text(encoding="utf-8").splitlines()]
# The file names the dialect that read an answer before its family had one.
FAMILIES = {"Qwen2.5-VL": "qwen2_5_vl", "Griffon": "qwen2_5_vl", "Qwen2-VL": "qwen2_vl", "InternVL": "internvl"}
NOT_AS_MEANT = {
    "https://github.com/SkyworkAI/Skywork-R1V/issues/14": "only the thought says that there is no dog",
}
EXPECTED_POINTS = {(545, 575), (105, 696), (769, 70), (925, 618)}


def read(answer: dict, shown: tuple[int, int] | None = None) -> Response:
    dialect = next((d for family, d in FAMILIES.items() if answer["family"].startswith(family)), answer["dialect"])
    return dialects.get_dialect(dialect).parse(answer["text"], tuple(answer["image_size"]), answer["truncated"], shown)


def own_numbers(values: tuple[float, ...], answer: dict, frame: tuple[int, int]) -> list[int]:
    """Return pixels of the image as numbers of the family's frame."""
    return [round(value * frame[i % 2] / answer["image_size"][i % 2]) for i, value in enumerate(values)]


@pytest.mark.parametrize("answer", ANSWERS, ids=[f"{i}-{a['family']}" for i, a in enumerate(ANSWERS)])
def test_an_answer_is_read_as_it_is_meant(answer):
    response, expected = read(answer), answer["expected"]
    if answer["source"] in NOT_AS_MEANT:
        assert response.error is not None
    elif expected == []:
        assert response.no_target
    elif expected == "point":
        (instance,) = response.instances
        assert response.error is None
        assert instance.box is None
        assert tuple(own_numbers(instance.points[0], answer, answer["frame"])) in EXPECTED_POINTS
    elif isinstance(expected, list):
        assert [own_numbers(instance.box, answer, answer["frame"]) for instance in response.instances] == expected
        assert (response.error is ResponseError.TRUNCATED) == answer["truncated"]
    elif expected == "pixels":
        size = shown_size(tuple(answer["image_size"]), 28, 56 * 56, 12_845_056)
        boxes = [own_numbers(instance.box, answer, size) for instance in response.instances]
        assert boxes == [[341, 258, 397, 360], [212, 332, 274, 448]][: len(boxes)] or boxes == [[135, 114, 1016, 672]]
        assert boxes
        assert response.error is None
    else:
        assert response.error is not None
        assert not response.instances


def test_all_but_one_answer_are_read_as_meant():
    assert len(ANSWERS) == 43
    assert sum(answer["source"] in NOT_AS_MEANT for answer in ANSWERS) == 1


def test_pixels_are_those_of_the_size_that_the_model_saw():
    answer = next(a for a in ANSWERS if a["expected"] == "pixels")
    (first, _) = read(answer, shown=(1280, 960)).instances  # twice the image
    assert first.box == (170.5, 129, 198.5, 180)
