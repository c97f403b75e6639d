"""Measure the reading and writing process, and the bytes of an answer.

python benchmarks/writer.py --samples 20000

Answers cost nothing here. They are the true masks of the example photographs (COCO, 640 pixels) with 180 random words
of reasoning, about 250 tokens. They are JSON, as workers send them. This project's own code reads the answers, asks the
database for open samples and writes results. The samples name images that do not exist. Needs Linux or macOS, because
it reads the peak memory from `resource`.
"""

import argparse
import itertools
import json
import resource
import time
from pathlib import Path

import fiftyone as fo
import numpy as np
import psutil
from genseg_hub.evaluation import predictions
from genseg_hub.schema import InstancePrompt, Prediction, ReferringExample, Response
from PIL import Image

from fiftyone_genseg import labels
from fiftyone_genseg.datasets import photos
from fiftyone_genseg.segmentation.engines.base import Engine
from fiftyone_genseg.segmentation.request import SegmentRequest
from fiftyone_genseg.segmentation.run import segment_view

NAME = "genseg-writer-benchmark"
PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
WORDS = 180


def lines() -> list[str]:
    """Return the true answer to each expression on the example photographs."""
    dataset = photos.photos_dataset(f"{NAME}-photos", PHOTOS)
    found, rng = [], np.random.default_rng(0)
    vocabulary = sorted({word for expression in dataset.values("expression") for word in expression.split()})
    for sample in dataset:
        with Image.open(sample.filepath) as image:
            size = image.size
        masks = labels.instance_masks(sample["ground_truth"], size)
        prompts = []
        for mask in masks:
            rows, columns = np.nonzero(mask)
            points = ((float(columns[0]), float(rows[0])), (float(columns[-1]), float(rows[-1])))
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            prompts.append(InstancePrompt(tuple(map(float, box)), points))
        reasoning = " ".join(rng.choice(vocabulary, WORDS))
        response = Response(f"<think>{reasoning}</think>{prompts}", reasoning, tuple(prompts))
        answer = Prediction(response, tuple(masks), tuple(0.9 for _ in masks), size)
        found.append(predictions.to_json(predictions.to_line(ReferringExample("", sample["expression"]), answer)))
    dataset.delete()
    return found


def main() -> None:
    """Write the answers to a dataset and print rates and bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=64, help="answers written at once")
    options = parser.parse_args()
    answers = lines()
    dataset = fo.Dataset(NAME, overwrite=True, persistent=True)
    dataset.add_samples(
        [fo.Sample(f"/nowhere/{i:08d}.jpg", expression=f"the thing number {i}") for i in range(options.samples)],
        progress=False,
    )
    collection = dataset._sample_collection
    empty = next(collection.aggregate([{"$group": {"_id": None, "bytes": {"$avg": {"$bsonSize": "$$ROOT"}}}}]))["bytes"]
    seconds = {"reading what to ask": 0.0}

    def engine(examples, batch_size):
        source = itertools.cycle(answers)
        while True:
            begin = time.perf_counter()
            some = list(itertools.islice(examples, 1000))
            seconds["reading what to ask"] += time.perf_counter() - begin
            if not some:
                return
            for example in some:
                yield example, predictions.from_line(json.loads(next(source)))

    server = psutil.Process(collection.database.client.admin.command("serverStatus")["pid"])
    before = [sum(process.cpu_times()[:2]) for process in (psutil.Process(), server)]
    started = time.perf_counter()
    request = SegmentRequest(expression_field="expression", batch_size=options.batch_size)
    for summary in segment_view(dataset, request, Engine(engine, "nano")):
        print(f"\r{summary.done} of {summary.total}", end="", flush=True)
    total = time.perf_counter() - started
    after = [sum(process.cpu_times()[:2]) for process in (psutil.Process(), server)]
    written = summary.statuses.total()
    full = next(collection.aggregate([{"$group": {"_id": None, "bytes": {"$avg": {"$bsonSize": "$$ROOT"}}}}]))["bytes"]
    collection.database.client.admin.command("fsync")
    stored = collection.database.command("collStats", collection.name)
    masks = [instance["mask"] for line in answers for instance in json.loads(line)["instances"]]
    reading = seconds["reading what to ask"]
    print(f"\r{written} answers, {len(masks) / len(answers):.2f} masks each, {options.batch_size} written at once")
    print(f"all of it {written / total:.0f} answers/s, of which reading what to ask {written / reading:.0f} samples/s")
    here, there = (1000 * (end - begin) / written for begin, end in zip(before, after, strict=True))
    print(f"CPU of an answer {here:.2f} ms in this process, {there:.2f} ms in MongoDB, which is on this machine")
    print(f"an RLE as JSON {np.mean([len(json.dumps(mask)) for mask in masks]):.0f} bytes")
    print(f"an answer as a worker sends it {np.mean([len(line) for line in answers]):.0f} bytes")
    print(f"a sample {empty:.0f} bytes before, {full:.0f} after (BSON)")
    print(f"on disk {stored['storageSize'] / written:.0f} bytes a sample, compressed by MongoDB")
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    dataset.delete()


if __name__ == "__main__":
    main()
