"""Measure one answer of `genseg segment` in a new process.

python benchmarks/cold_start.py [--out FILE]

The command imports PyTorch, torchvision and Transformers, loads nano, answers one expression about one rendered image
and exits. Beside it, another new process imports only these three libraries. Both run in turn, after one run of each
that is not counted: it fills the caches of the file system. The bar: the whole command takes no longer than the plain
imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from genseg_training.nano import refscenes
from PIL import Image
from side_by_side import Row, parser, report

RUNS = 5
IMPORTS = "import torch, torchvision, transformers.modeling_utils"


def seconds(command: list[str]) -> tuple[float, str]:
    """Run a command, and return its seconds and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def main() -> None:
    """Time the command and the imports in turn and report the row."""
    options = parser(__doc__).parse_args()
    runs = 1 if options.quick else RUNS
    example = next(example for example in refscenes.refscenes("val", 100) if example.masks)
    with tempfile.TemporaryDirectory() as name:
        os.environ["HOME"] = name  # the command remembers its checkpoint there
        image = Path(name, "scene.png")
        Image.fromarray(np.asarray(example.image)).save(image)
        command = [str(Path(sys.executable).with_name("genseg")), "segment", str(image), example.expression]
        command += ["--model", "nano", "--json"]
        imports = [sys.executable, "-c", IMPORTS]
        seconds(imports)
        first = json.loads(seconds(command)[1])["instances"]
        ours, theirs = [], []
        for _ in range(runs):
            took, answer = seconds(command)
            if not first or json.loads(answer)["instances"] != first:
                raise AssertionError(f"the first answer was {first}, and another is {answer}")
            ours.append(took)
            theirs.append(seconds(imports)[0])
    ratio = median(ours) / median(theirs)
    work, against = "`genseg segment` with nano, a new process", f"`{IMPORTS}` alone"
    report(
        [Row("11", work, against, "<= 1x", ours, theirs, f"{ratio:.2f}x", ratio <= 1, f"repetitions: {runs}")],
        options.out,
    )


if __name__ == "__main__":
    main()
