"""Runs that are kept: their ends, the wish to stop one, killed ones, and how many there are."""

import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from fiftyone_genseg import history
from fiftyone_genseg.operators.stop_run import StopRun
from fiftyone_genseg.panels.past_runs import _row

KILLED = """
import os, signal
from fiftyone_genseg import history
history._STORE = "test_runs"
run = history.Run("Referring segment", "photos")
run.progress("3 of 9 expressions")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _no_earlier_runs(plugin, monkeypatch):
    monkeypatch.setattr(history, "_STORE", "test_runs")
    history._store().clear()


def test_a_run_is_stopped_at_its_next_step_and_kept(monkeypatch):
    monkeypatch.setattr(history, "_BETWEEN_WRITES", 0)
    run = history.Run("Referring segment", "photos")
    run.progress("1 of 9")
    assert [(record.state, record.text) for record in history.records()] == [(history.RUNNING, "1 of 9")]
    assert history.stop(run.record.id).operator == "Referring segment"
    with pytest.raises(history.Stopped):
        run.progress("2 of 9")
    run.end(history.STOPPED, "Stopped at: 2 of 9")
    assert history.records() == [run.record]
    assert history.stop(run.record.id) is None
    assert not history.is_stopping(run.record.id)


def test_the_oldest_runs_are_forgotten(monkeypatch):
    monkeypatch.setattr(history, "KEPT", 3)
    made = [history.Run("Pull checkpoint", "").record.id for _ in range(5)]
    assert [record.id for record in history.records()] == made[:1:-1]


def test_an_error_is_kept_and_raised(dataset):
    class Context:
        pass

    context = Context()
    context.dataset = dataset
    with pytest.raises(ValueError, match="no folder"), history.recorded(context, "Export referring examples"):
        raise ValueError("no folder")
    (record,) = history.records()
    assert (record.state, record.text, record.dataset) == (history.FAILED, "no folder", dataset.name)


def test_the_run_of_a_killed_process_is_interrupted_and_says_what_to_do():
    with subprocess.Popen([sys.executable, "-c", KILLED], start_new_session=True) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie, as below an App that starts it
        (zombie,) = history.records()
        assert process.wait() == -signal.SIGKILL
    (record,) = history.records()
    assert record == zombie
    assert (record.state, record.process) == (history.INTERRUPTED, process.pid)
    assert record.text.startswith("Its process ended at: 3 of 9 expressions. Its results stay. Run the operator")
    assert _row(record)["state"] == "interrupted"
    assert history.stop(record.id) is None
    assert not history.is_stopping(record.id)
    form = StopRun().resolve_input(SimpleNamespace(params={})).to_json()["type"]["properties"]
    assert form["problem"]["error_message"] == "Nothing is running."


def test_another_process_with_the_number_of_a_killed_one_is_not_its_run():
    run = history.Run("Pull checkpoint", "")
    assert history.records() == [run.record]
    history._keep(replace(run.record, process_started=run.record.process_started - 3600))
    (record,) = history.records()
    assert record.state == history.INTERRUPTED
    assert record.text.startswith("Its process ended before the first step. ")


def test_runs_of_other_machines_and_of_earlier_versions_are_what_they_last_said():
    elsewhere = replace(history.Run("Pull checkpoint", "").record, host="elsewhere", process=2**30)
    history._keep(elsewhere)
    assert history.records() == [elsewhere]
    old = asdict(elsewhere)
    for name in ("host", "process", "process_started"):
        del old[name]
    history._store().set(elsewhere.id, old)
    (record,) = history.records()
    assert (record.state, record.host) == (history.RUNNING, "")
