"""Choosing the segmenter of a checkpoint, by its name, its folder or the Hub."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.errors import CheckpointError
from genseg_hub.images import load_image
from genseg_hub.options import HubOptions
from genseg_hub.publishing import publish
from genseg_hub.schema import decode_mask
from genseg_hub.segmenters.transformers import TransformersSegmenter
from PIL import Image

from tests.helpers.checkpoints import NANO, run
from tests.helpers.hub_server import WRITER
from tests.helpers.segmenting import assert_same, iou, photo, prompts, referring

REPO = "me/sam"


def name_segmenter(folder: Path, segmenter: str) -> None:
    """Change the segmenter in a checkpoint's settings."""
    file = folder / checkpoints.SETTINGS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"segmenter": segmenter}))


def assert_is_sam3(model: GenSegR1, sam3: TransformersSegmenter) -> None:
    image = photo()
    assert_same(model.segmenter.segment(image, prompts(image, 1)), sam3.segment(image, prompts(image, 1)))


def test_sam3_is_the_segmenter_of_a_checkpoint(folder, sam3_folder, sam3, nano):
    shutil.rmtree(folder / "segmenter")
    shutil.copytree(sam3_folder, folder / "segmenter")
    model = GenSegR1.from_pretrained(str(folder), device="cpu")
    assert_is_sam3(model, sam3)
    scene = referring()
    mine, other = (m.segment(scene.image, scene.expression) for m in (model, nano))
    assert mine.response == other.response
    assert [mask.shape for mask in mine.masks] == [mask.shape for mask in other.masks] != []
    assert model.checkpoint.pinned == str(folder)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("nano",), ("nano", None)),
        (("nano", "me/sam"), ("nano", "me/sam")),
        (("nano+me/sam@v1",), ("nano", "me/sam@v1")),
        (("me/a@v2+./b+c",), ("me/a@v2", "./b+c")),
        (("{a}+x+me/sam",), ("{a}+x", "me/sam")),
        (("{a}+x",), ("{a}+x", None)),
        (("{a}+x", "nano"), ("{a}+x", "nano")),
    ],
)
def test_a_name_may_carry_a_segmenter(tmp_path, given, expected):
    (tmp_path / "a+x").mkdir()
    here = str(tmp_path / "a")
    given, expected = ([part and part.format(a=here) for part in parts] for parts in (given, expected))
    assert list(checkpoints.split_segmenter(*given)) == expected


@pytest.mark.parametrize(
    ("name", "segmenter", "message"),
    [
        ("nano+", None, "must be checkpoint.segmenter"),
        ("nano+me/sam", "me/sam", "with the segmenter given once"),
        ("nano", "sam3", "the segmenter 'sam3' is neither a usable folder nor a Hub id"),
        ("nano", "./nowhere", "the segmenter './nowhere' is neither"),
        ("nano", "me/sam@", "must be owner/name@revision"),
        ("nano", "a b/c", "is not a Hub id"),
        ("nano", "x\0/y", "is not a Hub id"),
        ("+me/sam", None, "there is no checkpoint ''"),
    ],
)
def test_a_wrong_segmenter_is_explained(name, segmenter, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.pull(name, segmenter=segmenter, options=HubOptions(local_files_only=True))
    if segmenter and "+" not in name:
        with pytest.raises(CheckpointError, match=message):
            checkpoints.check_name(f"{name}+{segmenter}")


@pytest.mark.parametrize(
    "segmenter", ["../outside", "{0}/outside", "link", "a\0b", "n" * 300, "segmenter/../../outside"]
)
def test_a_checkpoint_names_no_segmenter_outside_its_folder(folder, tmp_path, segmenter):
    shutil.copytree(folder / "segmenter", tmp_path / "outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    name_segmenter(folder, segmenter.format(tmp_path))
    with pytest.raises(CheckpointError, match=r"is neither a usable folder nor a Hub id|is not a folder"):
        checkpoints.pull(str(folder), options=HubOptions(local_files_only=True))


def test_a_segmenter_of_the_hub_serves_any_checkpoint_and_is_pinned(hub, sam2_folder, nano, tmp_path):
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=WRITER)
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=sam2_folder).oid
    name = f"nano+{REPO}"
    planned = checkpoints.plan(name)
    assert {file.filename for file in planned.files} == {"config.json", "model.safetensors", "processor_config.json"}
    folder = shutil.copytree(NANO, tmp_path / "folder", ignore=shutil.ignore_patterns("segmenter"))
    name_segmenter(folder, REPO)
    assert {file.filename for file in checkpoints.plan(str(folder)).files} == {file.filename for file in planned.files}
    assert not checkpoints.is_on_disk(name)
    pulled = run("pull", name)
    assert pulled.exit_code == 0, pulled.output
    assert checkpoints.is_on_disk(name)
    model = GenSegR1.from_pretrained("nano", device="cpu", segmenter=REPO)
    assert model.checkpoint.pinned == f"nano+{REPO}@{first}"
    assert model.checkpoint.segmenter_id == REPO
    assert isinstance(model.segmenter, TransformersSegmenter)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=REPO)
    again = GenSegR1.from_pretrained(model.checkpoint.pinned, device="cpu")
    assert again.checkpoint.pinned == model.checkpoint.pinned == f"nano+{again.checkpoint.segmenter_id}"
    scene = referring()
    for a, b in zip(*(m.segment(scene.image, scene.expression).masks for m in (again, nano)), strict=True):
        assert iou(a, b) > 0.99


def test_a_checkpoint_with_sam3_is_published_whole(hub, folder, sam3_folder, sam3):
    shutil.rmtree(folder / "segmenter")
    shutil.copytree(sam3_folder, folder / "segmenter")
    publish.push(folder, "me/words")
    assert_is_sam3(GenSegR1.from_pretrained("me/words", device="cpu"), sam3)


def test_genseg_segment_takes_a_segmenter(sam2_folder, tmp_path):
    scene = referring()
    Image.fromarray(np.array(load_image(scene.image))).save(tmp_path / "scene.png")
    command = ("segment", tmp_path / "scene.png", scene.expression, "--json", "--device", "cpu")
    given = [json.loads(run(*command, *extra).stdout) for extra in ((), ("--segmenter", sam2_folder))]
    assert [result["model"] for result in given] == ["nano", f"nano+{sam2_folder}"]
    masks = [[decode_mask(instance["mask"]) for instance in result["instances"]] for result in given]
    assert masks[0]
    for a, b in zip(*masks, strict=True):
        assert iou(a, b) > 0.99
