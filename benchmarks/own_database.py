"""A home, a database name and a plugins folder of a benchmark's own, gone when it ends.

Import it before FiftyOne. FiftyOne joins a database server of its own kind that is running already; the name keeps the
datasets apart even then.
"""

from __future__ import annotations

import atexit
import os
import tempfile

HOME = tempfile.TemporaryDirectory(prefix="genseg-bench-", ignore_cleanup_errors=True)
os.environ.pop("FIFTYONE_DATABASE_URI", None)
os.environ |= {
    "HOME": HOME.name,
    "FIFTYONE_CONFIG_PATH": f"{HOME.name}/config.json",
    "FIFTYONE_PLUGINS_DIR": f"{HOME.name}/plugins",
    "FIFTYONE_DATABASE_DIR": f"{HOME.name}/mongo",
    "FIFTYONE_DATABASE_NAME": f"genseg-bench-{os.getpid()}",
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
}

import fiftyone as fo  # noqa: E402
import fiftyone.core.odm as foo  # noqa: E402

atexit.register(foo.drop_database)  # runs before FiftyOne's own end, which stops the server

__all__ = ["HOME", "fo"]
