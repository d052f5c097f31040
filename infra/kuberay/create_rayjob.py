"""Create the RayJob of a manifest, unless an earlier one of its kind is still at work.

The nightly CronJob runs it in the image of the job. The names of the RayJobs are the manifest's
with an ending that Kubernetes chooses.
"""

import json
import os
import ssl
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# ValidationFailed: KubeRay refuses the manifest, and never looks at it again.
_ENDED = ("Complete", "Failed", "ValidationFailed")
_TIMEOUT_S = 30


def main(manifest: str) -> None:
    """Talk to the Kubernetes that this pod runs in.

    Args:
        manifest: Path of the RayJob's file.
    """
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    rayjob = yaml.safe_load(Path(manifest).read_text())
    trusted = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    print(create(f"https://{host}:{port}", (_ACCOUNT / "token").read_text(), rayjob, trusted))


def create(
    server: str, token: str, rayjob: dict[str, Any], trusted: ssl.SSLContext | None = None
) -> str:
    """Create a RayJob.

    Args:
        server: URL of Kubernetes.
        token: Of the service account.
        rayjob: What to create; its labels tell which earlier ones are of its kind.
        trusted: Certificates, for https.

    Returns:
        What was done, in words.
    """
    metadata = rayjob["metadata"]
    url = f"{server}/apis/ray.io/v1/namespaces/{metadata['namespace']}/rayjobs"

    def ask(query: str = "", body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url + query, body, headers)  # noqa: S310 - its own cluster
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=trusted) as answer:  # noqa: S310 - the same
            return json.load(answer)

    kind = ",".join(f"{name}={value}" for name, value in metadata["labels"].items())
    for earlier in ask("?" + urllib.parse.urlencode({"labelSelector": kind}))["items"]:
        # One that KubeRay has not looked at yet has no status.
        if earlier.get("status", {}).get("jobDeploymentStatus") not in _ENDED:
            return f"{earlier['metadata']['name']} is still at work: nothing created"
    named = {key: value for key, value in metadata.items() if key != "name"}
    named["generateName"] = f"{metadata['name']}-"
    made = ask(body=json.dumps({**rayjob, "metadata": named}).encode())
    return f"{made['metadata']['name']} created"


if __name__ == "__main__":
    main(sys.argv[1])
