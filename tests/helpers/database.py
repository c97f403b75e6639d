"""One MongoDB for a whole test session, in which each worker has a database of its own."""

import importlib.util
import socket
import subprocess
import time
from pathlib import Path

import pymongo

_START_SECONDS = 60


def start(folder: Path) -> tuple[str, subprocess.Popen]:
    """Start FiftyOne's own mongod on a free port of the loopback interface.

    Args:
        folder: for the files of the database, new or of an earlier one.

    Returns:
        The address for FIFTYONE_DATABASE_URI, and the process.

    Raises:
        RuntimeError: mongod does not answer.
    """
    package = importlib.util.find_spec("fiftyone")  # found without the cost of importing it
    (mongod,) = (Path(place) / "db" / "bin" / "mongod" for place in package.submodule_search_locations)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    arguments = [mongod, "--dbpath", folder, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    address, deadline = f"mongodb://127.0.0.1:{port}", time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with pymongo.MongoClient(address, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")
            return address, process
        except pymongo.errors.ServerSelectionTimeoutError:
            continue
    process.kill()
    raise RuntimeError(f"{mongod} does not answer at {address}")
