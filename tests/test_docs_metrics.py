"""docs/metrics.md says how our figures relate to torchmetrics' and FiftyOne's: both are run on its example."""

import re
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import BinaryJaccardIndex
from torchmetrics.segmentation import DiceScore, MeanIoU

import fiftyone_genseg
from fiftyone_genseg.labels import detection_from_mask

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
SIZE = 12


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


# What is meant, and what was answered: instances of each.
EXAMPLE = {
    "the square": ([square(0, 0, 4)], [square(0, 0, 4)]),
    "both squares": ([square(0, 0, 4), square(8, 8, 4)], [square(0, 0, 4)]),
    "the star": ([], []),
    "the circle": ([], [square(5, 5, 2)]),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    dataset = fo.Dataset()
    for number, (expression, sides) in enumerate(EXAMPLE.items()):
        file = folder / f"{number}.png"
        Image.new("RGB", (SIZE, SIZE)).save(file)
        meant, answered = (
            fo.Detections(detections=[detection_from_mask(mask, label="referred") for mask in side]) for side in sides
        )
        dataset.add_sample(fo.Sample(filepath=str(file), expression=expression, ground_truth=meant, answered=answered))
    dataset.compute_metadata()
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def ours(samples):
    return {
        policy: fiftyone_genseg.evaluate(samples, "answered", "ground_truth", eval_key=policy, policy=policy)
        for policy in ("grefcoco", "refcoco")
    }


@pytest.fixture(scope="module")
def unions():
    """Union masks as torchmetrics takes them: what was answered, what is meant; int64[expressions, 1, H, W]."""
    sides = [
        [np.logical_or.reduce([np.zeros((SIZE, SIZE), bool), *masks]) for masks in side]
        for side in zip(*EXAMPLE.values(), strict=True)
    ]
    meant, answered = (torch.tensor(np.array(side)).long()[:, None] for side in sides)
    return answered, meant


def printed(begins: str, column: int = 1) -> list[float]:
    """Return the numbers in a cell of the page, of the only row whose first cell begins so and that has numbers."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    (found,) = [
        numbers
        for cells in rows
        if cells[0].startswith(begins) and len(cells) > column
        if (numbers := [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cells[column])])
    ]
    return found


def test_the_example(ours):
    for column, policy in enumerate(("grefcoco", "refcoco"), 1):
        figures = ours[policy].figures()
        for name, shown in {"cIoU": "ciou", "mIoU": "miou", "target mIoU": "target_miou", "N-acc": "n_acc"}.items():
            assert printed(name, column) == [pytest.approx(figures[shown], abs=5e-4)], (policy, name)
        assert printed("Pr@0.5", column) == [figures["pr@0.5"]]


def test_torchmetrics(ours, unions):
    figures = ours["grefcoco"].figures()
    pooled = BinaryJaccardIndex()
    for answered, meant in zip(*unions, strict=True):  # one at a time, as masks of several sizes must be
        pooled.update(answered, meant)
    assert pooled.compute().item() == pytest.approx(figures["ciou"])
    assert printed("`BinaryJaccardIndex") == [pytest.approx(figures["ciou"], abs=5e-4)]

    by_expression = MeanIoU(num_classes=1)
    by_expression.update(*unions)
    assert printed("`MeanIoU(num_classes=1)") == [pytest.approx(by_expression.compute().item(), abs=5e-4)]
    something_meant = unions[1].flatten(1).any(1)
    without_no_target = MeanIoU(num_classes=1)
    without_no_target.update(*(side[something_meant] for side in unions))
    assert without_no_target.compute().item() == pytest.approx(figures["target_miou"])

    with_background = MeanIoU(num_classes=2, input_format="index")
    with_background.update(*(side[:, 0] for side in unions))
    assert printed("`MeanIoU(num_classes=2") == [pytest.approx(with_background.compute().item(), abs=5e-4)]

    dice = DiceScore(num_classes=1, aggregation_level="global")
    dice.update(*unions)
    assert printed("`DiceScore") == [pytest.approx(dice.compute().item(), abs=5e-4)]
    assert dice.compute().item() == pytest.approx(2 * figures["ciou"] / (1 + figures["ciou"]))


def test_detections_of_fiftyone(samples, ours):
    theirs = samples.evaluate_detections(
        "answered", gt_field="ground_truth", eval_key="detections", use_masks=True, classwise=False
    )
    counts = [samples.sum(f"detections_{kind}") for kind in ("tp", "fp", "fn")]
    assert counts == [samples.sum(f"grefcoco_{kind}") for kind in ("tp", "fp", "fn")]
    assert printed("`evaluate_detections") == counts
    names = ("precision", "recall", "fscore")
    shown = [theirs.metrics()[name] for name in names]
    assert shown == pytest.approx([ours["grefcoco"].metrics()[name] for name in names])
    assert printed("its precision") == pytest.approx(shown, abs=5e-4)


def test_segmentations_of_fiftyone(samples, ours, unions):
    for field, side in zip(("answered_union", "meant_union"), unions, strict=True):
        samples.set_values(field, [fo.Segmentation(mask=mask.numpy().astype(np.uint8)) for (mask,) in side])
    theirs = samples.evaluate_segmentations(
        "answered_union", gt_field="meant_union", mask_targets={0: "background", 1: "referred"}
    ).metrics()
    ciou = ours["grefcoco"].figures()["ciou"]
    assert theirs["accuracy"] == pytest.approx(ciou)
    assert printed("`evaluate_segmentations") == [pytest.approx(ciou, abs=5e-4)]
    assert printed("its F1") == [pytest.approx(theirs["fscore"], abs=5e-4)]
