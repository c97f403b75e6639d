"""docs/troubleshooting.md has every error that a user can meet, and none that is gone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from genseg_hub import errors

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = {"fiftyone_genseg": ROOT, "genseg_hub": ROOT / "hub", "genseg_training": ROOT / "training"}
CLASSES = {name for name, found in vars(errors).items() if isinstance(found, type)}
CLASSES |= {"DeadRunError", "DiskFullError", "RayError", "BadParameter"}
CLASSES |= {"ValueError", "TypeError", "RuntimeError", "FileNotFoundError", "FileExistsError", "FloatingPointError"}
# Functions whose strings are messages, beside those whose name says so.
SPEAKING = {
    "fiftyone_genseg/fields.py": {"_about_slices"},
    "fiftyone_genseg/messages.py": {"nano_in_a_terminal"},
    "genseg_hub/publishing/commits.py": {"_explain"},
    "genseg_hub/reasoners/server_errors.py": {"explained"},
    "genseg_training/liveness.py": {"check"},
}
THEIRS = ("genseg_hub/reasoners/", "genseg_hub/checkpoints/")  # wings that speak of servers and of the Hub
# Files whose messages have the server as their subject.
OF_A_SERVER = {f"genseg_hub/reasoners/{name}.py" for name in ("chat_answers", "served_models", "server_errors")}
VALUE = "…"


def messages() -> dict[str, str]:
    """Return the messages, with `…` for each value -> the file of one of them."""
    found = {}
    for package, above in SOURCES.items():
        for file in sorted((above / package).rglob("*.py")):
            name = file.relative_to(above).as_posix()
            module = ast.parse(file.read_text(encoding="utf-8"))
            names = {
                target.id: text
                for node in module.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name) and (text := text_of(node.value, {}))
            }
            for expression in spoken(module, name):
                text = text_of(expression, names)
                if name in OF_A_SERVER and not text.startswith("a server"):
                    text = f"the server {VALUE} {text}"
                if re.search(r"\w{4}", text.removeprefix(f"the server {VALUE} ")):  # else another's is passed on
                    found[text] = name
    return found


def spoken(module: ast.Module, file: str) -> Iterator[ast.expr]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            of_others = called in ("error", "_fault") and file.startswith(THEIRS)
            if called in CLASSES or of_others:
                yield node.args[0]
        elif isinstance(node, ast.FunctionDef) and (
            node.name in SPEAKING.get(file, ())
            or (node.name in ("problem", "unusable") and file.startswith("fiftyone_genseg/"))
        ):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return | ast.Assign) and isinstance(
                    inner.value, ast.Constant | ast.JoinedStr | ast.BinOp
                ):
                    yield inner.value


def text_of(node: ast.expr | None, names: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        text = "".join(text_of(part, names) for part in node.values)
    elif isinstance(node, ast.FormattedValue):
        text = text_of(node.value, names) if isinstance(node.value, ast.Name) else VALUE
    elif isinstance(node, ast.BinOp):
        text = text_of(node.left, names) + text_of(node.right, names)
    elif isinstance(node, ast.Name):
        text = names.get(node.id, VALUE)
    else:
        text = VALUE
    return re.sub(f"{VALUE}+", VALUE, text)


def listed() -> list[str]:
    rows = re.findall(r"^\| (`+) ?(.+?) ?\1 \| .+ \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [key for _, key in rows]


@pytest.fixture(scope="module")
def said():
    return messages()


def test_the_source_is_read(said):
    assert len(said) > 400
    assert f"the server {VALUE} gave no text, but {VALUE}" in said
    assert any(text.startswith("the disk is full: ") for text in said)


def test_every_message_is_listed(said):
    keys = tuple(listed())
    assert [f"{file}: {text}" for text, file in said.items() if not text.startswith(keys)] == []


def test_no_entry_is_stale(said):
    assert [key for key in listed() if not any(text.startswith(key) for text in said)] == []


def test_no_entry_is_there_twice():
    keys = listed()
    assert sorted(keys) == sorted(set(keys))
    assert len(keys) == PAGE.read_text(encoding="utf-8").count("\n| `")
