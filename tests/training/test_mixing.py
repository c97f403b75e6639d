"""Draws: weights are obeyed, shares are reached, and a mixture that cannot be is named."""

from collections import Counter
from dataclasses import replace

import pytest
import yaml
from genseg_hub.referring_dataset import to_dataset
from genseg_training import mixing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import archive_files
from tests.helpers.referring import example


def test_the_share_of_no_target_examples():
    examples = to_dataset([example(name=str(i), boxes=((0, 0, 4, 4),) if i % 4 else ()) for i in range(40)])
    for share in (0.0, 0.1, 0.5, 1.0):
        chosen = mixing.with_no_target_share(examples, share)
        assert sum(not masks for masks in chosen["masks"]) / len(chosen) == pytest.approx(share, abs=0.03)
    assert len(mixing.with_no_target_share(examples, 0.25)) == 40
    with pytest.raises(ValueError, match="between 0 and 1"):
        mixing.with_no_target_share(examples, 2)
    with pytest.raises(ValueError, match="0 examples have no target"):
        mixing.with_no_target_share(to_dataset([example()]), 0.5)


def test_no_image_is_left_with_one_kind_where_it_has_both():
    """Forty images with four targets and one no-target example each; half of the targets are drawn."""
    listed = [
        replace(example(name=f"{i}-{j}", boxes=((0, 0, 4, 4),) if j else ()), image_id=str(i))
        for i in range(40)
        for j in range(5)
    ]
    chosen = mixing.with_no_target_share(to_dataset(listed), 1 / 3, seed=1)
    drawn = Counter(zip(chosen["image_id"], [bool(masks) for masks in chosen["masks"]], strict=True))
    assert drawn == {(str(i), kind): 2 if kind else 1 for i in range(40) for kind in (True, False)}
    other = mixing.with_no_target_share(to_dataset(listed), 1 / 3, seed=2)
    assert {*other["example_id"]} != {*chosen["example_id"]}, "the draw is random"


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_sources_are_mixed_by_weight(weights):
    parts = [to_dataset([example(expression=str(i))]).select([0] * 600) for i in range(len(weights))]
    mixed = mixing.mix(parts, weights, seed=0)["expression"]
    for i, weight in enumerate(weights):
        assert list(mixed).count(str(i)) / len(mixed) == pytest.approx(weight / sum(weights), abs=0.08)


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_cannot_be_are_named(weights):
    with pytest.raises(ValueError, match="2 sources need as many positive weights, got"):
        mixing.read(["refscenes:8", "refscenes:9"], weights)


def test_a_mixture_is_a_file(root, tmp_path):
    archive_files.divided(root)
    file = tmp_path / "mixture.yaml"
    listed = [{"source": "refcocog:train:5", "weight": 3}, "grefcoco:train"]
    file.write_text(yaml.safe_dump({"sources": listed, "exclude": ["refcocog:val"], "root": str(root)}))
    mixture = mixing.read([str(file)], exclude=["refscenes:val"])
    assert list(map(str, mixture.parts)) == ["refcocog:train:5", "grefcoco:train"]
    assert mixture.weights == (3.0, 1.0)
    assert list(map(str, mixture.exclude)) == ["refcocog:val", "refscenes:val"]
    with pytest.raises(ValueError, match="a mixture with weights of its own"):
        mixing.read([str(file), "refscenes:8"])
    for content, message in (
        ({"sources": []}, "lists no sources"),
        ([1], "mixture.yaml is .1.; an example is"),
        ({"sources": ["refscenes:8"], "seed": 1}, "unknown 'seed'; choose from exclude, root, sources"),
        ({"sources": [{"source": "refscenes:8", "weight": "much"}]}, "weight of source 1 of .* is 'much'"),
        ({"sources": [{"source": "refscenes:8", "weight": -1}]}, "positive weights"),
        ({"sources": [{"name": "refscenes:8"}]}, "unknown 'name'"),
        ({"sources": ["refcocog:none"]}, "no split 'none'"),
        ({"sources": ["refscenes:8"], "exclude": "refcocog:val"}, "expected a list"),
    ):
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(ValueError, match=message):
            mixing.read([str(file)], root=root)
    file.write_text("a: [")
    with pytest.raises(ValueError, match="cannot be read"):
        mixing.read([str(file)])
    with pytest.raises(ValueError, match=r"there is no mixture .*none\.yaml"):
        mixing.read([str(tmp_path / "none.yaml")])
