"""`genseg-train data`: write a run's data, or print the images that sources share."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from genseg_hub import referring_dataset
from genseg_hub.whole import written_folder

from genseg_training import data, overlap, rows, sources

REQUEST = "request.json"
REPORT = "report.txt"
EPILOG = """sources: refcocog:train, refcocog:val:400 (a count), refscenes:10000, a folder, owner/name:split
         or one file mixture.yaml

  genseg-train data refcocog:train --root ARCHIVES --exclude refcocog:val --out data/refcocog_train
  genseg-train data grefcoco:train --root ARCHIVES --held_out refcocog:val --out data/grefcoco_train
  genseg-train data --overlap --root ARCHIVES                  # all archives there
  genseg-train data --overlap refcocog:train refcoco:testA --root ARCHIVES

The folder is a source itself: genseg-train grpo --data data/refcocog_train. It names the image files and holds no copy.
The same command again does nothing when the folder is whole. Otherwise it finds the rows that it read in the cache."""


def main(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: its options.

    Raises:
        ValueError: a source cannot be used, or the folder holds something else.
        DiskFullError: the disk is full; an earlier folder is kept.
        SystemExit: for wrong options and for `--help`.
    """
    options = _parser().parse_args(arguments)
    root = options.root or os.environ.get(sources.ROOT_VARIABLE)
    if options.overlap:
        asked = options.sources or list(overlap.splits_under(Path(root).expanduser()) if root else ())
        if not asked:
            raise ValueError(f"name sources, or with --root a folder that holds official archives; it is {root!r}")
        print(overlap.table([sources.parse(text, root) for text in asked], options.seed))
        return
    if not options.out:
        raise ValueError("name the folder to write with --out")
    request = data.Request(options.sources, options.weights, root, options.exclude, options.no_target_share)
    write(request, options.seed, Path(options.out).expanduser(), options.held_out)


def is_whole(request: data.Request, seed: int, folder: Path, held_out: Sequence[str] = ()) -> bool:
    """Return whether a folder holds the output of `write` for the same arguments."""
    file = folder / REQUEST
    return file.is_file() and file.read_text(encoding="utf-8") == _asked(request, seed, held_out)


def write(request: data.Request, seed: int, folder: Path, held_out: Sequence[str] = ()) -> None:
    """Write the training rows of a request as referring examples.

    If the folder already holds the whole output of the same request, nothing is written.

    Args:
        request: the data to write.
        seed: seed of rendered scenes, draws and order.
        folder: new or empty, or of the same request.
        held_out: sources that may share no image with these rows.

    Raises:
        ValueError: a source cannot be used, it shares an image with a held-out one, or the folder holds something else.
        DiskFullError: the disk is full; there is no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if is_whole(request, seed, folder, held_out):
            print(f"{folder} is whole already; remove it to write it again")
            return
        raise ValueError(f"{folder} exists and holds something else: name another folder with --out")
    scored = [sources.parse(text, request.root) for text in held_out]
    loaded = data.load(request, seed)
    report = [loaded.report]
    for source in scored:
        part = sources.draw(rows.prepared(source, seed)[0], source)
        overlap.refuse_shared(loaded.rows, part, str(source))
        report.append(f"{source}: {len(part):,} expressions about {len(overlap.images_of(part)):,} images, none shared")
    with written_folder(folder) as new:
        referring_dataset.save(data.examples_of(loaded.rows), new)
        (new / REPORT).write_text("\n".join(report) + "\n", encoding="utf-8")
        (new / REQUEST).write_text(_asked(request, seed, held_out), encoding="utf-8")
    print(*report, f"wrote {folder}", sep="\n")


def _asked(request: data.Request, seed: int, held_out: Sequence[str]) -> str:
    return json.dumps(asdict(request) | {"held_out": [*held_out], "seed": seed}, indent=2) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genseg-train data",
        description="Write the data of a run as a folder, or print which images sources share.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE")
    parser.add_argument("--out", help="new folder")
    parser.add_argument("--root", help=f"folder of the official archives; ${sources.ROOT_VARIABLE} by default")
    parser.add_argument(
        "--weights", type=float, nargs="+", help="how often each source is drawn from; equally by default"
    )
    parser.add_argument(
        "--exclude", nargs="+", default=[], metavar="SOURCE", help="leave out the images of these sources"
    )
    parser.add_argument(
        "--held_out",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="refuse data with an image of these sources",
    )
    parser.add_argument("--no_target_share", type=float, help="share of no-target examples; the sources' by default")
    parser.add_argument("--seed", type=int, default=1, help="seed of draws and rendered scenes")
    parser.add_argument("--overlap", action="store_true", help="print a table of the images that sources share")
    return parser
