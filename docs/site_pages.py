"""Write the pages of the docs site into `build/docs`.

    python docs/site_pages.py      # `make docs` and `make docs-check` run it first

The site has the files of docs/, some files outside docs/, and generated reference pages. The generated pages are read
from the program, so they cannot lag behind it: commands from typer, operators, panels and fields from their source,
recipes from their files. Files outside docs/ keep their place in the repository, because GitHub and the Hub show them
there. Their links, and the links to them, become links between pages.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "docs"
# Files outside docs/ -> their pages.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "lab/benchmarks.md",
    "hub/genseg_hub/nano/README.md": "lab/nano.md",
    "hub/genseg_hub/nano_sft/README.md": "lab/nano_sft.md",
}
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)  # of model cards, for the Hub


def write(out: Path) -> None:
    """Write all pages and pictures of the site into a folder, which is emptied first."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for file in out.glob("*.md"):
        file.write_text(with_links_of_site(file.read_text(encoding="utf-8"), f"docs/{file.name}"), encoding="utf-8")
    (out / "lab").mkdir()
    for source, page in OUTSIDE.items():
        text = _FRONT_MATTER.sub("", (ROOT / source).read_text(encoding="utf-8"))
        (out / page).write_text(with_links_of_site(text, source), encoding="utf-8")
    for page, text in generated().items():
        (out / page).write_text(text, encoding="utf-8")


def with_links_of_site(markdown: str, source: str) -> str:
    """Turn a Markdown file's links to repository files into links between pages.

    Args:
        markdown: text of the file.
        source: path of the file in the repository.
    """
    page = OUTSIDE.get(source, source.removeprefix("docs/"))

    def of_site(link: re.Match[str]) -> str:
        opening, target, anchor, closing = link.groups()
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        uri = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if uri is None:
            return link[0]
        return f"{opening}{os.path.relpath(uri, os.path.dirname(page) or '.')}{anchor or ''}{closing}"

    return _LINK.sub(of_site, markdown)


def generated() -> dict[str, str]:
    """Return the pages that are read from the program: page -> Markdown."""
    return {
        "commands.md": _commands(),
        "operators.md": _operators(),
        "fields.md": _fields(),
        "recipes.md": _recipes(),
    }


def _commands() -> str:
    import typer
    from genseg_training.cli import USAGE

    from fiftyone_genseg.cli import app

    parts = [
        "# Commands",
        "Made of `genseg --help` and `genseg-train --help`. Each command also prints its own help.",
        "## `genseg`",
    ]
    for words, command in _walk(typer.main.get_command(app), ("genseg",)):
        arguments = " ".join(p.name.upper() for p in command.params if p.param_type_name == "argument")
        parts += [
            f"### `{' '.join(words)}`",
            _prose(command.help),
            f"```text\n{' '.join(words)} {arguments} [OPTIONS]\n```",
        ]
        rows = [
            f"| {_cell(_names(p))} | {_cell(p.help or '')} | {_cell(_default(p))} |"
            for p in command.params
            if p.name != "help"
        ]
        parts.append("\n".join(["| argument or option | meaning | default |", "|---|---|---|", *rows]) if rows else "")
    parts += [
        "## `genseg-train`",
        f"```text\n{USAGE}\n```",
        "The options below are the project's own. `genseg-train grpo --help` also lists TRL's.",
        "::: genseg_training.grpo_arguments.GrpoArguments",
        "::: genseg_training.mining.MiningArguments",
        "::: genseg_training.sft.SftArguments",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from _walk(below, (*words, name))
        else:
            yield (*words, name), below


def _prose(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").replace("\b", "").split("\n\n"))


def _names(parameter: Any) -> str:
    named = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in named)


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    value = parameter.default
    if parameter.required:
        return "needed"
    if value is None or callable(value) or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{getattr(value, 'value', value)}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _operators() -> str:
    listed = yaml.safe_load((ROOT / "fiftyone.yml").read_text(encoding="utf-8"))
    parts = [
        "# Operators and panels",
        "Press `` ` `` in the App and type an operator's name. Panels are under *+*. From Python, "
        '`foo.get_operator("@fiftyone-genseg/genseg/NAME")` gives the operator; the operators with a signature below '
        "can be called.",
        "## Operators",
    ]
    for name in listed["operators"]:
        file = ROOT / "fiftyone_genseg" / "operators" / f"{name}.py"
        found = _operator(ast.parse(file.read_text(encoding="utf-8")), name)
        parts += [f"### {found['label']}", f"`@fiftyone-genseg/genseg/{name}`: {found['description']}."]
        if found["callable"]:
            path = f"fiftyone_genseg.operators.{name}.{found['class']}.__call__"
            parts.append(f"::: {path}\n    options:\n      heading_level: 4\n      show_root_full_path: false")
    parts.append("## Panels")
    for file in sorted((ROOT / "fiftyone_genseg" / "panels").glob("[a-z]*.py")):
        found = _operator(ast.parse(file.read_text(encoding="utf-8")), None)
        parts += [f"### {found['label']}", found["help_markdown"] or found["doc"]]
    return "\n\n".join(parts) + "\n"


def _operator(module: ast.Module, name: str | None) -> dict[str, Any]:
    """Read the configuration of an operator or a panel from its source.

    The module is parsed and not imported, because importing FiftyOne would start its database.
    """
    for node in module.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for call in ast.walk(node):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if call.func.attr in ("OperatorConfig", "PanelConfig", "config") and (call.args or call.keywords):
                given = dict(zip(("name", "label", "description"), call.args, strict=False))
                given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
                said = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
                if "label" not in said or (name and said.get("name") != name):
                    continue
                return (
                    {"description": "", "help_markdown": ""}
                    | said
                    | {
                        "class": node.name,
                        "doc": ast.get_docstring(node) or "",
                        "callable": any(isinstance(m, ast.FunctionDef) and m.name == "__call__" for m in node.body),
                    }
                )
    raise ValueError(f"no configuration of {name or 'a panel'} was found in its source")


def _fields() -> str:
    """Return the page of fields, from the descriptions in the program's source."""
    package = ROOT / "fiftyone_genseg"
    examples = _assigned(package / "labels.py", package / "fields.py")
    result = _assigned(package / "statuses.py", package / "outputs.py")
    kept = _assigned(package / "fields.py", package / "asking" / "corrections.py")
    run = _assigned(package / "evaluation" / "config.py")
    masks_and_prompts = {f"FIELD{suffix}": words for suffix, (_, _, words) in result["_LABELS"].items()}
    for suffix, (_, items, _) in result["_LABELS"].items():
        masks_and_prompts |= {f"FIELD{suffix}.{items}.{a}": words for a, words in result["_LABEL_ATTRIBUTES"].items()}
    outcome = {"FIELD_outcome": result["_OUTCOME"]}
    outcome |= {f"FIELD_outcome.{name}": words for name, words in result["_OUTCOME_COUNTS"].items()}
    responses = {"FIELD_responses": result["_RESPONSES"]}
    responses |= {f"FIELD_responses.{name}": words for name, (_, words) in result["_RESPONSE_FIELDS"].items()}
    of_labels = {f"LABELS.detections.KEY{suffix}": words for suffix, words in run["_LABEL_DESCRIPTIONS"].items()}
    parts = [
        "# Fields",
        "The App shows these descriptions in its sidebar. [What the operator stores](results.md) has the rules.",
        "## A result",
        "*Referring segment*, *Ask* and `genseg segment-dataset` write these fields. `FIELD` is the output field.",
        _table(masks_and_prompts | outcome | responses),
        "## An evaluation run",
        "*Evaluate referring segmentation* and `evaluate` write these fields. `KEY` is the key of the run. `LABELS` "
        "is each of the two label fields, predicted and true masks. [Evaluate](evaluation.md) has the rules.",
        _table({f"KEY_{name}": words for name, words in run["_DESCRIPTIONS"].items()} | of_labels),
        "## Kept answers",
        "*Ask* writes these fields when a person keeps an answer ([correcting](correcting.md)).",
        _table(kept["_FIELDS"]),
        "## Referring examples",
        "*Load referring dataset* and `genseg demo` write these fields.",
        _table(examples["DESCRIPTIONS"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: dict[str, str]) -> str:
    lines = [f"| `{name}` | {_cell(words)} |" for name, words in rows.items()]
    return "\n".join(["| field | meaning |", "|---|---|", *lines])


def _assigned(*files: Path) -> dict[str, Any]:
    """Return the literals that modules assign to names; import no module.

    A literal may use names that an earlier module assigns.
    """
    names: dict[str, Any] = {}
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign):
                target, value = node.targets[0], _literal(node.value, names)
                if isinstance(target, ast.Name):
                    names[target.id] = value
                elif isinstance(target, ast.Tuple) and isinstance(value, tuple):
                    names |= {ast.unparse(name): item for name, item in zip(target.elts, value, strict=True)}
    return names


def _literal(node: ast.AST | None, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return names.get(name)
        case ast.JoinedStr(values=parts):
            return "".join(str(_literal(part, names)) for part in parts)
        case ast.FormattedValue(value=value):
            return _literal(value, names)
        case ast.Tuple(elts=items):
            return tuple(_literal(item, names) for item in items)
        case ast.Dict(keys=keys, values=values):
            return {_literal(key, names): _literal(value, names) for key, value in zip(keys, values, strict=True)}
    return None


def _recipes() -> str:
    """Return the page of recipes; the first comment of a recipe states its purpose."""
    files = sorted((ROOT / "training" / "recipes").glob("*.yaml"))
    parts = [
        "# Recipes",
        "`genseg-train grpo --config NAME` takes a recipe by its name. The first comment of each recipe has its "
        "command, and the others give the reasons for the values. [Training](training.md) explains the options.",
    ]
    recipes = {file.stem: file.read_text(encoding="utf-8").strip() for file in files}
    rows = (f"| [{name}](#{name}) | {_cell(text.splitlines()[0].strip('# :'))} |" for name, text in recipes.items())
    parts.append("\n".join(["| recipe | purpose |", "|---|---|", *rows]))
    for name, text in recipes.items():
        parts += [f"## {name}", f"```yaml\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    write(OUT)
