"""One Ray, one Python and one image, wherever they are named."""

import re
import tomllib
from importlib.metadata import version

from tests.infra.manifests import INFRA, RAYJOBS, dockerfile, images, rayjob_spec
from tests.product import REPOSITORY

_PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
_MAKEFILE = (REPOSITORY / "Makefile").read_text()
_ON_MACHINES = (INFRA / "aws" / "cluster.yaml").read_text()


def test_there_is_one_ray():
    """Project, lock, environment and every RayJob name the same version of Ray."""
    [wanted] = [one for one in _PROJECT["project"]["dependencies"] if one.startswith("ray[")]
    locked = re.findall(
        r"^ray==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE
    )

    named = {rayjob_spec(name)["rayClusterSpec"]["rayVersion"] for name in RAYJOBS}
    assert named == {wanted.partition("==")[2]} == {*locked} == {version("ray")}


def test_there_is_one_python():
    """Both stages of the image have one exact Python, of the version that is locked and linted."""
    bases = {arguments.split()[0] for name, arguments in dockerfile() if name == "FROM"}
    [base] = bases
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-bookworm", base)
    assert found is not None
    python = found[1]

    assert set(re.findall(r"--python-version (\S+)", _MAKEFILE)) == {python}
    assert _PROJECT["project"]["requires-python"].startswith(f">={python},")
    assert _PROJECT["tool"]["ruff"]["target-version"] == f"py{python.replace('.', '')}"
    assert set(re.findall(r"python3\.\d+", _ON_MACHINES)) == {f"python{python}"}


def test_there_is_one_image():
    """Every pod has the same image, tagged with the version of the project, as the build does."""
    tag = _PROJECT["project"]["version"]
    [image] = images()
    built = re.search(r"docker build .* -t (\S+) ", (INFRA / "docker" / "Dockerfile").read_text())

    assert image.rpartition(":")[2] == tag
    assert built is not None
    assert image.endswith(f"/{built[1]}")
