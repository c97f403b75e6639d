"""An evaluation that is killed at any step leaves the earlier run or the new one, whole, and the next one is right."""

import signal

import fiftyone as fo
import pytest

import fiftyone_genseg
from tests.helpers.kill_at import run_until
from tests.helpers.squares import KINDS, one_of_each

CODE = """
import fiftyone as fo
import fiftyone_genseg
from fiftyone_genseg.evaluation import writing
dataset = fo.load_dataset({name!r})
# die
fiftyone_genseg.evaluate(dataset, eval_key="ev")
"""
WRITING, CONFIG = "fiftyone_genseg.evaluation.writing", "fiftyone_genseg.evaluation.config.ReferringEvaluation"
# Steps before one update of the dataset puts the run in its place, then steps after that.
BEFORE = [
    (f"{WRITING}._put_run", 1, False),
    ("fiftyone.core.odm.runs.RunDocument.save", 1, True),
]
AFTER = [
    (f"{WRITING}._put_run", 1, True),
    (f"{CONFIG}.register_samples", 1, True),
    (f"{WRITING}._Writer.write", 1, False),
    ("pymongo.collection.Collection.bulk_write", 1, False),
    (f"{CONFIG}.update_run_config", 1, False),
]


@pytest.fixture
def dataset(make):
    made = make(*one_of_each())
    made.persistent = True
    return made


def stored_of(dataset) -> tuple[int, int]:
    """Return how many runs and how many files of results the database has of a dataset."""
    runs = list(fo.core.odm.get_db_conn()["runs"].find({"_dataset_id": dataset._doc.id}))
    return len(runs), fo.core.odm.get_db_conn()["fs.files"].count_documents(
        {"_id": {"$in": [r["results"] for r in runs]}}
    )


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("place", "call", "after"), [*BEFORE, *AFTER])
def test_a_killed_evaluation(dataset, earlier, place, call, after):
    if earlier:
        fiftyone_genseg.evaluate(dataset.limit(3), eval_key="ev")
    fiftyone_genseg.evaluate(dataset, eval_key="other")
    figures = dataset.load_evaluation_results("other").figures()
    assert run_until(CODE.format(name=dataset.name), place, call, after) == -signal.SIGKILL
    dataset.reload()
    dataset.clear_cache()
    new = (place, call, after) in AFTER
    assert dataset.list_evaluations() == (["ev", "other"] if new or earlier else ["other"])
    if new or earlier:
        assert len(dataset.load_evaluation_results("ev", cache=False).table) == (10 if new else 3)
        assert dataset.get_evaluation_info("ev").config.fields_written is not new
    if earlier and not new:
        assert dataset.values("ev_failure") == [*KINDS[:3], *[None] * 7]
    assert dataset.load_evaluation_results("other", cache=False).figures() == figures
    assert dataset.values("other_failure") == KINDS
    again = fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert again.figures() == figures
    assert dataset.values("ev_failure") == KINDS
    assert dataset.get_evaluation_info("ev").config.fields_written
    assert stored_of(dataset) == (2, 2), "nothing of the killed evaluation stays"


def test_a_killed_evaluation_of_another_field_leaves_no_attribute(dataset):
    """Killed after the new run has its place: the attributes of the earlier one are on other labels."""
    dataset.clone_sample_field("genseg", "mine")
    fiftyone_genseg.evaluate(dataset, "mine", eval_key="ev")
    assert run_until(CODE.format(name=dataset.name), f"{WRITING}._put_run", after=True) == -signal.SIGKILL
    dataset.reload()
    fiftyone_genseg.evaluate(dataset, eval_key="ev")
    assert dataset.count("genseg.detections.ev") > 0
    assert dataset.get_field("mine.detections.ev") is None
    assert stored_of(dataset) == (1, 1)
