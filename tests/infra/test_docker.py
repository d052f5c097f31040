"""infra/docker: the image holds the lock and the wheel, by the commands of the Makefile."""

import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.infra.manifests import KUBERAY, dockerfile, pins, plain, recipes
from tests.product import REPOSITORY

_LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


def test_steps_are_those_of_the_makefile():
    """Every command in the image is the Makefile's, but for its wheel, user and C compiler."""
    steps = [plain(arguments) for name, arguments in dockerfile() if name == "RUN"]

    others = [step for step in steps if step not in recipes()]
    assert len(steps) - len(others) == 3
    assert others == [
        (
            "apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends "
            "gcc libc6-dev && rm -rf /var/lib/apt/lists/*"
        ),
        "python -m pip install --quiet --no-deps /tmp/dist/*.whl",
        "useradd --create-home --uid 1000 fcn",
    ]


def test_what_the_image_installs_is_locked():
    """The image installs the runtime's lock; its wheel is built with the lock for building."""
    steps = [arguments for name, arguments in dockerfile() if name == "RUN"]
    installed = [step.rpartition("/")[2].rpartition(" ")[2] for step in steps if "-r " in step]

    assert installed == ["requirements-build.lock", "requirements.lock"]
    assert all("--require-hashes" in step for step in steps if "-r " in step)


@pytest.mark.parametrize("lock", _LOCKS)
def test_locks_are_whole(lock: str):
    """Every requirement of a lock has a version and a hash."""
    text = (REPOSITORY / lock).read_text()
    requirements = re.split(r"\n(?=\S)", text.strip())

    assert requirements
    for one in requirements:
        if not one.startswith("#"):
            assert re.match(r"[\w.-]+==\S+", one)
            assert "--hash=sha256:" in one


def test_locks_agree():
    """What is tested is installed: the locks of runtime and building are parts of the tests'."""
    tested = pins("requirements-dev.lock")
    assert pins("requirements.lock").items() <= tested.items()
    assert pins("requirements-build.lock").items() <= tested.items()
    assert "hatchling" in pins("requirements-build.lock")


def test_the_context_has_what_the_image_copies():
    """Every file that the Dockerfile copies is there, and .dockerignore lets it through."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    admitted = [line[1:] for line in lines if line.startswith("!")]
    sources = [
        source
        for name, arguments in dockerfile()
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    ]

    assert "*" in lines
    assert sorted(sources) == sorted(admitted)
    for source in sources:
        assert (REPOSITORY / source).exists()


def test_the_image_runs_as_the_user_of_the_manifests():
    """The last user of the image is a number, that of every manifest, and not root."""
    [user] = [arguments for name, arguments in dockerfile() if name == "USER"]
    text = "".join(path.read_text() for path in KUBERAY.glob("*.yaml"))

    assert user == "1000"
    assert set(re.findall(r"runAsUser: (\d+)", text)) == {user}


def test_the_image_starts_as_the_readme_says():
    """Without a command the image shows the help of `python -m jobs`; nothing stands before it."""
    instructions = dict(dockerfile())
    assert instructions["CMD"] == '["python", "-m", "jobs", "--help"]'
    assert "ENTRYPOINT" not in instructions


def test_the_wheel_is_whole(tmp_path: Path):
    """The step that builds the wheel makes one that has every file of the packages, and `fcn`."""
    [step] = [arguments for name, arguments in dockerfile() if "pip wheel" in arguments]
    arguments = [one.replace("dist", str(tmp_path)) for one in step.split()[1:]]
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True, capture_output=True)

    [path] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        [entry] = [name for name in names if name.endswith("entry_points.txt")]
        assert "fcn = fcn_pipeline:main" in wheel.read(entry).decode()
    sources = {
        str(file.relative_to(REPOSITORY))
        for package in ("fcn", "jobs", "pipeline")
        for file in (REPOSITORY / package).rglob("*")
        if file.is_file() and not fnmatch(str(file), "*__pycache__*")
    }
    assert sources | {"fcn_pipeline.py", "fcn/py.typed"} <= names
