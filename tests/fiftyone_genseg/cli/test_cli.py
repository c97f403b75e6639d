"""`genseg` from a terminal."""

import json
import os
import re
import runpy

import datasets
import numpy as np
import pytest
from genseg_hub import GenSegR1, archives
from genseg_hub.checkpoints.catalog import KNOWN
from genseg_hub.schema import decode_mask
from genseg_training.nano.refscenes import refscenes
from PIL import Image
from typer.testing import CliRunner

from fiftyone_genseg.cli import app
from fiftyone_genseg.demo import refscenes_dataset
from tests.conftest import ROOT
from tests.helpers import archive_files, sam3_words

run = CliRunner().invoke


@pytest.fixture
def picture(tmp_path):
    example = next(iter(refscenes("val", 1)))
    path = tmp_path / "scene.png"
    Image.fromarray(example.image).save(path)
    return path


def test_segment_prints_json_and_draws(picture, tmp_path, nano):
    out = tmp_path / "drawn" / "overlay.png"
    result = run(app, ["segment", str(picture), "all shapes", "--json", "--out", str(out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout.splitlines()[-1])
    expected = nano.segment(picture, "all shapes")
    assert len(printed["instances"]) == len(expected.masks) > 0
    assert np.array_equal(decode_mask(printed["instances"][0]["mask"]), expected.masks[0])
    with Image.open(out) as drawn, Image.open(picture) as plain:
        assert drawn.size == plain.size
        assert np.asarray(drawn).tolist() != np.asarray(plain).tolist()


def test_segment_speaks_to_people(picture):
    result = run(app, ["segment", str(picture), "all shapes", "--device", "cpu"])
    assert "box (" in result.stdout
    assert "predicted IoU" in result.stdout


def test_compare_says_by_how_much_another_is_better(tmp_path):
    rows = tmp_path / "nano.jsonl"
    result = run(app, ["evaluate", "refscenes", "--limit", "8", "--rows", str(rows), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    measured = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(measured) == 8
    report = json.loads(result.stdout.splitlines()[-1])
    assert np.mean([row["iou"] for row in measured]) == pytest.approx(report["miou"])
    worse = tmp_path / "worse.jsonl"
    silent = {"prediction_area": 0, "intersection": 0}
    worse.write_text("".join(json.dumps(row | silent | {"iou": row["iou"] - 0.25}) + "\n" for row in measured))
    result = run(app, ["evaluate", "compare", str(rows), str(rows), str(worse)])
    assert result.exit_code == 0, result.output
    same, other = (line for line in result.stdout.splitlines() if " all " in line)
    assert same.split()[3:] == ["+0.0", "[+0.0,", "+0.0]"] * 2
    assert other.split()[3] == f"{-100 * report['ciou']:+.1f}"
    assert other.split()[-3:] == ["-25.0", "[-25.0,", "-25.0]"]


def test_runs_without_a_common_expression_are_not_compared(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    result = run(app, ["evaluate", "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "none.jsonl")])
    assert result.exit_code == 1
    assert "none.jsonl" in result.stderr


def test_segment_dataset_goes_on_where_it_was(tmp_path):
    dataset = refscenes_dataset("test-cli", tmp_path, 1)
    arguments = ["segment-dataset", dataset.name, "--device", "cpu", "--expression", "all shapes"]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == "4 segmented, 0 no-target\n"
    result = run(app, [*arguments, "--expression", "the red shape", "--output-field", "genseg"])
    assert result.exit_code == 0, result.output
    assert "4 skipped" in result.stdout
    dataset.reload()
    assert dataset.count_values("genseg_responses.expression") == {"all shapes": 4, "the red shape": 4}
    dataset.delete()


def test_shards_segment_a_dataset_together(dataset):
    arguments = ["segment-dataset", dataset.name, "--device", "cpu", "--expression-field", "expression"]
    counts = []
    for shard in ("3/3", "1/3", "2/3"):
        result = run(app, [*arguments, "--shard", shard])
        assert result.exit_code == 0, result.output
        dataset.reload()
        counts.append(len(dataset.exists("genseg_outcome")))
    assert counts == [6, 11, 16]
    assert set(dataset.count_values("genseg_outcome.expressions")) == {1}, "none is asked twice"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--expression", "x", "--shard", "4/3"], "'4/3' is no shard"),
        (["--expression", "x", "--images", "/data=s3://b"], "workers on Ray read images from a URL"),
        (["--expression", "x", "--expression-field", "expression"], "give either expressions or"),
        ([], "give either expressions or"),
        (["--expression-field", "nope"], "'nope' must be a field of strings.*; there are: .*expression"),
        (["--expression", "x", "--output-field", "9 lives"], "'9 lives' is not a field name"),
        (["--expression", "x", "--output-field", "kind"], "'kind' already holds something else"),
        (["--expression", "x", "--model", "nanno"], "there is no checkpoint 'nanno'"),
        (["--expression", "x", "--engine", "ray", "--address", "ray://a:1"], "does not run through ray://"),
        (["--expression", "x", "--engine", "ray", "--address", "127.0.0.1:9"], "no Ray cluster at 127.0.0.1:9"),
    ],
)
def test_segment_dataset_refuses_before_anything_is_written(dataset, options, message):
    result = run(app, ["segment-dataset", dataset.name, *options])
    assert result.exit_code == 1
    assert re.search(message, " ".join(result.stderr.split())), result.stderr
    assert "Traceback" not in result.output
    assert "genseg" not in dataset.get_field_schema()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment-dataset", "no-such", "--expression", "x"], "there is no dataset 'no-such'"),
        (["segment", "/none.png", "a dog"], "there is no file /none.png"),
        (["segment", "PICTURE", " "], "the expression is empty"),
        (["segment", "PICTURE", "x", "--model", "nanno"], "there is no checkpoint 'nanno'"),
        (["segment", "PICTURE", "x", "--out", "x.docx"], "no image extension"),
        (["segment", "PICTURE", "x", "--device", "gpu"], "there is no device 'gpu'"),
        (["evaluate", "refscenes", "--split", "train"], "no fixed split 'train'"),
    ],
)
def test_errors_are_one_sentence(picture, arguments, message):
    result = run(app, [str(picture) if a == "PICTURE" else a for a in arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.output


def test_evaluate_refscenes_prints_a_table_and_writes_json(tmp_path):
    out = tmp_path / "figures.json"
    result = run(app, ["evaluate", "refscenes", "--limit", "16", "--out", str(out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["n"] == 16
    assert figures["policy"] == "grefcoco"
    assert 0 < figures["segmenter_miou"] <= 1
    assert set(figures["by"]) == {"kind", "held_out"}
    assert sum(g["n"] for g in figures["by"]["kind"].values()) == 16
    assert "parse failures" in result.stdout


def test_the_demo_reports(tmp_path):
    result = run(app, ["demo", "--headless", "--scenes", "3", "--out", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["n"] == 12
    assert set(report["seconds"]) >= {"segment", "score", "draw"}
    assert report["versions"]["fiftyone"]
    with Image.open(tmp_path / "overview.png") as overview:
        assert overview.width > 500


def test_the_plugin_is_linked_and_removed(tmp_path, monkeypatch):
    import fiftyone as fo
    import fiftyone.zoo as foz

    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "models"))
    assert "linked" in run(app, ["plugin", "install"]).stdout
    assert "linked" in run(app, ["plugin", "install"]).stdout
    assert (tmp_path / "plugins" / "fiftyone-genseg" / "fiftyone.yml").is_file()
    assert "genseg-r1/nano" in foz.list_zoo_models()
    assert "removed" in run(app, ["plugin", "uninstall"]).stdout
    assert "genseg-r1/nano" not in foz.list_zoo_models()
    assert "was not linked" in run(app, ["plugin", "uninstall"]).stdout
    (tmp_path / "plugins" / "fiftyone-genseg").mkdir()
    result = run(app, ["plugin", "install"])
    assert result.exit_code == 1
    assert "is not a link" in result.stderr


def test_benchmark_scores_beside_the_published_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    archive_files.grefcoco(tmp_path / "data")
    result = run(app, ["benchmark", "grefcoco", "--limit", "2", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "| GenSeg-R1-G | 76.83 |" in result.stdout
    folder = tmp_path / "runs/benchmarks/grefcoco-val/nano"
    assert json.loads((folder / "metrics.json").read_text())["n"] == 2
    made = (folder / "predictions.jsonl").read_text()
    result = run(app, ["benchmark", "grefcoco", "--limit", "2", "--first-expression", "--device", "cpu"])
    assert (result.exit_code, "error: none of the 2 expressions has a usable answer" in result.stderr) == (1, True)
    assert (folder / "predictions.jsonl").read_text().startswith(made)
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 3  # one of the two was there
    result = run(app, ["benchmark", "grefcoco", "--predictions", str(folder / "predictions.jsonl"), "--out", "again"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "again/metrics.json").read_text())["missing"] == 96 - 3


def test_benchmark_compares_checkpoints_in_one_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    runpy.run_path(str(ROOT / "examples" / "own_benchmark.py"))["write"](tmp_path / "scenes", 4)
    sam3 = sam3_words.save(tmp_path / "tiny" / "sam3")
    command = ["benchmark", "coco", "--split", "data", "--root", str(tmp_path / "scenes"), "--device", "cpu"]
    command += ["--limit", "3", "--max-new-tokens", "100"]
    others = [f"nano+sam3-agent:{sam3}", str(sam3)]
    result = run(app, [*command, *(word for name in others for word in ("--against", name))])
    rows = [line for line in result.stdout.splitlines() if line.endswith((" this run |", " this command |"))]
    assert [row.split(" | ")[0] for row in rows] == ["| **nano**", "| **nano+sam3-agent:tiny/sam3**", "| **tiny/sam3**"]
    folder = tmp_path / "runs/benchmarks/coco-data"
    figures = {name: json.loads((folder / name / "metrics.json").read_text()) for name in os.listdir(folder)}
    assert set(figures) == {"nano", "nano_sam3-agent_tiny_sam3", "tiny_sam3"}
    assert all(its["n"] == 3 for its in figures.values())
    tokens = {name: its["cost"]["tokens"] for name, its in figures.items()}
    assert tokens["tiny_sam3"] == 0 < tokens["nano"] < tokens["nano_sam3-agent_tiny_sam3"]
    for row, name in zip(rows, ("nano", "nano_sam3-agent_tiny_sam3", "tiny_sam3"), strict=True):
        cost = figures[name]["cost"]
        memory = cost["memory_bytes"]["cpu"] / 1e9
        assert f"| {cost['seconds']:.2f} | {cost['tokens']:.1f} | {memory:.2f} (cpu) |" in row
    # nano knows no tools, so the command ends with status 1 for its agent; the runs are there and resume.
    assert "has a usable answer; 3 x the agent found no end within its rounds" in result.stderr
    stored = (folder / "tiny_sam3" / "predictions.jsonl").read_text()
    again = run(app, [*command, "--against", str(sam3)])
    assert again.exit_code == 0, again.output
    assert (folder / "tiny_sam3" / "predictions.jsonl").read_text() == stored
    for wrong in (["--out", "x"], ["--shard", "1/2"]):
        result = run(app, [*command, "--against", "nano", *wrong])
        assert "several checkpoints have folders of their own" in result.stderr


def test_benchmark_keeps_predictions_to_the_checkpoint_that_made_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    example = runpy.run_path(str(ROOT / "examples" / "own_benchmark.py"))
    example["write"](tmp_path / "scenes", 4)
    monkeypatch.chdir(folder)
    command = ["benchmark", "coco", "--split", "data", "--root", str(tmp_path / "scenes"), "--device", "cpu"]
    result = run(app, [*command, "--model", "."])
    assert result.exit_code == 0, result.output
    here = folder / "runs" / "benchmarks" / "coco-data" / f"{tmp_path.name}_checkpoint"
    before = (here / "metrics.json").read_text()
    assert json.loads(before)["miou"] > 0.5
    assert "data:image/jpeg" in (here / "report.html").read_text()

    def never(*arguments, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(GenSegR1, "from_pretrained", never)
    result = run(app, [*command, "--model", str(folder), "--policy", "refcoco"])
    assert result.exit_code == 0, result.output
    assert json.loads((here / "metrics.json").read_text())["policy"] == "refcoco"
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    kept = (here / "predictions.jsonl").read_bytes()
    result = run(app, [*command, "--model", "."])
    assert result.exit_code == 1
    assert "its files have changed" in result.stderr
    assert "name another --out, or begin the run anew with --overwrite" in result.stderr
    result = run(app, [*command, "--model", ".", "--overwrite", "--policy", "mine"])
    assert "there is no policy 'mine'" in result.stderr
    assert (here / "predictions.jsonl").read_bytes() == kept


IMPOSSIBLE = {
    "~nosuch/x": "Could not determine home directory",
    "a\0b": "embedded null",
    "x" * 300: "File name too long",
}


@pytest.mark.parametrize("path", IMPOSSIBLE, ids=["no home", "NUL", "long"])
@pytest.mark.parametrize(
    "command",
    [
        "benchmark coco --root PATH",
        "benchmark coco --out PATH",
        "benchmark coco --predictions PATH",
        "segment PATH expression",
        "segment x.png expression --out PATH",
        "evaluate refscenes --out PATH",
        "evaluate refscenes --rows PATH",
        "evaluate compare PATH rows.jsonl",
        "evaluate compare rows.jsonl other.jsonl PATH",
        "demo --out PATH",
        "push PATH owner/name",
    ],
)
def test_a_path_that_cannot_be_one_is_refused(command, path):
    result = run(app, [path if part == "PATH" else part for part in command.split()])
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert IMPOSSIBLE[path] in said


@pytest.mark.parametrize("path", IMPOSSIBLE, ids=["no home", "NUL", "long"])
def test_a_model_that_cannot_be_one_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    archive_files.coco(tmp_path)
    result = run(app, ["benchmark", "coco", "--split", "data", "--root", str(tmp_path), "--model", path])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_benchmark_says_where_the_archives_are_and_what_is_missing(tmp_path):
    result = run(app, ["benchmark", "--help"], terminal_width=300)
    for name in archives.by_name():
        assert f"{name} (" in result.stdout
    assert "github.com/lichengunc/refer" in result.stdout
    result = run(app, ["benchmark", "refcocog", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert "refs(umd).p; expected under" in result.output
    result = run(app, ["benchmark", "refcoco+", "--split", "test"])
    assert "refcoco+ has no split 'test'; choose one of train, val, testA, testB" in result.output


def test_models_are_listed_with_what_they_need(hub):
    result = run(app, ["models"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    for known in KNOWN:
        assert known.dialect in lines[known.name]
        assert known.segmenter in lines[known.name]
    assert lines["nano"].split()[-1] == "yes"
    assert lines["geshang/Seg-R1-7B"].split()[-4:] == ["see", "its", "page", "no"]
    assert "Ricky06662/Seg-Zero-7B: reasonseg test: miou 61.4 (about, GenSeg-R1" in result.stdout
