"""Benchmark runs: resumed after a kill, scored without a model, from predictions of any system."""

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from filelock import FileLock
from genseg_hub import GenSegR1, archives
from genseg_hub.errors import PredictionError, RunError
from genseg_hub.evaluation import benchmark_run, prediction_files, predictions, scores
from genseg_hub.images import image_size
from genseg_hub.referring_dataset import from_dataset, to_dataset
from genseg_hub.schema import Failure, InstancePrompt, Prediction, Response, ResponseError
from genseg_training.nano.refscenes import refscenes

from tests.helpers import archive_files

SETTINGS = {"benchmark": "coco", "split": "data", "model": "nano"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def scenes():
    """Make twelve expressions that nano can answer."""
    return to_dataset(refscenes("val", 12))


@pytest.fixture
def photos(tmp_path):
    archive_files.coco(tmp_path / "archive")
    return archives.load_archive("coco", tmp_path / "archive", "data")[0]


def run(folder, examples, source, policy="grefcoco", settings=SETTINGS, overwrite=False):
    given = (lambda: source) if isinstance(source, GenSegR1) else source
    return benchmark_run.run(folder, settings, examples, given, policy, "an archive", "genseg benchmark", 4, overwrite)


def prediction_of(mask):
    height, width = mask.shape
    response = Response("", "", (InstancePrompt((0, 0, width, height), ()),))
    return Prediction(response, (mask,), (1.0,), (width, height))


def never():
    raise AssertionError("the model was loaded")


def metrics_of(folder):
    return json.loads((folder / benchmark_run.METRICS).read_text()) | {"cost": None}


@pytest.fixture(scope="module")
def finished(nano, scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "nano"
    run(folder, scenes, nano)
    return folder


def test_a_run_has_the_figures_of_the_evaluation(finished, scenes, nano):
    rows = []
    expected = scores.evaluate(nano, from_dataset(scenes), 4, lambda *result: rows.append(result[2])).compute()
    found = metrics_of(finished)
    assert found["miou"] > 0.5
    cost = json.loads((finished / benchmark_run.METRICS).read_text())["cost"]
    assert cost["tokens"] == expected.pop("cost")["tokens"]
    assert cost["seconds"] > 0
    assert list(cost["memory_bytes"]) == ["cpu"]
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    assert found["missing"] == 0
    assert [json.loads(line) for line in (finished / benchmark_run.ROWS).read_text().splitlines()] == rows
    for line in map(json.loads, (finished / benchmark_run.PREDICTIONS).read_text().splitlines()):
        assert line["answer"].endswith("</answer>")
        result = predictions.from_line(line)
        assert [list(instance.box) for instance in result.response.instances] == [i["box"] for i in line["instances"]]


@pytest.mark.parametrize("kept", [0, 1, 700, 0.5, 0.9])
def test_a_run_that_was_killed_goes_on(finished, scenes, nano, tmp_path, monkeypatch, kept):
    whole = (finished / benchmark_run.PREDICTIONS).read_bytes()
    before = metrics_of(finished)
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / benchmark_run.SETTINGS).write_text((finished / benchmark_run.SETTINGS).read_text())
    cut = whole[: kept if isinstance(kept, int) else int(kept * len(whole))]
    (folder / benchmark_run.PREDICTIONS).write_bytes(cut)
    asked = []
    segment_many = nano.segment_many

    def counting(examples, batch_size):
        return segment_many((asked.append(example) or example for example in examples), batch_size)

    monkeypatch.setattr(nano, "segment_many", counting)
    run(folder, scenes, nano)
    assert len(asked) == len(scenes) - cut.count(b"\n")
    assert metrics_of(folder) == before
    assert (folder / benchmark_run.PREDICTIONS).read_bytes().startswith(cut[: cut.rfind(b"\n") + 1])


def test_a_failed_expression_is_recorded_and_asked_again(scenes, nano, tmp_path, monkeypatch):
    folder, scenes = tmp_path / "run", scenes.select(range(4))
    segment = nano.segmenter.segment

    def failing(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(nano.segmenter, "segment", failing)
    text = run(folder, scenes, nano)
    failed = metrics_of(folder)["failures"]
    assert 0 < failed <= len(scenes)
    assert f"not segmented {failed}" in text
    lines = [json.loads(line) for line in (folder / benchmark_run.PREDICTIONS).read_text().splitlines()]
    assert sum("no memory" in line.get("failure", "") for line in lines) == failed
    monkeypatch.setattr(nano.segmenter, "segment", segment)
    run(folder, scenes, nano)
    assert metrics_of(folder)["failures"] == 0


def test_other_settings_and_other_folders_are_refused(finished, scenes, nano, tmp_path):
    with pytest.raises(RunError, match="holds a run with the model 'nano', not 'other'"):
        run(finished, scenes, nano, settings=SETTINGS | {"model": "other"})
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="holds something else than a run"):
        run(tmp_path, scenes, nano)
    with pytest.raises(ValueError, match="there is no policy 'mine'"):
        run(tmp_path / "new", scenes, nano, policy="mine")
    assert not (tmp_path / "new").exists()


def test_a_changed_table_is_asked_again_and_two_processes_do_not_mix(scenes, nano, tmp_path):
    folder = tmp_path / "run"
    few = scenes.select(range(3))
    run(folder, few, nano)
    before = [json.loads(line) for line in (folder / benchmark_run.PREDICTIONS).read_text().splitlines()]
    # A row was removed from a user's table, whose rows are numbered, so the same ids have other questions.
    moved = scenes.select(range(1, 4)).remove_columns("example_id").add_column("example_id", few["example_id"][:])
    run(folder, moved, nano)
    after = [json.loads(line) for line in (folder / benchmark_run.PREDICTIONS).read_text().splitlines()]
    assert after[:3] == before
    assert [line["expression"] for line in after[3:]] == moved["expression"][:]
    assert metrics_of(folder)["missing"] == 0
    with FileLock(folder / ".lock"), pytest.raises(RunError, match="another process works in"):
        run(folder, moved, nano)


def test_the_true_masks_as_coco_results_are_perfect(photos, tmp_path):
    entries = [
        {"image_id": example.example_id, "category_id": 1, "segmentation": mask, "score": 0.5}
        for example in from_dataset(photos)
        for mask in example.masks
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(entries))
    figures = [run(tmp_path / "run", photos, file) and metrics_of(tmp_path / "run")]
    assert figures[0]["target_miou"] == figures[0]["ciou"] == figures[0]["box_miou"] == 1
    # COCO's results have no no-target answer, so no-target expressions have no prediction.
    assert figures[0]["missing"] == figures[0]["n_no_target"] > 0
    lines = [{"example_id": e.example_id, "instances": [{"mask": m} for m in e.masks]} for e in from_dataset(photos)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tmp_path / "other", photos, file, settings=SETTINGS | {"model": "mine.jsonl"})
    perfect = metrics_of(tmp_path / "other")
    assert perfect["miou"] == perfect["ciou"] == perfect["n_acc"] == 1
    assert perfect["missing"] == 0
    # Another policy needs no model: RefCOCO's evaluators give a rejected no-target 0.
    run(tmp_path / "other", photos, file, "refcoco", SETTINGS | {"model": "mine.jsonl"})
    assert metrics_of(tmp_path / "other")["miou"] == pytest.approx(perfect["n_target"] / perfect["n"])


def test_predictions_that_do_not_fit_are_named(photos, tmp_path):
    file = tmp_path / "mine.jsonl"
    example = next(from_dataset(photos))
    file.write_text(json.dumps({"example_id": "elsewhere", "instances": []}) + "\n")
    with pytest.raises(RunError, match=r"no prediction in .* is about these expressions; their ids are like"):
        run(tmp_path / "a", photos, file)
    tiny = {"size": [1, 1], "counts": "01"}
    file.write_text(json.dumps({"example_id": example.example_id, "instances": [{"mask": tiny}]}) + "\n")
    with pytest.raises(RunError, match="does not fit: the target mask is"):
        run(tmp_path / "b", photos, file)
    for text in ("not json", "[]", "{}", '{"example_id": "1"}', '{"example_id": "1", "instances": [{"mask": 3}]}',
                 '{"example_id": "1", "instances": [], "error": "other"}', '{"example_id": "1", "instances": [{"mask": '
                 '{"size": [4, 4], "counts": "zzzzzz"}}]}', '{"example_id": "1", "instances": [{"mask": {"size": '
                 '[1000000000, 1000000000], "counts": "0"}}]}'):  # fmt: skip
        file.write_text(text + "\n")
        with pytest.raises(PredictionError, match=r"line 1 of .*mine.jsonl|the prediction of '1'"):
            run(tmp_path / "c", photos, file)
        assert not (tmp_path / "c" / benchmark_run.PREDICTIONS).exists()
    file = tmp_path / "mine.json"
    for text in ("{}", "[1]", '[{"image_id": 1}]', "nothing"):
        file.write_text(text)
        with pytest.raises(PredictionError, match="is not a list of COCO results"):
            list(prediction_files.read(file))


def test_stored_predictions_are_scored_without_a_model(finished, scenes, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "again")
    before = metrics_of(folder)
    run(folder, scenes, never)
    assert metrics_of(folder) == before
    run(folder, scenes, never, "refcoco")
    assert metrics_of(folder)["policy"] == "refcoco"
    with pytest.raises(AssertionError, match="was loaded"):
        run(folder, scenes, never, overwrite=True)
    assert (folder / benchmark_run.PREDICTIONS).read_bytes() == (finished / benchmark_run.PREDICTIONS).read_bytes()


def test_a_line_gives_back_its_prediction(finished, scenes, nano):
    for example in list(from_dataset(scenes))[:3]:
        result = nano.segment(example.image, example.expression)
        again = predictions.from_line(json.loads(json.dumps(predictions.to_line(example, result))))
        assert again.response.instances == result.response.instances
        assert again.response.text == result.response.text
        assert again.image_size == result.image_size
        assert all((a == b).all() for a, b in zip(again.masks, result.masks, strict=True))
    prompt = InstancePrompt((0.5, 1.0, 2.0, 3.0), ((9.0, 9.0), (1.0, 1.25)), 1, ((2.0, 2.0),))
    response = Response("text", "because", (prompt,), ResponseError.TRUNCATED)
    made = Prediction(response, (np.eye(4, dtype=bool),), (0.3,), (4, 4))
    again = predictions.from_line(json.loads(json.dumps(predictions.to_line(example, made))))
    assert (again.response, again.scores) == (made.response, made.scores)
    failure = predictions.from_line(predictions.to_line(example, Failure("why", ValueError("why"))))
    assert isinstance(failure, Failure)
    assert failure.message == "why"


def test_expressions_with_other_spaces_are_not_asked_again(finished, scenes, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "again")
    spaced = [f"  {text} ".replace(" ", " \u00a0") for text in scenes["expression"]]
    same = scenes.remove_columns("expression").add_column("expression", spaced)
    run(folder, same, never)
    assert metrics_of(folder)["miou"] == metrics_of(finished)["miou"]
    # A run of an older version stored the expressions as they were.
    lines = [json.loads(line) for line in (folder / benchmark_run.PREDICTIONS).read_text().splitlines()]
    before = [line | {"expression": text} for line, text in zip(lines, spaced, strict=True)]
    (folder / benchmark_run.PREDICTIONS).write_text("".join(json.dumps(line) + "\n" for line in before))
    run(folder, scenes, never)
    assert metrics_of(folder)["miou"] == metrics_of(finished)["miou"]
    assert metrics_of(folder)["missing"] == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\udcff"])
def test_damaged_settings_are_begun_anew_only_when_asked_to(finished, scenes, nano, tmp_path, content):
    folder = shutil.copytree(finished, tmp_path / "again")
    (folder / benchmark_run.SETTINGS).write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=r"run.json is damaged; begin the run anew with --overwrite"):
        run(folder, scenes, never)
    few = scenes.select(range(1))
    run(folder, few, nano, overwrite=True)
    assert json.loads((folder / benchmark_run.SETTINGS).read_text()) == SETTINGS
    assert len((folder / benchmark_run.PREDICTIONS).read_text().splitlines()) == 1


def test_overwriting_removes_nothing_before_all_checks(finished, scenes, tmp_path, photos):
    folder = shutil.copytree(finished, tmp_path / "again")
    (folder / "notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{")
    for source, options, message in (
        (never, {"policy": "mine"}, "there is no policy 'mine'"),
        (broken, {}, "line 1 of .*broken.jsonl"),
        (tmp_path / "none.jsonl", {}, "there is no file .*none.jsonl"),
        (folder / benchmark_run.PREDICTIONS, {}, "which would be overwritten"),
    ):
        with pytest.raises(ValueError, match=message):
            run(folder, scenes, source, overwrite=True, **options)
    with FileLock(folder / benchmark_run.LOCK), pytest.raises(RunError, match="another process works in"):
        run(folder, scenes, never, overwrite=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (folder / benchmark_run.SETTINGS).write_text('{"mine": 1}')
    with pytest.raises(RunError, match="holds something else than a run"):
        run(folder, scenes, never, overwrite=True)
    assert (folder / benchmark_run.PREDICTIONS).read_bytes() == before[benchmark_run.PREDICTIONS]


def test_a_file_in_the_place_of_the_folder_is_refused(scenes, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="holds something else than a run"):
        run(tmp_path / "file", scenes, never)


def test_a_changed_checkpoint_is_refused(finished, scenes, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "again")
    (folder / benchmark_run.SETTINGS).write_text(json.dumps(SETTINGS | {"checksum": "sha256:1"}))
    run(folder, scenes, never, settings=SETTINGS | {"checksum": "sha256:1"})
    with pytest.raises(
        RunError,
        match=r"checksum 'sha256:1', not 'sha256:2' \(its files have changed\); name another --out, or .*--overwrite",
    ):
        run(folder, scenes, never, settings=SETTINGS | {"checksum": "sha256:2"})
    with pytest.raises(RunError, match="the checksum 'sha256:1', not None"):
        run(folder, scenes, never)
    with pytest.raises(RunError, match="the model 'nano', not 'mine'"):
        run(folder, scenes, never, settings={**SETTINGS, "model": "mine"})


def test_an_unreadable_line_costs_its_expression(finished, scenes, nano, tmp_path, caplog):
    folder = shutil.copytree(finished, tmp_path / "again")
    file, before = folder / benchmark_run.PREDICTIONS, metrics_of(finished)
    lines = file.read_text().splitlines()
    # Versions before this one wrote such a point and such a score.
    far = json.loads(lines[2])
    far["instances"] = [{"mask": {"size": [4, 4], "counts": "07"}, "points": [[1234567890, 1]], "score": 0.5}]
    lines[1:4] = [lines[1][:50], json.dumps(far), lines[3].replace('"instances"', '"other": NaN, "instances"')]
    file.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")
    with pytest.raises(AssertionError, match="was loaded"):
        run(folder, scenes, never)
    run(folder, scenes, nano)
    assert "3 lines are left out, and their expressions are asked again; the first: line 3 of" in caplog.text
    assert metrics_of(folder) == before
    assert len(file.read_text().splitlines()) == len(lines) + 1 + 3
    run(folder, scenes, never)
    assert metrics_of(folder) == before


def test_an_image_damaged_after_the_run_is_scored_by_the_size_in_its_header(photos, tmp_path):
    example = next(example for example in from_dataset(photos) if not example.masks)
    file, (width, height) = tmp_path / "mine.jsonl", image_size(example.image)
    mask = predictions.to_line(example, prediction_of(np.eye(height, width, dtype=bool)))["instances"][0]["mask"]
    file.write_text(json.dumps({"example_id": example.example_id, "instances": [{"mask": mask}]}) + "\n")
    whole = Path(example.image).read_bytes()
    for content in whole[: len(whole) // 2], b"no image":
        Path(example.image).write_bytes(content)
        run(tmp_path / "run", photos, file, overwrite=True)
        assert metrics_of(tmp_path / "run")["missing"] == len(photos) - 1


def test_a_no_targets_masks_must_have_the_images_size(photos, tmp_path):
    file = tmp_path / "mine.jsonl"
    example = next(example for example in from_dataset(photos) if not example.masks)
    tiny = {"size": [1, 1], "counts": "01"}
    file.write_text(json.dumps({"example_id": example.example_id, "instances": [{"mask": tiny}]}) + "\n")
    with pytest.raises(RunError, match=r"does not fit: the image is \(\d+, \d+\).* prediction \(1, 1\)"):
        run(tmp_path / "run", photos, file)
