"""What lies in infra/, as the tests read it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from tests.product import REPOSITORY

INFRA = REPOSITORY / "infra"
KUBERAY = INFRA / "kuberay"
Document = dict[str, Any]

RAYJOBS = {
    "label.yaml": lambda document: document["spec"],
    "train.yaml": lambda document: document["spec"],
    "nightly-raycronjob.yaml": lambda document: document["spec"]["jobTemplate"],
}


def documents(path: Path) -> list[Document]:
    """Read the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def manifests() -> dict[str, Document]:
    """Read what is sent to Kubernetes, by file and kind."""
    return {
        f"{path.name}/{document['kind']}": document
        for path in sorted(KUBERAY.glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for document in documents(path)
    }


def rayjob_spec(name: str) -> Document:
    """Read the spec of the RayJob that a file describes."""
    [document] = documents(KUBERAY / name)
    spec: Document = RAYJOBS[name](document)
    return spec


def groups(spec: Document) -> dict[str, Document]:
    """Return head and worker groups of a RayJob by name."""
    cluster = spec["rayClusterSpec"]
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def pod_templates(spec: Document) -> dict[str, Document]:
    """Return all pod templates of a RayJob by group."""
    of_groups = {name: group["template"] for name, group in groups(spec).items()}
    return {"submitter": spec["submitterPodTemplate"], **of_groups}


def command_of(spec: Document) -> list[str]:
    """Return the entry point of a RayJob, split as a shell does."""
    return shlex.split(spec["entrypoint"])


def images() -> set[str]:
    """Return every container image that a manifest names."""
    text = "".join(path.read_text() for path in KUBERAY.glob("*.yaml"))
    return set(re.findall(r"image: (?:&\w+ )?([^*\s]+)$", text, re.MULTILINE))


def pins(lock: str) -> dict[str, str]:
    """Read name and version of every requirement of a lock."""
    text = (REPOSITORY / lock).read_text()
    return dict(re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE))


def recipes() -> set[str]:
    """Return the Makefile's commands, each as `plain` gives them."""
    text = (REPOSITORY / "Makefile").read_text()
    return {plain(line) for line in re.findall(r"^\t@?(.*)$", text, re.MULTILINE)}


def plain(command: str) -> str:
    """Take from a command which lock it installs, and which Python runs it, and where."""
    python = re.sub(r"\$\((RUN|PYTHON)\)|\S*python(3\.\d+)?(?= )", "python", command)
    return re.sub(
        r"\S*requirements\S*\.lock", "LOCK", re.sub(r"\S*venv$|\$\(VENV\)$", "VENV", python)
    )


def dockerfile() -> list[tuple[str, str]]:
    """Read the Dockerfile's instructions, each with its arguments on one line."""
    text = (INFRA / "docker" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines()]


class _CloudFormation(yaml.SafeLoader):
    """Reads !Ref, !Sub and !GetAtt as what they stand for."""


def _intrinsic(loader: _CloudFormation, tag: str, node: yaml.ScalarNode) -> Document:
    name = "Ref" if tag == "Ref" else f"Fn::{tag}"
    return {name: loader.construct_scalar(node)}


_CloudFormation.add_multi_constructor("!", _intrinsic)


def storage_template() -> Document:
    """Read infra/aws/storage.yaml with its parameters' defaults put in."""
    text = (INFRA / "aws" / "storage.yaml").read_text()
    template = yaml.load(text, _CloudFormation)
    values = {name: given["Default"] for name, given in template["Parameters"].items()}
    values["AWS::AccountId"] = "111122223333"

    def resolve(value: Any) -> Any:
        match value:
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([\w:]+)\}", lambda found: values[found[1]], text)
            case {"Ref": str(name)}:
                return values.get(name, name)
            case dict():
                return {key: resolve(item) for key, item in value.items()}
            case list():
                return [resolve(item) for item in value]
        return value

    resolved: Document = resolve(template)
    trust = resolved["Resources"]["WriterRole"]["Properties"]
    trust["AssumeRolePolicyDocument"] = json.loads(trust["AssumeRolePolicyDocument"])
    return resolved
