"""Give a benchmark a home, a database name and a plugins folder until it ends.

Import this module before FiftyOne. FiftyOne joins a database server of its own that is already running; the database
name keeps the datasets apart even then.
"""

from __future__ import annotations

import atexit
import os
import sys
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

if not {"-h", "--help"}.isdisjoint(sys.argv):
    os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"  # the help needs no database

import fiftyone as fo  # noqa: E402
import fiftyone.core.odm as foo  # noqa: E402

if "FIFTYONE_DISABLE_SERVICES" not in os.environ:
    atexit.register(foo.drop_database)  # runs before FiftyOne stops its server

__all__ = ["HOME", "fo"]
