"""Code in the README and in docs/: what a new user types is run, and everything else names what exists."""

import dataclasses
import importlib
import itertools
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fiftyone_genseg.cli import app
from tests.conftest import PHOTOS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose blocks are run, unless a comment before a block says why it is not.
NEW_USERS = ("install", "start", "start_app", "segmenting", "publishing", "evaluation", "results", "refscenes")
RUN = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NEW_USERS)]
PRINTED = ("text", "json")  # languages of blocks that nobody runs
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<why>.+?) -->\n)?^(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_OURS = re.compile(r"^from ((?:fiftyone_genseg|genseg_\w+)[\w.]*) import (.+)$", re.MULTILINE)
_TRAIN_STAGES = {"sft", "grpo", "data", "mine", "vision", "nano-sft", "segmenter", "export"}


class Block(NamedTuple):
    language: str
    code: str
    why_not: str | None


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["language"], textwrap.dedent(found["code"]), found["why"])
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def commands(code: str) -> list[list[str]]:
    """Return the commands of a shell block as words: without comments, prompts and variables that are set."""
    lines = code.replace("\\\n", " ").splitlines()
    bare = (re.sub(r"^\s*(\$ )?([A-Z_]+=\S+ )*", "", line) for line in lines)
    return [words for line in bare if line and (words := _words(line))]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # what a command prints
        return []


def all_commands(program: str) -> list[list[str]]:
    """Return the words after a program's name, in every shell block of every page."""
    found = [
        words
        for page in PAGES
        for block in blocks(page)
        if block.language in ("bash", "console")
        for words in commands(block.code)
    ]
    return [words[1:] for words in found if words[0] == program and not words[1].endswith(":")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, plugin):
    """Return a folder as the pages assume it, with `genseg-demo` in the database."""
    folder = tmp_path_factory.mktemp("place")
    demo = CliRunner().invoke(app, ["demo", "--headless", "--scenes", "2", "--out", str(folder / "demo_out")])
    assert demo.exit_code == 0, demo.output
    scene = next((folder / "demo_out" / "images").glob("*.png"))
    shutil.copy(scene, folder / "scene.png")
    Image.open(scene).convert("RGB").save(folder / "photo.jpg")
    (folder / "photos").mkdir()
    shutil.copy(next(PHOTOS.rglob("*.jpg")), folder / "photos")
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_new_users_page_runs(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {}
    for block in blocks(page):
        if block.why_not:
            continue
        if block.language == "python":
            exec(compile(block.code, str(page), "exec"), names)
        elif block.language == "bash":
            for program, *words in commands(block.code):
                assert program == "genseg", f"{page.name}: say why `{program}` is not run"
                done = CliRunner().invoke(app, words)
                assert done.exit_code == 0, f"{page.name}: genseg {words}: {done.output}"


def test_each_block_is_run_or_says_why_not():
    for page in PAGES:
        for block in blocks(page):
            first = f"{page.name}: {block.code.splitlines()[0]}"
            assert block.language, f"{first}: name a language"
            assert block.why_not or block.language in PRINTED or page in RUN, f"{first}: say why it is not run"


def test_blocks_are_found():
    start = blocks(ROOT / "docs" / "start.md")
    assert [block.language for block in start].count("python") == 2
    assert start[1].why_not == "needs Ollama and its model"
    assert len(all_commands("genseg")) > 40


def test_commands_and_their_options_exist():
    for words in all_commands("genseg"):
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        if words == ["--help"]:
            continue
        assert not hasattr(command, "commands"), f"there is no command {words}"
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
        given = words[: words.index("--")] if "--" in words else words
        assert {word.partition("=")[0] for word in given if re.match("--?[a-z]", word)} <= known, words


def test_stages_and_their_options_exist():
    from genseg_training.cli import recipes
    from genseg_training.grpo_arguments import GrpoArguments
    from genseg_training.mining import MiningArguments
    from genseg_training.sft import SftArguments
    from trl import GRPOConfig, ModelConfig, SFTConfig

    classes = {
        "grpo": (GrpoArguments, GRPOConfig, ModelConfig),
        "sft": (SftArguments, SFTConfig, ModelConfig),
        "mine": (MiningArguments,),
    }
    for stage, *words in all_commands("genseg-train"):
        assert stage in _TRAIN_STAGES, stage
        for before, word in itertools.pairwise(words):
            if before == "--config":
                assert word in recipes() or (ROOT / word).is_file(), word
        if stage in classes:
            known = {field.name for kind in classes[stage] for field in dataclasses.fields(kind)} | {"config", "help"}
            assert {word[2:] for word in words if word.startswith("--")} <= known, (stage, words)


def test_targets_and_files_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert {found for found in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)} <= targets, page.name
        for file in re.findall(r"(?:python|pytest|sbatch)\s+((?:examples|benchmarks|docs|tests)/[\w./]+\w)", text):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


def test_python_blocks_import_what_there_is():
    for page in PAGES:
        for block in blocks(page):
            if block.language != "python":
                continue
            compile(block.code, str(page), "exec")
            for module, names in re.findall(
                r"^from ((?:fiftyone_genseg|genseg_\w+)[\w.]*) import (.+)$", block.code, re.M
            ):
                for name in names.split(","):
                    name = name.split()[0]
                    there = hasattr(importlib.import_module(module), name)
                    assert there or importlib.util.find_spec(f"{module}.{name}"), f"{page.name}: {module}.{name}"


def test_links_lead_somewhere_outside_the_site_too():
    generated = {"commands.md", "operators.md", "fields.md", "recipes.md"}
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#\s]+)", _BLOCK.sub("", page.read_text(encoding="utf-8"))):
            there = link.startswith("https://") or (page.parent / link).exists() or link in generated
            assert there, f"{page.name}: {link}"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.partition("## More")[2].count("](") == 4
    assert len(text.split()) < 450
