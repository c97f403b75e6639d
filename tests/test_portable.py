"""Everything can be imported on Windows, too."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported; `genseg reproduce` alone needs a POSIX system to run."""
    for part in ast.iter_child_nodes(node):
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            yield part
            yield from outside_functions(part)


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in outside_functions(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_no_module_imports_what_windows_does_not_have():
    packages = [
        find_spec(name).submodule_search_locations for name in ("fiftyone_genseg", "genseg_hub", "genseg_training")
    ]
    files = [file for (folder,) in packages for file in Path(folder).rglob("*.py")]
    assert len(files) > 80
    assert {file: imported(file) & POSIX_ONLY for file in files if imported(file) & POSIX_ONLY} == {}
