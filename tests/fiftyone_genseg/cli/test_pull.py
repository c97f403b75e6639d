"""A checkpoint comes back from a Hub as it was, whatever happens on the way."""

import re

import pytest
from genseg_hub import GenSegR1, checkpoints
from genseg_hub.errors import CheckpointError
from genseg_hub.publishing import publish
from huggingface_hub import constants, file_download

from tests.helpers.checkpoints import NANO, run, weights
from tests.helpers.hub_server import REPO

WEIGHTS = "GET .*/resolve/.*/segmenter/model.safetensors"


def test_a_download_goes_on_where_it_was_cut(hub, folder):
    publish.push(folder, REPO)
    size = (folder / "segmenter" / "model.safetensors").stat().st_size
    with hub.fault(WEIGHTS, "end", times=1):
        checkpoint = checkpoints.pull(REPO)
    assert weights(checkpoint.reasoner) == weights(NANO)
    assert hub.sent["segmenter/model.safetensors"] < size + constants.DOWNLOAD_CHUNK_SIZE


def test_a_download_is_tried_again_when_the_connection_is_reset(hub, folder):
    publish.push(folder, REPO)
    with hub.fault(WEIGHTS, "reset", times=2):
        checkpoint = checkpoints.pull(REPO)
    assert weights(checkpoint.reasoner) == weights(NANO)
    assert len([request for request in hub.requests if re.search(WEIGHTS, request)]) == 3


def test_a_pinned_name_gives_the_same_commit_again(hub, folder):
    first = publish.push(folder, REPO).commit
    (folder / "recipe.yaml").write_text("seed: 1\n")
    publish.push(folder, REPO)
    model = GenSegR1.from_pretrained(f"{REPO}@{first}", device="cpu")
    assert (model.checkpoint.commit, model.checkpoint.pinned) == (first, f"{REPO}@{first}")
    assert checkpoints.pull(REPO).commit != first


def test_damaged_weights_are_noticed_and_fetched_again(hub, folder):
    publish.push(folder, REPO)
    with hub.fault(WEIGHTS, "damage"):
        pulled = run("pull", REPO)
    assert pulled.exit_code == 1
    assert "segmenter/model.safetensors of me/nano arrived damaged and was removed; pull me/nano again" in pulled.output
    assert run("pull", REPO).exit_code == 0
    assert weights(checkpoints.pull(REPO).reasoner) == weights(NANO)


def test_a_full_disk_is_explained_and_a_second_pull_succeeds(hub, folder, monkeypatch):
    publish.push(folder, REPO)
    download = file_download.http_get

    class Full:
        """A file on a disk that has room for 5 MB."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if self.file.tell() > 5_000_000:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", lambda url, file, **options: download(url, Full(file), **options))
        with pytest.raises(CheckpointError, match=r"disk is full.*complete are kept"):
            checkpoints.pull(REPO)
    assert weights(checkpoints.pull(REPO).reasoner) == weights(NANO)


@pytest.mark.parametrize(("request_", "answer"), [("GET /api/models/", 500), (WEIGHTS, 403), (WEIGHTS, 500)])
def test_a_refused_download_is_explained(hub, folder, request_, answer):
    publish.push(folder, REPO)
    with hub.fault(request_, answer):
        pulled = run("pull", REPO)
    assert pulled.exit_code == 1
    assert pulled.output.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in pulled.output
    assert run("pull", REPO).exit_code == 0


def test_what_is_not_there_is_explained(hub, folder):
    assert "no repository me/absent that you may see" in run("pull", "me/absent").output
    publish.push(folder, REPO)
    assert "has no revision 'v9'" in run("pull", f"{REPO}@v9").output
    assert run("pull", "nano").output.splitlines() == ["nano is on this disk, not of the Hub", f"folder {NANO}"]
