"""The console command `fcn`, in a module whose name is nobody else's.

The packages are called fcn, jobs and pipeline, and so may folders of a user's own be, which come
first on Python's path where they lie in the working directory or in PYTHONPATH.
"""

import os
import signal
import sys
import types
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("fcn", "jobs", "pipeline")
_HERE = Path(__file__).resolve().parent
_STOPPED = 5


def main() -> None:
    """Run the command line, unless a package of ours is somebody else's, and end the process."""
    end_on_signals()
    refuse_others()
    # Not before it is known whose `jobs` that is.
    from jobs.__main__ import command  # noqa: PLC0415

    command()


def end_on_signals() -> None:
    """Let SIGTERM and SIGINT end the process at once, with 5 and a sentence, until it has begun.

    Imports take seconds, and must not be cut short by what a handler raises.
    """

    def end(number: int, _: types.FrameType | None) -> None:
        name = signal.Signals(number).name
        text = f"stopped by {name} before anything was begun; run the same command again\n"
        os.write(2, text.encode())
        # There is nothing to put away, and what is being imported may not let an exception through.
        os._exit(_STOPPED)

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)


def refuse_others() -> None:
    """End the process with 2 and one sentence where a package of ours is found somewhere else."""
    for name in _PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        # A package is ROOT/name/__init__.py, a module of that name would be ROOT/name.py.
        if found is not None and found != _HERE / name / "__init__.py":
            shown = found.parent if found.name == "__init__.py" else found
            print(
                f"{shown} comes before fcn-pipeline's own package `{name}` on Python's path; "
                "rename it, or leave its folder out of PYTHONPATH and the working_dir and call "
                "`fcn` in place of `python -m jobs`",
                file=sys.stderr,
            )
            sys.exit(2)


def others_in(folder: Path) -> list[str]:
    """Name the packages in a folder that would hide ours, if it came first on Python's path.

    Args:
        folder: A checkout of this project hides nothing.
    """
    if (folder / Path(__file__).name).is_file():
        return []
    return [
        name
        for name in _PACKAGES
        if (folder / name / "__init__.py").is_file() or (folder / f"{name}.py").is_file()
    ]
