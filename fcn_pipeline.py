"""The console command `fcn`, in a module whose name is nobody else's.

The packages are called fcn, jobs and pipeline, and so may folders of a user's own be, which come
first on Python's path where they lie in the working directory or in PYTHONPATH.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("fcn", "jobs", "pipeline")
_HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the command line, unless some of its packages are somebody else's.

    Returns:
        The exit code.
    """
    refuse_others()
    # Not before it is known whose `jobs` that is.
    from jobs.__main__ import main as run  # noqa: PLC0415

    return run()


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
