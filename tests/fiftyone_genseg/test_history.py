"""Runs that are kept: their ends, the wish to stop one, and how many there are."""

import pytest

from fiftyone_genseg import history


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
