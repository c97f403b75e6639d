"""Slices of groups, dynamic groups, frames and lists of expressions: asked, evaluated and exported, or refused."""

import datasets
import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionContext
from PIL import Image

import fiftyone_genseg
from fiftyone_genseg import fields
from fiftyone_genseg.cli import app
from fiftyone_genseg.datasets.export import export
from fiftyone_genseg.evaluation.request import EvaluationRequest
from fiftyone_genseg.operators import _forms
from fiftyone_genseg.segmentation.engines.local import local_engine
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view
from tests.helpers.squares import one, square

OPERATORS = "@fiftyone-genseg/genseg/"


def segment(view, nano, **options):
    return list(segment_view(view, SegmentRequest(**options), local_engine(nano)))[-1]


@pytest.fixture
def grouped(dataset):
    """RefScenes as groups: a slice of images that are asked, one of pictures of nothing, one of point clouds."""
    made = fo.Dataset(f"{dataset.name}-groups")
    made.add_group_field("group", default="left")
    made.add_sample_field("expression", fo.StringField)
    for scene in dataset:
        group = fo.Group()
        left = fo.Sample(filepath=scene.filepath, group=group.element("left"), expression=scene["expression"])
        left["ground_truth"] = scene["ground_truth"].copy()
        right = fo.Sample(filepath=scene.filepath, group=group.element("right"), expression="the red shape")
        cloud = fo.Sample(filepath="/clouds/of/points.pcd", group=group.element("cloud"))
        made.add_samples([left, right, cloud], progress=False)
    yield made
    made.delete()


def test_a_slice_of_groups(grouped, nano, tmp_path):
    for name in ("left", "right"):  # the active slice is "left"
        view = grouped.select_group_slices(name)
        summary = segment(view, nano, expression_field="expression")
        assert (summary.total, summary.statuses["failed"]) == (16, 0)
        assert all(view.values("genseg_responses"))
        assert segment(view, nano, expression_field="expression").skipped == 16
    left = grouped.select_group_slices("left")
    results = fiftyone_genseg.evaluate(left, eval_key="ev")
    assert results.table["sample_id"].tolist() == left.values("id")
    assert None not in left.values("ev_failure")
    assert set(grouped.select_group_slices("right").values("ev_failure")) == {None}
    assert results.in_view(grouped).all()
    assert grouped.load_evaluation_view("ev").values("id") == left.values("id")
    assert export(left, tmp_path / "out") == 16
    assert datasets.load_from_disk(str(tmp_path / "out"))["expression"] == left.values("expression")


def test_groups_of_no_slice_are_refused_with_the_slices(grouped, plugin, tmp_path):
    problem = "the samples of .* are groups: choose a slice of images, dataset.select_group_slices.'left'.*left, right$"
    for view in (grouped, grouped.limit(3)):
        with pytest.raises(ValueError, match=problem):
            fiftyone_genseg.evaluate(view, "ground_truth", "ground_truth")
        with pytest.raises(ValueError, match=problem):
            export(view, tmp_path / "out")
        with pytest.raises(ValueError, match=problem):
            SegmentRequest("a star").check(view)
        with pytest.raises(ValueError, match=problem):
            foo.get_operator(f"{OPERATORS}referring_segment")(view, "a star")
    with pytest.raises(ValueError, match=r"needs images.*'point-cloud'"):
        fields.check_view(grouped.select_group_slices("cloud"))
    with pytest.raises(ValueError, match="groups: choose a slice of images"):
        fields.check_view(grouped.select_group_slices(["left", "cloud"], _allow_mixed=True))


def context(view, **request):
    parameters = {"dataset_name": view._dataset.name, "view": view._serialize(), "params": {}}
    return ExecutionContext(request_params=parameters | request)


def test_the_app_means_the_slice_that_it_shows(grouped):
    right = grouped.select_group_slices("right").values("id")
    assert _forms.target_view(context(grouped.view(), group_slice="right")).values("id") == right
    chosen = context(grouped.view(), group_slice="right", view_target="SELECTED_SAMPLES", selected=right[:2])
    assert _forms.target_view(chosen).values("id") == right[:2]
    whole = _forms.target_view(context(grouped.view(), group_slice="right", view_target="DATASET"))
    assert "groups: choose a slice" in (EvaluationRequest.from_params(whole, {}).problem(whole) or "").lower()


def test_a_command_names_the_slice(grouped, cli):
    arguments = ["segment-dataset", grouped.name, "--device", "cpu", "--expression", "all shapes", "--batch-size", "16"]
    result = cli(*arguments)
    assert result.exit_code == 1
    assert "--group-slice left" in result.stderr
    result = cli(*arguments, "--group-slice", "right")
    assert result.exit_code == 0, result.output
    grouped.reload()
    assert all(grouped.select_group_slices("right").values("genseg_responses"))
    result = cli(*arguments, "--group-slice", "front")
    assert result.exit_code == 1
    assert "front" in result.stderr


@pytest.fixture
def cli():
    from typer.testing import CliRunner

    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_dynamic_groups_are_all_of_their_samples(dataset, nano, plugin, tmp_path):
    by_image = dataset.group_by("image_id")
    assert len(by_image) == 4
    summary = segment(by_image, nano, expression_field="expression")
    assert (summary.total, summary.statuses["failed"]) == (16, 0)
    assert all(dataset.values("genseg_responses"))
    results = fiftyone_genseg.evaluate(by_image, eval_key="ev")
    assert sorted(results.table["sample_id"]) == sorted(dataset.values("id"))
    assert results.in_view(by_image).all()
    assert results.in_view(by_image.limit(1)).sum() == 4
    assert len(dataset.load_evaluation_view("ev")) == 16
    assert export(by_image, tmp_path / "out") == 16
    assert fiftyone_genseg.evaluate(by_image.limit(2)).table["sample_id"].nunique() == 8
    foo.execute_operator(
        f"{OPERATORS}evaluate_referring_segmentation", {"view": by_image}, params={"raise_errors": True}
    )
    dataset.reload()
    assert len(dataset.load_evaluation_results("eval_genseg").table) == 16


def test_dynamic_groups_of_a_slice(grouped, nano):
    by_image = grouped.select_group_slices("left").group_by("filepath")
    summary = segment(by_image, nano, expression_field="expression")
    assert (summary.total, summary.statuses["failed"]) == (16, 0)
    assert fiftyone_genseg.evaluate(by_image).in_view(by_image.limit(2)).sum() == 8
    with pytest.raises(ValueError, match="are groups: choose a slice"):
        fields.check_view(grouped.group_by("filepath"))


def test_patches_are_refused_and_the_remedy_works(dataset):
    patches = dataset.to_patches("ground_truth")
    with pytest.raises(ValueError, match=r"dataset\.select\(patches\.distinct"):
        fields.check_view(patches)
    fields.check_view(dataset.select(patches.distinct("sample_id")))


def test_videos_are_refused_and_their_frames_are_images(tmp_path, nano):
    videos = fo.Dataset(f"videos-{tmp_path.name}")
    video = fo.Sample(filepath=str(tmp_path / "video.mp4"))
    for number in (1, 2):  # as `to_frames(sample_frames=True)` leaves them; that needs ffmpeg
        file = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64), "red").save(file)
        video.frames[number] = fo.Frame(filepath=str(file))
    videos.add_sample(video)
    try:
        with pytest.raises(ValueError, match=r"videos\.to_frames\(sample_frames=True\)\.clone"):
            fields.check_view(videos)
        frames = videos.to_frames()
        with pytest.raises(ValueError, match=r"frames\.clone"):
            fields.check_view(frames)
        images = frames.clone(f"frames-{tmp_path.name}")
        summary = segment(images, nano, expressions=["all shapes"])
        assert (summary.done, summary.statuses["failed"]) == (2, 0)
        images.delete()
    finally:
        videos.delete()


def test_lists_of_expressions(make, nano, tmp_path):
    rows = {"asked": ["left one", " right  one", "left one", ""], "ground_truth": fo.Detections(
        detections=[square(0, 0, expression=["left one"]), square(20, 0, expression=["right one"])]
    )}  # fmt: skip
    dataset = make(rows, {"asked": [], "ground_truth": fo.Detections()}, {"asked": None, "ground_truth": None})
    summary = segment(dataset, nano, expression_field="asked")
    assert (summary.total, summary.done) == (2, 2)
    assert [r.expression for r in dataset.first()["genseg_responses"]] == ["left one", "right one"]
    assert segment(dataset, nano, expression_field="asked").skipped == 2
    results = fiftyone_genseg.evaluate(dataset, eval_key="ev", expression_field="asked")
    assert results.table["expression"].tolist() == ["left one", "right one"]
    assert export(dataset, tmp_path / "out", expression_field="asked") == 2
    exported = datasets.load_from_disk(str(tmp_path / "out"))
    assert [len(masks) for masks in exported["masks"]] == [1, 1]


def test_lists_of_expressions_need_masks_that_name_theirs(make, tmp_path):
    dataset = make(one("a", [square(0, 0)], [square(0, 0)]) | {"asked": ["a", "b"]})
    for refused in (
        lambda: fiftyone_genseg.evaluate(dataset, expression_field="asked"),
        lambda: export(dataset, tmp_path / "out", expression_field="asked"),
    ):
        with pytest.raises(ValueError, match="each detection in 'ground_truth' needs an attribute 'expression'"):
            refused()


def test_media_without_a_known_ending_are_named(tmp_path):
    file = tmp_path / "picture"
    Image.new("RGB", (8, 8)).save(file, "PNG")
    dataset = fo.Dataset(f"unknown-{tmp_path.name}")
    dataset.add_sample(fo.Sample(filepath=str(file)))
    with pytest.raises(ValueError, match=r"their file extensions.*/picture': rename the files"):
        fields.check_view(dataset)
    dataset.delete()
