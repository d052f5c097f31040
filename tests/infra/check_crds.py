"""Check infra/kuberay against KubeRay's own definitions: make check-infra CRDS=FOLDER.

The definitions are KubeRay's files ray.io_rayjobs.yaml and ray.io_raycronjobs.yaml. Fields that
they do not have are errors, as `kubectl apply --validate=strict` has it. Their rules in CEL are not
evaluated; tests/infra/test_kuberay.py holds those that concern us.
"""

import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.infra.manifests import Document, manifests


def main(folder: str) -> int:
    """Print every error; give the exit code."""
    definitions = [
        yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for path in sorted(Path(folder).glob("ray.io_ray*jobs.yaml"))
    ]
    ours = [(name, one) for name, one in manifests().items() if one["apiVersion"] == "ray.io/v1"]
    errors = [f"{name}: {error}" for name, one in ours for error in errors_of(one, definitions)]
    print("\n".join(errors) or f"{len(ours)} manifests agree with KubeRay's definitions")
    return 1 if errors else 0


def errors_of(manifest: Document, definitions: list[Document]) -> list[str]:
    """Say what a manifest has that its definition does not admit, or lacks.

    Args:
        manifest: With a kind of KubeRay's.
        definitions: CustomResourceDefinitions.
    """
    version = manifest["apiVersion"].partition("/")[2]
    schemas = [
        served["schema"]["openAPIV3Schema"]
        for definition in definitions
        for served in definition["spec"]["versions"]
        if definition["spec"]["names"]["kind"] == manifest["kind"] and served["name"] == version
    ]
    if not schemas:
        return [f"no definition of {manifest['apiVersion']} {manifest['kind']}"]
    validator = jsonschema.Draft202012Validator(_strict(schemas[0]))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def _strict(schema: Any) -> Any:
    """Forbid what a schema does not name, where it names something."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # The names of properties are no keywords.
    strict = {
        key: {name: _strict(item) for name, item in value.items()}
        if key == "properties"
        else _strict(value)
        for key, value in schema.items()
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make check-infra CRDS=FOLDER (with KubeRay's ray.io_*.yaml)")
    sys.exit(main(sys.argv[1]))
