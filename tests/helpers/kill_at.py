"""A process that kills itself at a call of a function, so that every moment of a run can be tried."""

import subprocess
import sys

# Put before the code of the process; `die` needs no FiftyOne and no model.
_DIE = """
import os, signal
from pydoc import locate

def die(place, call, after):
    owner, name = place.rsplit(".", 1)
    owner = locate(owner)
    original, calls = getattr(owner, name), []

    def dying(*arguments, **options):
        calls.append(0)
        if len(calls) == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)
"""


def run_until(code: str, place: str, call: int = 1, after: bool = False) -> int:
    """Run code in a process that is killed, and return its status: -9 for the kill, 0 where it came to its end.

    Args:
        code: Python; a line `# die` stands where the function can be replaced, after all imports.
        place: path of the function, such as pathlib.Path.replace.
        call: number of the call, from 1.
        after: kill the process when the call has returned, in place of before.
    """
    prepared = code.replace("# die", f"die({place!r}, {call}, {after})")
    return subprocess.run([sys.executable, "-c", _DIE + prepared], check=False).returncode
