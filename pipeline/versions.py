"""What a run's results may depend on besides its settings: Python and packages."""

import importlib.metadata
import platform
from collections.abc import Mapping

PACKAGES = (
    *("fcn-pipeline", "ray", "torch", "numpy", "pyarrow"),
    *("pillow", "simplejpeg", "tifffile", "imagecodecs", "zlib-ng"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages, in the process that asks."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Say which versions differ, each as `NAME THEIRS (here OURS)`.

    Builds of one version for several devices (2.14.1+cpu, 2.14.1+cu130) are the same.

    Args:
        ours: Of this process.
        theirs: Of another one.
    """
    return [
        f"{name} {theirs.get(name)} (here {version})"
        for name, version in ours.items()
        if theirs.get(name, "").partition("+")[0] != version.partition("+")[0]
    ]
