"""Pictures: training sees what inference sees, and a recipe that has no room for them is refused."""

import numpy as np
import pytest
import transformers
from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.dialects import genseg
from genseg_hub.images import load_image
from genseg_hub.options import ReasonerOptions
from genseg_hub.questions import Questions
from genseg_hub.referring_dataset import to_dataset
from genseg_hub.schema import ReferringExample, encode_mask
from genseg_training import pictures, rewards, rows
from PIL import Image

from tests.helpers.referring import example
from tests.helpers.strategies import oriented


def trainable(*examples, **options):
    return pictures.trainable(rows.of_examples(to_dataset(examples)), ReasonerOptions(**options))


def test_rows_hold_what_the_rewards_read():
    (row,) = trainable(example(boxes=((1, 2, 5, 6), (8, 0, 20, 10))))
    assert row["prompt"][0]["role"] == "system"
    assert row["prompt"][1] == {"role": "user", "content": "Expression: it"}
    answer = (
        '<think></think><answer>[{"bbox_2d":[50,200,250,600],"points":[[100,300],[200,500]]},'
        '{"bbox_2d":[400,0,1000,1000],"points":[[500,500],[900,500]]}]</answer>'
    )
    columns = {name: [row[name]] for name in ("image_size", "boxes", "masks")}
    assert rewards.box_iou_reward([answer], **columns) == [1]
    assert rewards.points_reward([answer], **columns) == [1]


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
        (row,) = trainable(ReferringExample(str(file), "it", (encode_mask(mask),), "a", "a"))
        assert row["image"].mode == "RGB"
        assert np.array_equal(np.asarray(row["image"]), np.asarray(expected))
        assert row["original"] is row["image"]
        assert tuple(row["image_size"]) == expected.size


@pytest.mark.parametrize("options", [{}, {"max_pixels": 3000}, {"min_pixels": 40_000}, {"max_pixels": 500}])
@pytest.mark.parametrize("size", [(64, 48), (100, 30), (3000, 2000)])
def test_a_large_image_is_shown_as_inference_shows_it(options, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8))
    options = ReasonerOptions(**options)
    asked = Questions.__new__(Questions)
    asked._dialect, asked._options = genseg, options
    expected = asked.shown(image, image.size)
    assert np.array_equal(np.asarray(pictures.shown(image, options)), np.asarray(expected))


def test_the_segmenter_keeps_the_original():
    (row,) = trainable(example(size=(200, 100), boxes=((1, 2, 5, 6),)), max_pixels=5000)
    assert row["image"].width * row["image"].height <= 5000
    assert row["original"].size == (200, 100) == tuple(row["image_size"])
    assert row["boxes"] == [[1, 2, 5, 6]]


def test_prompts_without_room_are_counted_before_the_start():
    processor = transformers.AutoProcessor.from_pretrained(EMBEDDED["nano"])
    made = rows.of_examples(
        to_dataset([example(size=(64, 64)), example(size=(640, 640)), example(expression="red star " * 60)])
    )
    options = ReasonerOptions()
    expected = []
    for row in pictures.trainable(made, options):
        text = processor.apply_chat_template(
            genseg.messages(row["image"].size, row["prompt"][1]["content"].removeprefix("Expression: ")),
            tokenize=False,
            add_generation_prompt=True,
        )
        expected.append(processor(text=[text], images=[row["image"]], return_tensors="pt")["input_ids"].shape[1])
    most = max(expected)
    pictures.check_room(made, processor, options, most, "all")
    with pytest.raises(ValueError, match=rf"1 of 3 expressions need up to {most} tokens .* room for {most - 1} \(less"):
        pictures.check_room(made, processor, options, most - 1, "less")
    small = ReasonerOptions(max_pixels=64 * 64)
    with pytest.raises(ValueError, match=r"3 of 3 expressions .* --max_pixels, now 4,096"):
        pictures.check_room(made, processor, small, 10, "less")
