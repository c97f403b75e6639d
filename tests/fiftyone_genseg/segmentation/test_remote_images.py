"""Images under a URL: what a user may name, what a sample's path can name, and one read for each image."""

import re
import threading
from threading import Event

import fsspec
import pytest
from genseg_hub.schema import Failure

from fiftyone_genseg.segmentation import remote_images as module
from fiftyone_genseg.segmentation.remote_images import RemoteImages
from fiftyone_genseg.segmentation.request import SegmentRequest
from tests.helpers.image_stores import s3, web


@pytest.fixture
def store(monkeypatch):
    """Return a store in memory with three files, and the paths that were read."""
    files = fsspec.filesystem("memory")
    for name in ("a.png", "deep/b c#1.png", "z::memory:/secret.png"):
        files.pipe(f"/bucket/photos/{name}", name.encode())
    files.pipe("/bucket/secret.png", b"secret")
    files.pipe("/secret.png", b"secret")
    read, cat = [], type(files).cat_file
    monkeypatch.setattr(type(files), "cat_file", lambda self, path, **more: (read.append(path), cat(self, path))[1])
    yield read
    files.rm("/bucket", recursive=True)
    files.rm("/secret.png")


def test_each_file_is_read_once_in_order_and_a_failure_is_its_own(store):
    images = RemoteImages.parse("/data/photos=memory://bucket/photos/")
    assert images == RemoteImages("/data/photos", "memory://bucket/photos")
    paths = ["a.png", "a.png", "gone.png", "deep/b c#1.png"] * 50
    found = list(images.contents([f"/data/photos/{name}" for name in paths]))
    for name, content in zip(paths, found, strict=True):
        if name == "gone.png":
            assert isinstance(content, Failure)
            assert content.message.startswith("memory://bucket/photos/gone.png cannot be read: FileNotFoundError")
        else:
            assert content == name.encode()
    assert len(store) == 150


@pytest.mark.parametrize("serve", [s3, web])
def test_servers_are_read(serve, tmp_path):
    names = ["a.png", "deep/b c#1.png", "deep/50%25 ä+?.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 1000)
    with serve(tmp_path) as url:
        images = RemoteImages.parse(f"/data/photos={url}")
        *found, gone = images.contents([f"/data/photos/{name}" for name in [*names, "gone.png"]])
    assert found == [name.encode() * 1000 for name in names]
    assert isinstance(gone, Failure)
    assert gone.message.startswith(f"{url}/gone.png cannot be read: FileNotFoundError")


def test_a_server_that_is_away_is_a_failure_of_each_image(tmp_path):
    with web(tmp_path) as url:
        pass
    for answer in RemoteImages("/data/photos", url).contents(["/data/photos/a.png", "/data/photos/b.png"]):
        assert isinstance(answer, Failure)
        assert answer.message.startswith(f"{url}/")


@pytest.mark.parametrize("name", ["../secret.png", "deep/../../secret.png"])
def test_a_path_leads_nowhere_else(store, name):
    (content,) = RemoteImages("/data/photos", "memory://bucket/photos").contents([f"/data/photos/{name}"])
    assert isinstance(content, Failure)
    assert store == []


def test_a_second_url_in_a_name_is_a_name(store):
    images = RemoteImages("/data/photos", "memory://bucket/photos")
    assert list(images.contents(["/data/photos/z::memory:/secret.png"])) == [b"z::memory:/secret.png"]


def test_reading_can_be_given_up(store):
    images = RemoteImages("/data/photos", "memory://bucket/photos")
    reading = images.contents([f"/data/photos/{name}" for name in ("a.png", "gone.png") * 500])
    assert next(reading) == b"a.png"
    reading.close()
    assert len(store) < 1000


def test_large_files_are_not_read_far_ahead(store, monkeypatch):
    """Files of a quarter of the bytes: four are read at once, and never more than four wait."""
    monkeypatch.setattr(module, "_BYTES", 400)
    files = fsspec.filesystem("memory")
    for number in range(40):
        files.pipe(f"/bucket/photos/{number}.png", b"x" * 100)
    images = RemoteImages("/data/photos", "memory://bucket/photos")
    for number, content in enumerate(images.contents([f"/data/photos/{number}.png" for number in range(40)]), 1):
        assert len(content) == 100
        assert len(store) <= number + 3


def test_giving_up_does_not_wait_for_a_server_that_hangs(store, monkeypatch):
    hangs, content = Event(), RemoteImages._content

    def late(self, system, root, image):
        if not image.endswith("a.png"):
            hangs.wait(60)
        return content(self, system, root, image)

    monkeypatch.setattr(RemoteImages, "_content", late)
    images = RemoteImages("/data/photos", "memory://bucket/photos")
    reading = images.contents(["/data/photos/a.png", "/data/photos/gone.png", "/data/photos/a.png"])
    assert next(reading) == b"a.png"
    reading.close()
    assert not hangs.is_set()
    assert any(thread.name.startswith("images") and thread.is_alive() for thread in threading.enumerate())
    hangs.set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://bucket/photos", "'s3://bucket/photos' is not FOLDER=URL"),
        ("/data/photos=/mnt/photos", "is not FOLDER=URL"),
        ("photos=memory://bucket", "the folder 'photos' must be absolute"),
        ("/data/../photos=memory://bucket", "must be absolute"),
        ("/data=https://me:pass123@host/photos", "must have no user, password, query or second URL"),
        ("/data=https://host/photos?token=x", "must have no user, password, query or second URL"),
        ("/data=simplecache::s3://bucket", "is not FOLDER=URL"),
        ("/data=memory://bucket/zip::file://x", "must have no user, password, query or second URL"),
        ("/data=carrier-pigeon://bucket", "images of carrier-pigeon:// cannot be read here: Protocol not known"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        RemoteImages.parse(text)
    assert "pass123" not in str(error.value)


def test_a_request_names_files_outside_of_the_folder(dataset):
    request = SegmentRequest("a star", engine="ray", images="/nowhere=memory://bucket")
    problem = request.problem(dataset)
    assert problem.startswith("16 of 16 files are not in /nowhere, for example ")
    assert dataset.first().filepath in problem
    folder = dataset.first().filepath.rpartition("/")[0]
    assert SegmentRequest("a star", engine="ray", images=f"{folder}=memory://bucket").problem(dataset) is None


def test_images_of_a_url_need_workers(dataset):
    problem = SegmentRequest("a star", images="/data=memory://bucket").problem(dataset)
    assert problem == "Only workers on Ray read images from a URL; choose the engine 'ray', or leave images out."
