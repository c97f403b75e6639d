"""Training data of GRPO: sources, checks, mixing, and the rows that trainer and rewards read."""

from collections import Counter
from dataclasses import replace

import datasets
import numpy as np
import pytest
from genseg_hub.images import load_image
from genseg_hub.referring_dataset import FEATURES, to_dataset
from genseg_hub.schema import ReferringExample, encode_mask
from genseg_training import data, rewards
from genseg_training.nano import refscenes, scenes
from PIL import Image

from tests.helpers.strategies import oriented


def example(expression="it", boxes=((1, 2, 5, 6),), size=(20, 10), name="a"):
    masks = []
    for x1, y1, x2, y2 in boxes:
        mask = np.zeros(size[::-1], bool)
        mask[y1:y2, x1:x2] = True
        masks.append(encode_mask(mask))
    return ReferringExample(Image.new("RGB", size), expression, tuple(masks), name, name)


def test_rows_hold_what_the_rewards_read():
    (row,) = data.to_rows(to_dataset([example(boxes=((1, 2, 5, 6), (8, 0, 20, 10)))]))
    assert row["boxes"] == [[1, 2, 5, 6], [8, 0, 20, 10]]
    assert row["image_size"] == [20, 10]
    assert row["prompt"][0]["role"] == "system"
    assert row["prompt"][1] == {"role": "user", "content": "Expression: it"}
    answer = (
        '<think></think><answer>[{"bbox_2d":[50,200,250,600],"points":[[100,300],[200,500]]},'
        '{"bbox_2d":[400,0,1000,1000],"points":[[500,500],[900,500]]}]</answer>'
    )
    columns = {name: [row[name]] for name in ("image_size", "boxes", "masks")}
    assert rewards.box_iou_reward([answer], **columns) == [1]
    assert rewards.points_reward([answer], **columns) == [1]


def test_sources(tmp_path):
    rendered = data.load_source("refscenes:8", seed=1)
    assert rendered.features == FEATURES
    assert rendered["expression"] == data.load_source("refscenes:8", seed=1)["expression"]
    assert rendered["expression"] != data.load_source("refscenes:8", seed=2)["expression"]
    rendered.save_to_disk(tmp_path / "set")
    assert data.load_source(str(tmp_path / "set"))["expression"] == rendered["expression"]
    assert len(data.load_source("refscenes:val:6")) == 6
    assert data.load_source("refscenes:val:6")["example_id"][0].startswith("refscenes-val")
    for source in ("refscenes", "refscenes:", "refscenes:0", "refscenes:x", "refscenes:val:", "refscenes:val:x"):
        for function in (data.load_source, data.check_source):
            with pytest.raises(ValueError, match="is none of"):
                function(source)
    with pytest.raises(ValueError, match="final figures alone"):
        data.load_source("refscenes:test")
    with pytest.raises(ValueError, match="neither a folder nor a Hub dataset"):
        data.load_source("nowhere")
    datasets.Dataset.from_dict({"image": [1]}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="no column"):
        data.load_source(str(tmp_path / "other"))


def test_a_source_is_checked_without_loading_it(tmp_path):
    saved = to_dataset([example()])
    saved.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=saved).save_to_disk(tmp_path / "splits")
    for source in ("refscenes:8", "refscenes:val", str(tmp_path / "saved"), "owner/name", "owner/name:val"):
        data.check_source(source)
    for source, message in (
        (tmp_path, "is not a folder that `save_to_disk` wrote"),
        (tmp_path / "splits", "holds several splits: name the folder of one"),
        ("refscene:8", "neither rendered scenes"),
        ("a/b/c", "neither rendered scenes"),
        ("~nosuch/x", "cannot be used as a path: .*home directory"),
        ("a" * 300, "cannot be used as a path: .*too long|neither rendered scenes"),
    ):
        with pytest.raises(ValueError, match=message):
            data.check_source(str(source))


def test_training_never_shows_held_out_combinations():
    for drawn in refscenes.training_examples(80, seed=0):
        assert drawn.image_id.startswith("training-0-")
        assert not any(f"{color} {kind}" in drawn.expression for color, kind in scenes.HELD_OUT)


def test_the_share_of_no_target_examples():
    examples = to_dataset([example(name=str(i), boxes=((0, 0, 4, 4),) if i % 4 else ()) for i in range(40)])
    for share in (0.0, 0.1, 0.5, 1.0):
        chosen = data.with_no_target_share(examples, share)
        assert sum(not masks for masks in chosen["masks"]) / len(chosen) == pytest.approx(share, abs=0.03)
    assert len(data.with_no_target_share(examples, 0.25)) == 40
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.with_no_target_share(examples, 2)
    with pytest.raises(ValueError, match="0 examples have no target"):
        data.with_no_target_share(to_dataset([example()]), 0.5)


def test_no_image_is_left_with_one_kind_where_it_has_both():
    """Forty images with four targets and one no-target example each; half of the targets are drawn."""
    rows = [
        replace(example(name=f"{i}-{j}", boxes=((0, 0, 4, 4),) if j else ()), image_id=str(i))
        for i in range(40)
        for j in range(5)
    ]
    chosen = data.with_no_target_share(to_dataset(rows), 1 / 3, seed=1)
    drawn = Counter(zip(chosen["image_id"], [bool(masks) for masks in chosen["masks"]], strict=True))
    assert drawn == {(str(i), kind): 2 if kind else 1 for i in range(40) for kind in (True, False)}
    other = data.with_no_target_share(to_dataset(rows), 1 / 3, seed=2)
    assert {*other["example_id"]} != {*chosen["example_id"]}, "the draw is random"


def test_sources_are_mixed_by_weight():
    a, b = (to_dataset([example(expression=word)] * 300) for word in ("a", "b"))
    mixed = data.mix([a, b], [3, 1], seed=0)["expression"][:300]
    assert mixed.count("a") / len(mixed) == pytest.approx(0.75, abs=0.08)
    with pytest.raises(ValueError, match="as many positive weights"):
        data.mix([a, b], [1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (example(expression="  ", name="x"), "empty"),
        (ReferringExample(Image.new("RGB", (5, 5)), "it", example().masks, "x", "x"), "'x': a mask is 20 x 10"),
        (
            ReferringExample(Image.new("RGB", (4, 4)), "it", (encode_mask(np.zeros((4, 4), bool)),), "x", "x"),
            "'x': a mask is empty",
        ),
    ],
)
def test_bad_examples_are_named_before_training(bad, message):
    with pytest.raises(ValueError, match=message):
        data.check(to_dataset([example(), bad]))


def test_training_sees_the_pixels_that_inference_sees(tmp_path):
    grey = (np.linspace(0, 4095, 24 * 16).reshape(16, 24)).astype(np.uint16)
    files = {name: tmp_path / name for name in ("grey.png", "turned.webp", "clear.png", "turned.tif")}
    Image.fromarray(grey).save(files["grey.png"])
    Image.fromarray(grey).save(files["turned.tif"], exif=oriented(8))
    Image.fromarray((grey >> 4).astype(np.uint8)).save(files["turned.webp"], exif=oriented(6))
    Image.new("RGBA", (24, 16), (0, 0, 0, 0)).save(files["clear.png"])
    for file in files.values():
        expected = load_image(file)
        mask = np.zeros(expected.size[::-1], bool)
        mask[2:9, 3:7] = True
        saved = to_dataset([ReferringExample(str(file), "it", (encode_mask(mask),), "a", "a")])
        data.check(saved)
        (row,) = data.to_rows(saved)
        assert row["image"].mode == "RGB"
        assert np.array_equal(np.asarray(row["image"]), np.asarray(expected))
        assert tuple(row["image_size"]) == expected.size
        # The reward segments the same pixels, also where it is given the picture as it was opened.
        assert np.array_equal(np.asarray(load_image(Image.open(file))), np.asarray(expected))


def test_what_is_no_picture_is_named_before_training(tmp_path):
    stored = to_dataset([example()]).cast_column("image", datasets.Image(decode=False))
    for content, why in ((b"%!PS-Adobe-3.0", "it is PostScript"), (b"", "not an image")):
        row = stored[0] | {"image": {"bytes": content, "path": None}}
        with pytest.raises(ValueError, match=f"example 'a': .*{why}"):
            data.check(datasets.Dataset.from_list([row], features=FEATURES))
    turned = tmp_path / "turned.jpg"
    Image.new("RGB", (20, 10)).save(turned, exif=oriented(6))
    with pytest.raises(ValueError, match=r"a mask is 20 x 10, its image \(10, 20\).*swapped, as an EXIF orientation"):
        data.check(to_dataset([ReferringExample(str(turned), "it", example().masks, "a", "a")]))
