"""infra/kuberay: valid, agreed with the job's own settings, and no more than it needs."""

import importlib.util
import json
import logging
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import kubernetes_validate
import pytest

from jobs.__main__ import COMMANDS
from jobs.settings.parser import read_settings
from pipeline.cluster.packing import Node
from pipeline.labelling.replicas import choose_replicas
from pipeline.settings.label import LabelSettings
from pipeline.settings.train import TrainSettings
from pipeline.training.workers import choose_workers
from tests.infra.check_crds import errors_of
from tests.infra.manifests import (
    KUBERAY,
    RAYJOBS,
    Document,
    command_of,
    documents,
    groups,
    manifests,
    pod_templates,
    rayjob_spec,
)

_KUBERNETES = kubernetes_validate.latest_version()
_OURS = {"app.kubernetes.io/part-of": "fcn-pipeline"}
_SETTINGS = {"label": LabelSettings, "train": TrainSettings}


def _settings(name: str) -> Any:
    """Read the settings of a RayJob as its driver does: flags, and the head's environment."""
    spec = rayjob_spec(name)
    [python, module, jobs, command, *flags] = command_of(spec)
    assert [python, module, jobs] == ["python", "-m", "jobs"]
    assert command in COMMANDS
    [head] = groups(spec)["head"]["template"]["spec"]["containers"]
    # As `ray job submit` sets it.
    environ = {"RAY_ADDRESS": "head:6379"} | {one["name"]: one["value"] for one in head["env"]}
    return read_settings(_SETTINGS[command], command, flags, environ)


def _nodes(name: str, *worker_groups: str) -> list[Node]:
    """Return the nodes of a cluster whose named groups are at their largest."""
    found = []
    for group_name, group in groups(rayjob_spec(name)).items():
        if group_name not in ("head", *worker_groups):
            continue
        [container] = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        resources = {
            # What KubeRay gives to `ray start`.
            "CPU": float(group["rayStartParams"].get("num-cpus", limits["cpu"])),
            "GPU": float(limits.get("nvidia.com/gpu", 0)),
            "memory": float(limits["memory"].removesuffix("Gi")) * 2**30,
        }
        found += [Node(resources)] * group.get("maxReplicas", 1)
    return found


# Valid


@pytest.mark.parametrize("name", [name for name in manifests() if "/Ray" not in name])
def test_kinds_of_kubernetes_are_valid(name: str):
    """Every object of Kubernetes' own agrees with Kubernetes' schema, and has no other field."""
    kubernetes_validate.validate(manifests()[name], _KUBERNETES, strict=True)


@pytest.mark.parametrize("name", RAYJOBS)
def test_pods_of_rayjobs_are_valid(name: str):
    """Every pod template of a RayJob is a pod by Kubernetes' schema, and has no other field."""
    for template in pod_templates(rayjob_spec(name)).values():
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, _KUBERNETES, strict=True)


def test_the_check_against_kuberay_finds_what_is_wrong():
    """`make check-infra` names a field that KubeRay does not have, and a value of another type."""
    spec = {"type": "object", "properties": {"entrypoint": {"type": "string"}}}
    schema = {"type": "object", "properties": {"spec": spec}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    definition = {"spec": {"names": {"kind": "RayJob"}, "versions": [version]}}
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": {"entrypoint": 1, "extra": 2}}

    found = "\n".join(errors_of(manifest, [definition]))

    assert "$.spec.entrypoint: 1 is not of type 'string'" in found
    assert "'extra' was unexpected" in found
    assert "no definition of ray.io/v1 RayJob" in errors_of(manifest, [])


@pytest.mark.parametrize("name", RAYJOBS)
def test_kuberay_admits_the_rayjobs(name: str):
    """What KubeRay's operator refuses although its definitions admit it, is not there."""
    spec = rayjob_spec(name)
    rules = spec["deletionStrategy"]["deletionRules"]
    # Rules exclude it; with autoscaling, DeleteWorkers is refused, and pods are not started again.
    assert "shutdownAfterJobFinishes" not in spec
    assert {rule["policy"] for rule in rules} == {"DeleteCluster", "DeleteSelf"}
    for template in pod_templates(spec).values():
        assert template["spec"].get("restartPolicy", "Never") == "Never"
    # The cluster goes before the RayJob, after every end that a rule can name.
    seconds: dict[str, list[int]] = {}
    for rule in rules:
        status = rule["condition"].get("jobStatus", "deployment failed")
        seconds.setdefault(status, []).append(rule["condition"]["ttlSeconds"])
    assert seconds.keys() == {"SUCCEEDED", "FAILED", "deployment failed"}
    assert all(cluster < rayjob for cluster, rayjob in seconds.values())
    # 47 and 36 characters at most; the creator adds 6.
    [document] = documents(KUBERAY / name)
    assert len(document["metadata"]["name"]) <= 36


def test_there_is_one_cluster():
    """Label, train and the RayCronJob have the same cluster, and the RayCronJob label's job."""
    label = rayjob_spec("label.yaml")

    assert rayjob_spec("nightly-raycronjob.yaml") == label
    assert rayjob_spec("train.yaml")["rayClusterSpec"] == label["rayClusterSpec"]


# Agreed with the job


@pytest.mark.parametrize("name", RAYJOBS)
def test_entry_points_exist_and_their_flags_parse(name: str):
    """The entry point of every RayJob is a command, and its settings are complete and right."""
    assert _settings(name).output.startswith("s3://")


@pytest.mark.parametrize("on", ["gpu-spot", "gpu-on-demand"])
def test_replicas_fit_the_nodes(on: str, caplog: pytest.LogCaptureFixture):
    """The replicas that label asks for fit its spot nodes, and its on-demand nodes, to the last."""
    settings = _settings("label.yaml")
    nodes = _nodes("label.yaml", "cpu", on)

    with caplog.at_level(logging.WARNING):
        chosen = choose_replicas(settings, nodes, num_shards=1000)

    assert caplog.messages == []
    assert chosen.number == settings.max_replicas == sum(node.num_gpus for node in nodes)
    assert chosen.placement.use_gpu


def test_replicas_are_the_same_before_there_are_gpus():
    """What label decides while it has no GPU yet is what it decides when it has them."""
    settings = _settings("label.yaml")
    before = choose_replicas(settings, _nodes("label.yaml", "cpu")[:2], num_shards=1000)
    after = choose_replicas(settings, _nodes("label.yaml", "cpu", "gpu-spot"), num_shards=1000)

    assert (before.number, before.num_cpus, before.num_gpus) == (
        (after.number, after.num_cpus, after.num_gpus)
    )


@pytest.mark.parametrize("on", ["gpu-spot", "gpu-on-demand"])
def test_workers_of_training_fit_the_nodes(on: str, caplog: pytest.LogCaptureFixture):
    """The workers that train asks for fit its spot nodes, and its on-demand nodes."""
    settings = _settings("train.yaml")

    with caplog.at_level(logging.WARNING):
        chosen = choose_workers(settings, _nodes("train.yaml", "cpu", on))

    assert caplog.messages == []
    assert (chosen.number, chosen.num_gpus) == (settings.num_workers, 1.0)


@pytest.mark.parametrize("name", RAYJOBS)
def test_the_cluster_scales_as_it_should(name: str):
    """The head takes no tasks and stays; CPU nodes are there at once; spot is asked first."""
    cluster = rayjob_spec(name)["rayClusterSpec"]
    found = groups(rayjob_spec(name))
    spot, on_demand = found["gpu-spot"], found["gpu-on-demand"]

    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert found["head"]["rayStartParams"] == {"num-cpus": "0"}
    places = [one["template"]["spec"]["nodeSelector"] for one in (found["head"], on_demand)]
    assert places == [{"karpenter.sh/capacity-type": "on-demand"}] * 2
    assert spot["template"]["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert found["cpu"]["minReplicas"] == 1
    assert spot["minReplicas"] == on_demand["minReplicas"] == 0
    assert spot["priority"] > on_demand["priority"] > found["cpu"].get("priority", 0)
    assert on_demand["maxReplicas"] >= spot["maxReplicas"]
    for group in (spot, on_demand):
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


# Ends in order


@pytest.mark.parametrize("name", RAYJOBS)
def test_pods_have_time_to_end(name: str):
    """Every node stops Ray before its pod ends, in more time than a driver is given."""
    for group in groups(rayjob_spec(name)).values():
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert "ray stop" in " ".join(container["lifecycle"]["preStop"]["exec"]["command"])
        assert pod["terminationGracePeriodSeconds"] >= 120
    [head] = groups(rayjob_spec(name))["head"]["template"]["spec"]["containers"]
    [given] = [one["value"] for one in head["env"] if one["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    assert 30 <= int(given) < 120


def test_the_end_of_the_head_is_the_drivers_first(tmp_path: Path):
    """Before a head pod ends its driver gets SIGTERM and is waited for, then Ray is stopped."""
    [head] = groups(rayjob_spec("label.yaml"))["head"]["template"]["spec"]["containers"]
    [_, _, script] = head["lifecycle"]["preStop"]["exec"]["command"]
    lines = {
        "1": "ray\0start\0--head\0",
        "70": "/bin/sh\0-c\0python -m jobs label --input s3://b\0",
        "71": "python\0-m\0jobs\0label\0--input\0s3://b\0",
        "self": "python\0-m\0jobs\0label\0",
    }
    for process, line in lines.items():
        (tmp_path / process).mkdir()
        (tmp_path / process / "cmdline").write_text(line)
    said = "\n".join(f'{name}() {{ echo {name} "$@"; }}' for name in ("kill", "tail", "ray"))

    done = subprocess.run(
        ["bash", "-euc", f"{said}\n{script.replace('/proc/', f'{tmp_path}/')}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == [
        *("kill -TERM 71", "tail --pid 71 -f /dev/null", "ray stop"),
    ]


# No more than needed


@pytest.mark.parametrize("name", [*RAYJOBS, "nightly.yaml"])
def test_containers_are_confined(name: str):
    """No container runs as root, gains rights or keeps capabilities; each has limits."""
    if name in RAYJOBS:
        pods = [template["spec"] for template in pod_templates(rayjob_spec(name)).values()]
        autoscaler = rayjob_spec(name)["rayClusterSpec"]["autoscalerOptions"]
    else:
        cron = documents(KUBERAY / name)[-1]
        pods = [cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]]
        autoscaler = pods[0]["containers"][0]
    containers = [container for pod in pods for container in pod["containers"]]
    for container in (*containers, autoscaler):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("name", RAYJOBS)
def test_pods_are_who_they_should_be(name: str):
    """Ray asks for a token; nodes have the cloud role; only the head may ask Kubernetes."""
    spec = rayjob_spec(name)
    account = manifests()["access.yaml/ServiceAccount"]
    templates = pod_templates(spec)

    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("fcn-writer")
    submitter = templates.pop("submitter")["spec"]
    assert "serviceAccountName" not in submitter
    for template in templates.values():
        assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    for pod in (submitter, *(templates[name]["spec"] for name in templates if name != "head")):
        assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", RAYJOBS)
def test_the_network_policy_is_that_of_all_pods(name: str):
    """The policy selects every pod of a RayJob; strangers reach the metrics at most."""
    policy = manifests()["access.yaml/NetworkPolicy"]["spec"]
    for template in pod_templates(rayjob_spec(name)).values():
        assert template["metadata"]["labels"].items() >= _OURS.items()

    assert policy["podSelector"] == {"matchLabels": _OURS}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    own, operator, prometheus = policy["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": _OURS}}]}
    [from_operator] = operator["from"]
    assert from_operator["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "kuberay-operator"
    }
    assert [one["port"] for one in operator["ports"]] == [8265]
    assert [one["port"] for one in prometheus["ports"]] == [8080]
    [outside] = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    assert outside["except"] == ["169.254.169.254/32"]


# The nightly creator


def _creator() -> Any:
    spec = importlib.util.spec_from_file_location("create_rayjob", KUBERAY / "create_rayjob.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Kubernetes(ThreadingHTTPServer):
    """Keeps RayJobs; notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.items: list[Document] = []
        self.asked: list[tuple[str, str, str | None]] = []


class _Answers(BaseHTTPRequestHandler):
    server: _Kubernetes

    def do_GET(self) -> None:
        self._answer({"items": self.server.items})

    def do_POST(self) -> None:
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made["metadata"]["name"] = (
            f"{made['metadata'].pop('generateName')}x{len(self.server.items)}"
        )
        self.server.items.append(made)
        self._answer(made)

    def _answer(self, content: Document) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubernetes() -> Iterator[_Kubernetes]:
    with _Kubernetes() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_nights_do_not_overlap(kubernetes: _Kubernetes):
    """A night creates a RayJob if the ones before have ended, however they did, and else none."""
    create = _creator().create
    url = f"http://127.0.0.1:{kubernetes.server_port}"
    [job] = documents(KUBERAY / "label.yaml")

    said = [create(url, "secret", job), create(url, "secret", job)]
    for status in ("Running", "Retrying", "Complete", "Failed", "ValidationFailed"):
        kubernetes.items[-1]["status"] = {"jobDeploymentStatus": status}
        said.append(create(url, "secret", job))

    created, refused = "fcn-label-x{} created", "fcn-label-x0 is still at work: nothing created"
    assert said == [
        *(created.format(0), refused, refused, refused),
        *(created.format(1), created.format(2), created.format(3)),
    ]
    assert [one["spec"] for one in kubernetes.items] == [job["spec"]] * 4
    kind = "app.kubernetes.io%2Fpart-of%3Dfcn-pipeline%2Capp.kubernetes.io%2Fcomponent%3Dlabel"
    path = "/apis/ray.io/v1/namespaces/fcn/rayjobs"
    assert set(kubernetes.asked) == {
        ("GET", f"{path}?labelSelector={kind}", "Bearer secret"),
        ("POST", path, "Bearer secret"),
    }


def test_the_creator_may_do_what_it_does():
    """Of Kubernetes the creator may list and create RayJobs of its namespace, and nothing else."""
    found = manifests()
    account = found["nightly.yaml/ServiceAccount"]["metadata"]
    binding = found["nightly.yaml/RoleBinding"]

    assert found["nightly.yaml/Role"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list"]}
    ]
    assert binding["roleRef"]["name"] == found["nightly.yaml/Role"]["metadata"]["name"]
    [subject] = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


def test_the_creator_finds_its_files():
    """The CronJob forbids overlap and runs the creator on label.yaml, both in its ConfigMap."""
    cron = manifests()["nightly.yaml/CronJob"]["spec"]
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [kustomization] = documents(KUBERAY / "kustomization.yaml")
    [made] = kustomization["configMapGenerator"]

    assert cron["concurrencyPolicy"] == "Forbid"
    [mount] = container["volumeMounts"]
    files = [f"{mount['mountPath']}/{name}" for name in made["files"]]
    assert container["command"] == ["python", *files]
    assert pod["volumes"][0]["configMap"]["name"] == made["name"]
    for name in (*kustomization["resources"], *made["files"]):
        assert (KUBERAY / name).is_file()


def test_everything_is_in_one_namespace():
    """Every object is of the namespace that access.yaml makes."""
    found = manifests()
    namespace = found.pop("access.yaml/Namespace")["metadata"]["name"]

    assert {one["metadata"]["namespace"] for one in found.values()} == {namespace}
