"""The first line of each docstring is short, and a function's begins with its verb (CONTRIBUTING.md, English)."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("hub", "fiftyone_genseg", "training", "benchmarks", "examples", "docs", "space")
LONGEST = 80
NO_VERBS = {"A", "An", "The", "Of", "Where", "What", "Whether", "That", "Those", "Which", "How", "If", "This", "It"}


def first_lines() -> Iterator[tuple[str, bool, str]]:
    """Yield the place of a docstring, whether it is a function's, and its first line."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if text := ast.get_docstring(node):
                    place = f"{file.relative_to(ROOT)}: {getattr(node, 'name', 'module')}"
                    yield place, isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), text.splitlines()[0]


def test_first_lines_are_short():
    assert [(place, line) for place, _, line in first_lines() if len(line) > LONGEST] == []


def test_first_lines_of_functions_begin_with_a_verb():
    assert [(place, line) for place, verb, line in first_lines() if verb and line.split()[0] in NO_VERBS] == []


def test_docstrings_are_found():
    assert len(list(first_lines())) > 1500
