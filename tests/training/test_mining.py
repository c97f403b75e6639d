"""Hard examples are those that the checkpoint gets wrong, by the metric that evaluation uses."""

import datasets
import numpy as np
import pytest
from genseg_hub.evaluation import scores
from genseg_hub.evaluation.metrics import ReferringMetrics, measure
from genseg_hub.referring_dataset import FEATURES, from_dataset, to_dataset
from genseg_hub.schema import encode_mask
from genseg_training import cli, mining
from genseg_training.nano import refscenes


def test_hard_examples_are_the_failures(nano):
    examples = to_dataset(refscenes.training_examples(12, seed=21))
    ious = []

    def look(example, result, row):
        assert (row["example_id"], row["expression"]) == (example.example_id, example.expression)
        ious.append(ReferringMetrics().update(example.masks, result.mask if result.masks else None))

    scores.evaluate(nano, from_dataset(examples), on_result=look)
    for below in (0.5, 0.95):
        hard = mining.hard_examples(nano, examples, below)
        expected = [name for name, iou in zip(examples["example_id"], ious, strict=True) if iou < below]
        assert expected
        assert hard["example_id"] == expected
        assert hard.features == FEATURES
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        mining.hard_examples(nano, examples, 0)
    assert measure(None, None).answered


def test_ignored_pixels_make_no_example_hard(nano):
    """Where all pixels of an image are ignored, an answer misses nothing; see `metrics.measure`."""
    (drawn,) = to_dataset(refscenes.training_examples(1, seed=21))
    assert drawn["masks"]
    height, width = drawn["masks"][0]["size"]
    everything = encode_mask(np.ones((height, width), bool))
    nothing = encode_mask(np.zeros((height, width), bool))
    examples = datasets.Dataset.from_list(
        [drawn | {"ignore": [rle]} for rle in (everything, nothing)],
        features=datasets.Features(FEATURES | {"ignore": FEATURES["masks"]}),
    )
    result = nano.segment(drawn["image"], drawn["expression"])
    ious = [
        ReferringMetrics().ious(measure(drawn["masks"], result.mask, ignore=rle)).item()
        for rle in (everything, nothing)
    ]
    assert ious[0] != ious[1]
    threshold = sum(ious) / 2
    hard = mining.hard_examples(nano, examples, threshold)
    assert [bool(ignore) for ignore in hard["ignore"]] == [True]
    assert len(hard) == 1


def test_the_command_writes_a_source_for_training(tmp_path):
    out = tmp_path / "hard"
    cli.main(["mine", "--output_dir", str(out), "--data", "refscenes:8", "--below", "0.95", "--seed", "21"])
    assert datasets.load_from_disk(out).features == FEATURES
    with pytest.raises(SystemExit, match="not an empty folder"):
        cli.main(["mine", "--output_dir", str(out)])
