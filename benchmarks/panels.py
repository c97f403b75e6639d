"""Time the panels on a large run: opening, cold and warm, and each click.

The samples and the run's table are synthetic. The events take the App's way through the server, without a browser.
"""

import argparse
import asyncio
import time

import fiftyone as fo
import numpy as np
import pandas as pd
from fiftyone.operators.executor import execute_or_delegate_operator

from fiftyone_genseg import evaluation, plugin
from fiftyone_genseg.evaluation.table import MATCHES, TABLE
from fiftyone_genseg.panels import _runs

WORDS = ("the", "red", "blue", "man", "dog", "left of", "right of", "above", "largest", "second", "chair", "not")
NAME = "genseg-panels-benchmark"


def make(expressions: int) -> fo.Dataset:
    """Make a dataset of samples without images, with two runs."""
    rng = np.random.default_rng(0)
    dataset = fo.Dataset(NAME, overwrite=True, persistent=True)
    words = np.array(WORDS)[rng.integers(len(WORDS), size=(expressions, 5))]
    texts = [" ".join(row) for row in words]
    dataset.add_samples([fo.Sample(f"/nowhere/{i // 3}.jpg", expression=text) for i, text in enumerate(texts)])
    for field in ("ground_truth", "first", "second"):
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for key in ("first", "second"):
        target = rng.integers(50, 100_000, expressions) * (rng.random(expressions) < 0.9)
        found = (target * rng.uniform(0, 1.4, expressions)).astype(int)
        table = pd.DataFrame(
            {
                "sample_id": dataset.values("id"),
                "image": np.arange(expressions) // 3,
                "expression": texts,
                "status": np.where(found > 0, "segmented", "no_target"),
                "intersection": (np.minimum(target, found) * rng.random(expressions)).astype(int),
                "target_area": target,
                "prediction_area": found,
                "image_area": 640 * 480,
                "box_iou": rng.random(expressions),
                "n_true": (target > 0).astype(int),
                "n_predicted": (found > 0).astype(int),
                "n_missed": rng.random(expressions) < 0.1,
                "n_extra": rng.random(expressions) < 0.1,
                "target_x": rng.random(expressions),
                "target_y": rng.random(expressions),
                "distractors": -1,
                "seconds": rng.random(expressions),
                "tokens": rng.integers(20, 200, expressions),
                "memory_bytes": 1.9e9,
            }
        ).astype(TABLE)
        matches = pd.DataFrame({name: [] for name in MATCHES}).astype(MATCHES)
        config = evaluation.ReferringEvaluationConfig(key, "ground_truth", expression_field="expression")
        method = config.build()
        method.register_run(dataset, key)
        results = evaluation.ReferringResults(dataset, config, key, table, matches, backend=method)
        method.save_run_results(dataset, key, results)
    return dataset


def send(uri: str, dataset: fo.Dataset, method: str, **params) -> float:
    """Send an event to a panel and return the seconds until it is handled."""
    request = {
        "dataset_name": dataset.name,
        "params": {"panel_id": uri, "__method__": method, "panel_state": {}, **params},
    }
    started = time.perf_counter()
    result = asyncio.run(execute_or_delegate_operator(f"@fiftyone-genseg/genseg/{uri}", request, exhaust=True))
    seconds = time.perf_counter() - started
    layouts = [str(call.params["output"]) for call in result.executor._requests if "output" in call.params]
    if result.error or any("could not be shown" in layout for layout in layouts):
        raise RuntimeError(result.error or layouts)
    return seconds


def main() -> None:
    """Print the seconds of each event."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=100_000)
    options = parser.parse_args()
    plugin.install()
    dataset = make(options.expressions)
    send("failure_slices", dataset, "drop_fields")  # imports and registers everything
    _runs._results.cache_clear()
    _runs._attributes.cache_clear()
    _runs._slices.cache_clear()
    fo.load_dataset(NAME).clear_cache()
    print(f"{options.expressions:,} expressions, seconds")
    for label, uri, method, params in (
        ("Referring evaluation, cold", "referring_evaluation", "on_load", {}),
        ("Referring evaluation, warm", "referring_evaluation", "on_load", {}),
        ("  click a bar", "referring_evaluation", "click_histogram", {"idx": 3, "trace_idx": 0}),
        ("  click a figure", "referring_evaluation", "click_figures", {"row": 0, "column": 1}),
        ("  compare, cold", "referring_evaluation", "compare_with", {"value": "first"}),
        ("  compare, warm", "referring_evaluation", "on_load", {}),
        ("  click a flip", "referring_evaluation", "click_flips", {"row": 0}),
        ("Failure slices, cold", "failure_slices", "on_load", {}),
        ("Failure slices, warm", "failure_slices", "on_load", {}),
        ("  choose a slice", "failure_slices", "choose_slice", {"row": 0}),
        ("  show in grid", "failure_slices", "show_in_grid", {}),
        ("  click a kind", "failure_slices", "click_kind", {"x": "wrong_instance"}),
        ("  compare", "failure_slices", "choose_against", {"value": "first"}),
    ):
        print(f"{label:30} {send(uri, dataset, method, **params):6.2f}", flush=True)
    dataset.delete()


if __name__ == "__main__":
    main()
