"""Try a stranger's chat template and tokenizer in a process of their own.

This process uses them only afterwards. A template is a program and a tokenizer has patterns, so either can take any
time and memory. The sandbox of Transformers keeps a template from files and modules, and does not limit it. The trial
imports only jinja2 and tokenizers, which takes a fraction of a second. A process tries each pair of template and
tokenizer once. A template can behave well on the trial's question and badly on another one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from genseg_hub.checkpoints.catalog import EMBEDDED
from genseg_hub.errors import CheckpointError

_log = logging.getLogger(__name__)
SECONDS = 10  # of a CPU
BYTES = 4 * 1024**3
_CHARACTERS = 1_000_000  # of a prompt about a few words
_PATIENCE = 6  # seconds to wait for a second of a CPU
_JSON_FILES = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
_TOKENIZER = "tokenizer.json"
_VERDICTS: dict[tuple[str, ...], str] = {}  # templates and the tokenizer's checksum -> what takes too much


def check(folder: Path, name: str) -> None:
    """Raise CheckpointError if a template or tokenizer takes much time or memory.

    Args:
        folder: folder of the reasoner. Checkpoints in this package, and folders that do not exist, are not tried.
        name: name of the checkpoint, for messages.
    """
    if folder in EMBEDDED.values() or not folder.is_dir():
        return
    templates = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.rglob("*.jinja"))]
    templates += [text for file in _JSON_FILES for text in _templates(folder / file)]
    tokenizer = folder / _TOKENIZER
    digest = sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else ""
    tried = (*dict.fromkeys(templates), digest)
    if tried not in _VERDICTS:
        _VERDICTS[tried] = _fault(tried[:-1], str(tokenizer.resolve()) if digest else None)
    if fault := _VERDICTS[tried]:
        raise CheckpointError(
            f"the {fault} about a few words, so {name} is not loaded; take the template of its family"
        )


def _templates(file: Path) -> list[str]:
    """Return the chat templates of a JSON file.

    The file has one text, several by name in a list or an object, or none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError, RecursionError):
        return []
    many = [*found.values()] if isinstance(found, dict) else found if isinstance(found, list) else [found]
    texts = [each.get("template") if isinstance(each, dict) else each for each in many]
    return [text for text in texts if isinstance(text, str)]


def _fault(templates: tuple[str, ...], tokenizer: str | None) -> str:
    """Return the part that takes too much, in words; "" for nothing."""
    limits = {"seconds": SECONDS, "bytes": BYTES, "characters": _CHARACTERS}
    work = {"templates": templates, "tokenizer": tokenizer, **limits}
    calm = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-I", str(Path(__file__).with_name("trial_process.py"))]
    options: dict[str, Any] = {"capture_output": True, "text": True, "env": os.environ | calm}
    try:
        done = subprocess.run(command, input=json.dumps(work), timeout=SECONDS * _PATIENCE, check=False, **options)
        said, status, complaint = done.stdout.split("\n")[:-1], done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        output: Any = error.stdout or b""
        said, status, complaint = (output if isinstance(output, str) else output.decode()).split("\n")[:-1], -1, ""
    except OSError as error:  # no further process can be started
        _log.warning("a chat template was not tried: %s", error)
        return ""
    last = said[-1] if said else ""
    if last.endswith("characters"):
        return f"chat template makes a prompt of {last}"
    if last == "done" or not last:
        return ""
    if status < 0 or "MemoryError" in complaint or "memory allocation" in complaint:
        return f"{last} takes more than {SECONDS} s or {BYTES / 1024**3:.0f} GiB for a prompt"
    _log.warning("a %s was not tried: %s", last, complaint[-300:])
    return ""
