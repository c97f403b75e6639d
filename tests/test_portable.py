"""Everything can be imported on Windows, too."""

import ast
from importlib.util import find_spec
from pathlib import Path

POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
