"""Estimate time, writes and bytes of a large GPU run; nothing here ran on a GPU.

python benchmarks/estimate_scale.py --gpus 8 --expressions 10000000
python benchmarks/estimate_scale.py --gpus 64 --writers 4

Every option is either measured by benchmarks/writer.py or assumed; both kinds are printed. A worker with Transformers
answers a batch: each step adds one token to every unfinished answer, and the batch lasts as long as its longest answer.
vLLM changes only the decoding speed.
"""

import argparse

ASSUMED = {
    "parameters": (8.8e9, "of the reasoner (Qwen3-VL-8B)"),
    "answer": (300, "tokens of an answer, including its reasoning"),
    "prompt": (600, "tokens of a prompt: an image of 640 x 480 is 300 in Qwen3-VL"),
    "batch": (64, "expressions answered at once"),
    "step": (0.030, "seconds of a decoding step, Transformers, batch as above"),
    "fill": (0.6, "mean answer over the longest of its batch"),
    "flops": (0.4 * 989e12, "FLOP per second of a prefill: 40 percent of an H100's peak"),
    "segment": (0.03, "seconds of SAM 2.1 large for an expression, image embedded once"),
    "loading": (120, "seconds until a worker has its model"),
    "deaths": (8, "workers that die in the run"),
}
MEASURED = {
    "writer": (433, "answers per second that the writing process stores"),
    "database": (0.13e-3, "seconds of a core that MongoDB takes for an answer"),
    "reader": (66_000, "samples per second that the writing process reads"),
    "line": (3520, "bytes of an answer that a worker sends"),
    "document": (4389 - 216, "bytes that an answer adds to a sample, BSON"),
    "disk": (1738, "bytes of a sample on MongoDB's disk"),
}
# Output tokens per second of one H100 with Qwen3-8B in bfloat16 and vLLM, text only, at the highest number of users
# that get a token within 50 ms. Source: github.com/tgarg01/silybench-data, derived/csv/capacity.csv, read 2026-11. Not
# checked.
PUBLISHED = {"1,024 tokens in, 128 out": 3018, "128 in, 1,024 out": 13322}
ROUND, BATCHES = 500_000, 8  # as in fiftyone_genseg/segmentation/engines/ray.py


def main() -> None:
    """Print the assumptions, the time per reasoner, and the run's bytes and losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--expressions", type=float, default=10e6)
    parser.add_argument("--writers", type=int, default=1, help="commands with a shard each, which write")
    for name, (value, what) in (ASSUMED | MEASURED).items():
        parser.add_argument(f"--{name}", type=float, default=value, help=what)
    o = parser.parse_args()
    for title, group in ("assumed", ASSUMED), ("measured here", MEASURED):
        print(f"{title}: " + "; ".join(f"{name} {getattr(o, name):g} {what}" for name, (_, what) in group.items()))

    speeds = {f"Transformers, batch {o.batch:g}": o.batch * o.fill / o.step}
    speeds |= {f"vLLM, published speed for {name}": float(speed) for name, speed in PUBLISHED.items()}
    written = o.writer * o.writers
    of = "one writer | its limit" if o.writers == 1 else f"{o.writers} writers | their limit"
    print(f"\n| reasoner | tokens/s a GPU | expressions/s a GPU | all GPUs | hours | share of {of} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    rates = []
    for name, speed in speeds.items():
        each = 1 / (o.answer / speed + 2 * o.parameters * o.prompt / o.flops + o.segment)
        rates.append(rate := each * o.gpus)
        hours = o.expressions / min(rate, written) / 3600
        print(
            f"| {name} | {speed:,.0f} | {each:.1f} | {rate:.0f} | {hours:.1f} | {rate / written:.0%} | "
            f"{written / each:.0f} GPUs |"
        )
    low, high = rates[0], min(rates[-1], written)
    unit, rounds, giga = BATCHES * o.batch, -(-o.expressions // o.writers // ROUND), o.expressions / 1e9
    lost = rounds * (o.loading + ROUND / o.reader)
    rows = {
        "answers stored per second": f"{low:.0f} to {high:.0f}",
        "MongoDB": f"{low * o.database:.1%} to {high * o.database:.1%} of a core",
        "object store": f"{low * o.line / 1e6:.2f} to {high * o.line / 1e6:.2f} MB/s, {giga * o.line:.0f} GB in all",
        "documents": f"{giga * o.document:.0f} GB of BSON, {giga * o.disk:.0f} GB on MongoDB's disk",
        f"{rounds:.0f} rounds of each writer": f"{lost / 60:.0f} minutes of reading and loading, "
        f"{lost * low / o.expressions:.1%} to {lost * high / o.expressions:.1%} of the time",
        f"{o.deaths:.0f} workers die": " or ".join(
            f"{o.deaths * (o.loading + unit / 2 / (rate / o.gpus)) / 60:.0f}" for rate in (low, high)
        )
        + " minutes of one GPU",
        "a writer dies": f"about {unit * o.gpus / o.writers:.0f} answers under way are lost; then up to "
        f"{o.expressions / o.writers / o.reader / 60:.0f} minutes to find out what is done",
    }
    print("\n| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
