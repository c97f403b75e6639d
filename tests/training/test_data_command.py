"""`genseg-train data`: a folder that training reads, without copies of images, and the table of shared images."""

import datasets
import pytest
from genseg_training import cli, sources

from tests.helpers import archive_files


def test_the_folder_is_the_source_without_its_images(root, tmp_path, capsys):
    val = archive_files.divided(root)
    out = tmp_path / "train"
    command = ["data", "grefcoco:train", "--root", str(root), "--exclude", "refcocog:val", "--out", str(out)]
    cli.main(command)
    report = (out / "report.txt").read_text()
    assert report in capsys.readouterr().out
    written = sources.load_source(str(out))
    assert written["expression"] == sources.load_source("grefcoco:train", root=root)["expression"]
    assert not val & set(written["image_id"])
    raw = datasets.load_from_disk(out).cast_column("image", datasets.Image(decode=False))
    assert all(image["bytes"] is None and image["path"].startswith(str(root)) for image in raw["image"])
    stamp = (out / "report.txt").stat().st_mtime_ns
    cli.main(command)
    assert "is whole already" in capsys.readouterr().out
    assert (out / "report.txt").stat().st_mtime_ns == stamp
    with pytest.raises(SystemExit, match="exists and holds something else"):
        cli.main([*command, "--seed", "2"])


def test_the_table_of_shared_images(root, capsys):
    archive_files.divided(root)
    cli.main(["data", "--overlap", "refcocog:val", "grefcoco:val", "--root", str(root)])
    assert "| refcocog:val | 2 | - | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["refscenes:8"], "name the folder to write with --out"),
        (["--out", "x"], "name at least one source"),
        (["--overlap", "--root", "/nowhere"], "a folder that holds official archives; it is '/nowhere'"),
        (["refcocog:train", "--out", "x", "--root", "/nowhere"], "there is no /nowhere"),
    ],
)
def test_what_cannot_work_is_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        cli.main(["data", *arguments])
    assert not list(tmp_path.iterdir())
