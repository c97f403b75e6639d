"""Scripts of benchmarks/ tell their options without any work, and the longest ones run to their end at small size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(file.name for file in BENCHMARKS.glob("*.py") if "__main__" in file.read_text(encoding="utf-8"))
# One interpreter for all of them, because each script would import PyTorch and FiftyOne again.
HELP = """
import contextlib, io, json, runpy, sys
folder, *scripts = sys.argv[1:]
sys.path.insert(0, folder)
found = {}
for script in scripts:
    sys.argv, said, code = [script, "--help"], io.StringIO(), "went on after the help"
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(f"{folder}/{script}", run_name="__main__")
        except SystemExit as end:
            code = end.code
        except Exception as error:
            code = repr(error)
    found[script] = [code, said.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    """Return the exit code and the words of each script's --help, in an empty folder and without a database."""
    folder = tmp_path_factory.mktemp("empty")
    environment = os.environ | {"FIFTYONE_DISABLE_SERVICES": "1"}
    environment.pop("FIFTYONE_DATABASE_URI")
    command = [sys.executable, "-c", HELP, str(BENCHMARKS), *SCRIPTS]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert not list(folder.iterdir())
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_runs_nothing(helps, script):
    code, said = helps[script]
    assert code == 0
    assert said.startswith(f"usage: {script}")
    assert said.count("\n\n") >= 2, "it says what the script measures"


@pytest.mark.slow
def test_the_work_on_a_dataset_is_measured(tmp_path):
    from benchmarks import side_by_side

    out = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / "dataset_size.py"), "--sizes", "20", "40", "--out", str(out)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    rows = [side_by_side.Row(**row) for row in json.loads(out.read_text())]
    assert len(rows) == 7
    for row in rows:
        work = row.work.removesuffix(", 40 samples")
        assert sum(line.startswith(f"| {work} |") for line in done.stdout.splitlines()) == 2, "a line for each size"
        assert row.ours[0] > 0
        assert row.load > 0


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_to_its_end(tmp_path):
    """Run every measurement at nano's size, on the CPU where there is no GPU."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--size", "tiny", "--minutes", "1000", "--out", str(out)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that share a core wait for each other
    subprocess.run(command, cwd=tmp_path, env=one_thread, check=True, capture_output=True)
    found = json.loads(out.read_text())
    parts = ("build", "pipeline", "devices", "overlap", "mask_reward", "grpo")
    for part in parts:
        seconds = found[part].pop("part_seconds")
        assert seconds > 0
        for name, figures in found[part].items():
            assert not {"error", "left_out"} & set(figures), f"{part}, {name}: {figures}"
            assert figures["memory_bytes"] > 0
    both = {name: figures for name, figures in found["pipeline"].items() if name.startswith("generate")}
    assert len(both) == 4
    assert all(figures["texts_equal_to_continuous"] == figures["expressions"] for figures in both.values())
    (trained,) = found["grpo"].values()
    assert trained["steps"] == 2
    assert any(group.endswith("trains") for group in trained["placement"]["policy with adapters"])


def test_a_gpu_run_without_a_gpu_names_the_remedy(tmp_path, monkeypatch, capsys):
    from benchmarks import gpu

    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no GPU for --size full; take --size tiny" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_a_failing_measurement_is_recorded_and_the_next_one_begins(tmp_path):
    from benchmarks import gpu

    def fails():
        raise RuntimeError("no kernel")

    def cells():
        yield "first", fails
        yield "second", lambda: {"seconds": 2.0}
        raise ValueError("the rest")

    report = gpu.Report(tmp_path / "gpu.json", gpu.SCALES["tiny"], 1, gpu.torch.device("cpu"))
    report.part("parts", 1, cells())
    report.part("late", 0, iter([("third", fails)]))
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["parts"]["first"]["error"].startswith("RuntimeError: no kernel")
    assert found["parts"]["second"]["seconds"] == 2.0
    assert found["parts"]["error"].startswith("ValueError: the rest")
    assert found["late"]["third"] == {"left_out": "the time of this part is over"}
