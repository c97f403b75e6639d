"""The model of the last run stays in memory: for the same checkpoint and options, for some time, until released."""

import threading
from pathlib import Path

import fiftyone.operators as foo
import pytest
from genseg_hub import GenSegR1

from fiftyone_genseg.segmentation import engines
from fiftyone_genseg.segmentation.engines import resident
from fiftyone_genseg.segmentation.request import SegmentRequest

SEGMENT = "@fiftyone-genseg/genseg/referring_segment"
RELEASE = "@fiftyone-genseg/genseg/release_model"


@pytest.fixture(autouse=True)
def _nothing_kept():
    resident.release()
    yield
    resident.release()


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Return the checkpoints that were loaded, in order."""
    names = []
    load = GenSegR1.from_pretrained

    def counted(name, *args, **kwargs):
        names.append(Path(name).name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(GenSegR1, "from_pretrained", counted)
    return names


def use(checkpoint, **options):
    with engines.opened(SegmentRequest(("it",), checkpoint=str(checkpoint), device="cpu", **options), keep=True):
        pass


def test_the_second_run_of_the_operator_loads_nothing_and_the_memory_is_freed_on_demand(dataset, plugin, loaded):
    for field in ("first", "second"):
        params = {"output_field": field, "device": "cpu"}
        foo.execute_operator(SEGMENT, {"dataset": dataset}, params=params)
    assert loaded == ["nano"]
    dataset.reload()
    texts = [[r.reasoning for r in found] for found in dataset.values("first_responses")]
    assert texts == [[r.reasoning for r in found] for found in dataset.values("second_responses")]
    first, second = (foo.execute_operator(RELEASE, {"dataset": dataset}).result for _ in range(2))
    assert first == {"released": "nano", "message": "nano is no longer in memory."}
    assert second == {"released": None, "message": "No model is in memory."}
    foo.execute_operator(SEGMENT, {"dataset": dataset}, params={"output_field": "third", "device": "cpu"})
    assert loaded == ["nano", "nano"]


def test_other_options_another_checkpoint_or_changed_files_load_anew(folder, loaded):
    use("nano")
    use("nano", model_options={"max_new_tokens": 9})
    use("nano", model_options={"max_new_tokens": 9})
    use(folder)
    use(folder)
    assert loaded == ["nano", "nano", "checkpoint"]
    settings = folder / "generation_config.json"
    settings.write_text(settings.read_text() + "\n")
    use(folder)
    assert loaded[3:] == ["checkpoint"]


def test_a_model_that_is_lent_is_not_lent_twice(loaded):
    request = SegmentRequest(("it",), device="cpu")
    with engines.opened(request, keep=True), engines.opened(request, keep=True):
        assert loaded == ["nano", "nano"]
    use("nano")
    assert loaded == ["nano", "nano"]


def test_an_idle_model_is_released(monkeypatch, loaded):
    monkeypatch.setenv(resident.VARIABLE, "0.01")
    use("nano")
    for timer in [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]:
        timer.join()
    assert resident.release() is None
    monkeypatch.setenv(resident.VARIABLE, "0")
    use("nano")
    assert resident.release() is None
    assert loaded == ["nano", "nano"]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(resident.VARIABLE, text)
    with pytest.raises(ValueError, match="GENSEG_KEEP_SECONDS must be a number of seconds"):
        use("nano")


def test_without_being_asked_a_process_keeps_nothing(loaded):
    with engines.opened(SegmentRequest(("it",), device="cpu")):
        pass
    assert resident.release() is None
