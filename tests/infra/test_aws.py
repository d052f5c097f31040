"""infra/aws: the policies against what the product asks of its store; the `ray up` cluster."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from cfnlint.api import lint
from ray.autoscaler._private.util import prepare_config, validate_config

from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.labelling import verify
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.store.lock import Lock
from pipeline.store.probe import probe_conditional_put
from pipeline.store.storage import Storage
from pipeline.training.run_folder import LAST, TrainingRun
from tests.disk_runs import draw_images, label_run, start_run
from tests.infra.manifests import (
    INFRA,
    Document,
    dockerfile,
    documents,
    pins,
    plain,
    recipes,
    storage_template,
)

_BUCKET = "arn:aws:s3:::example-output"
_INPUT = "arn:aws:s3:::example-input"
_RESOURCES = storage_template()["Resources"]
_ON_BUCKET = _RESOURCES["OutputBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]

# One request: action, ARN, and whether it is put-if-absent.
Request = tuple[str, str, bool]


def _policy(name: str) -> list[Document]:
    statements: list[Document] = _RESOURCES[name]["Properties"]["PolicyDocument"]["Statement"]
    return statements


def _allowed(name: str, request: Request, **context: str) -> bool:
    """Decide as AWS does: what no statement allows is denied, and a denial outweighs all."""
    action, resource, if_absent = request
    # PutObject is also what uploads a part; only what creates an object has this.
    context = {"aws:SecureTransport": "true", "s3:ObjectCreationOperation": "true", **context}
    if if_absent:
        context["s3:if-none-match"] = "*"
    effects = {
        statement["Effect"]
        for statement in (*_policy(name), *_ON_BUCKET)
        if _any_matches(statement["Action"], action)
        and _any_matches(statement["Resource"], resource)
        and _holds(statement.get("Condition", {}), context)
    }
    return effects == {"Allow"}


def _any_matches(patterns: str | list[str], text: str) -> bool:
    some = [patterns] if isinstance(patterns, str) else patterns
    return any(re.fullmatch(re.escape(one).replace(r"\*", ".*"), text) for one in some)


def _holds(conditions: dict[str, dict[str, str]], context: dict[str, str]) -> bool:
    tests = {
        "Null": lambda key, value: (key not in context) == (value == "true"),
        "Bool": lambda key, value: context.get(key) == value,
        "StringEquals": lambda key, value: context.get(key) == value,
    }
    return all(
        tests[operator](key, value)
        for operator, keys in conditions.items()
        for key, value in keys.items()
    )


class _Recorded:
    """A disk that notes the requests that a bucket would get."""

    def __init__(self, disk: Any, folder: Path, requests: set[Request]) -> None:
        self._disk = disk
        self._folder = f"file://{folder}/"
        self._requests = requests

    def __getattr__(self, name: str) -> Any:
        action = {
            **dict.fromkeys(("read", "stat"), "s3:GetObject"),
            **dict.fromkeys(("write", "create"), "s3:PutObject"),
            **dict.fromkeys(("walk", "children"), "s3:ListBucket"),
        }.get(name)
        method = getattr(self._disk, name)

        def recorded(uri: str, *rest: Any) -> Any:
            if action is not None:
                arn = _arn(uri.removeprefix(self._folder))
                whole = arn.partition("/")[0] if action == "s3:ListBucket" else arn
                self._requests.add((action, whole, name == "create"))
            return method(uri, *rest)

        return recorded


def _arn(key: str) -> str:
    """Say where an object of the test's folder lies by the template's defaults."""
    return f"{_INPUT}/{key}" if key.startswith("in") else f"{_BUCKET}/{key}"


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> set[Request]:
    """Return what labelling, publishing, verifying, locks and a training ask of their store."""
    folder = tmp_path_factory.mktemp("bucket")
    found: set[Request] = set()
    backend = Storage._backend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Storage, "_backend", lambda self, uri: _Recorded(backend(self, uri), folder, found)
        )
        source = draw_images(folder, 3)
        output = f"file://{folder}/labelled/site"
        assert probe_conditional_put(Storage(), output)
        with Lock(Storage(), f"{output}/locks/abc", 0.5) as lock:
            run = start_run(folder, source, output=output, max_shard_images=2)
            label_run(run)
            publish(run, str)
            lock.check()
        for one in History(Storage(), output).runs():
            assert verify.verify(one, 2).finished
        _train(folder)
    return found


def _train(folder: Path) -> None:
    run = TrainingRun(Storage(), f"file://{folder}/models/first")
    record = Checkpoint("fcn_all_skips", numbered_classes(3), width=2)
    assert run.storage.create(f"{run.folder}/run.json", b"{}")
    for data in (b"first", b"second"):
        run.write_checkpoint(LAST, data)
        run.storage.write(*run.metrics_file([]))
    run.read_checkpoint(LAST)
    run.storage.write(f"{run.folder}/tensorboard/events", b"")
    run.write_model(record, b"weights")


# What the product needs


def test_the_requests_are_those_of_the_product(requests: set[Request]):
    """The requests below are all kinds that there are: lists, reads, writes, put-if-absent."""
    assert {(action, if_absent) for action, _, if_absent in requests} == {
        *(("s3:ListBucket", False), ("s3:GetObject", False)),
        *(("s3:PutObject", False), ("s3:PutObject", True)),
    }
    assert len(requests) > 30


def test_the_writer_may_do_what_the_product_does(requests: set[Request]):
    """The writer's policy and the bucket's admit every request of labelling and training."""
    assert [one for one in requests if not _allowed("WriterPolicy", one)] == []


def test_the_reader_may_do_what_reading_needs(requests: set[Request]):
    """The reader may list the output and read every object of it."""
    reads = [one for one in requests if one[0] != "s3:PutObject" and not one[1].startswith(_INPUT)]
    assert reads
    assert [one for one in reads if not _allowed("ReaderPolicy", one)] == []


# What is denied


def test_what_is_put_if_absent_is_put_in_no_other_way(requests: set[Request]):
    """All that the product creates only if absent, the bucket takes only so.

    But for locks and tables: a table that is not what its commit records say is written again.
    """
    other = re.compile("/locks/|/images/run=|/class_statistics/run=")
    created = {arn for _, arn, if_absent in requests if if_absent and not other.search(arn)}

    kinds = {re.sub(r"[^/]*\d[^/]*|\w+\.png", "#", arn.removeprefix(_BUCKET)) for arn in created}
    assert {kind.rpartition("/")[2] for kind in kinds} >= {"run.json", "manifest.json", "_SUCCESS"}
    assert any("/commits/" in arn for arn in created)
    assert any("/masks/run=" in arn for arn in created)
    assert any("/plan/" in arn for arn in created)
    for arn in created:
        assert not _allowed("WriterPolicy", ("s3:PutObject", arn, False))


def test_an_output_at_the_prefix_itself_is_guarded_too():
    """Commits of an output without a folder of its own are guarded as those of one below it."""
    for arn in (
        f"{_BUCKET}/labelled/runs/r/commits/shard-000000.parquet",
        f"{_BUCKET}/labelled/masks/run=r/a/b.png",
    ):
        assert _allowed("WriterPolicy", ("s3:PutObject", arn, True))
        assert not _allowed("WriterPolicy", ("s3:PutObject", arn, False))


@pytest.mark.parametrize("name", ["ReaderPolicy", "WriterPolicy"])
def test_readers_and_writers_delete_nothing(name: str, requests: set[Request]):
    """Neither may delete any object, or change a bucket's settings."""
    for _, arn, _ in requests:
        assert not _allowed(name, ("s3:DeleteObject", arn, False))
    for action in ("s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutLifecycleConfiguration"):
        assert not _allowed(name, (action, _BUCKET, False))


def test_the_reader_writes_nothing(requests: set[Request]):
    """The reader may put no object, put-if-absent or not, and reads no input."""
    for _, arn, _ in requests:
        assert not _allowed("ReaderPolicy", ("s3:PutObject", arn, True))
        assert not _allowed("ReaderPolicy", ("s3:PutObject", arn, False))
    assert not _allowed("ReaderPolicy", ("s3:GetObject", f"{_INPUT}/in/image_0.png", False))


def test_the_writer_leaves_everything_else_alone():
    """The writer may not write its input, nor write or read the bucket outside of its prefixes."""
    for arn in (f"{_INPUT}/photos/a.jpg", f"{_BUCKET}/other/a", f"{_BUCKET}/labelled-too/a"):
        assert not _allowed("WriterPolicy", ("s3:PutObject", arn, True))
    assert not _allowed("WriterPolicy", ("s3:GetObject", f"{_BUCKET}/other/a", False))


def test_the_cleaner_removes_runs_and_nothing_else(requests: set[Request]):
    """The cleaner may delete what belongs to a run, and archives: no lock, checkpoint, input.

    It writes locks alone, and reads the output alone.
    """
    kinds = r"runs/|history/|(masks|images|class_statistics)/run="
    for _, arn, _ in requests:
        of_run = re.search(f"/labelled/.*({kinds})", arn)
        assert _allowed("CleanerPolicy", ("s3:DeleteObject", arn, False)) == bool(of_run)
        is_lock = re.search("/labelled/.*locks/", arn)
        assert _allowed("CleanerPolicy", ("s3:PutObject", arn, True)) == bool(is_lock)
        is_read = arn.startswith(f"{_BUCKET}/labelled/")
        assert _allowed("CleanerPolicy", ("s3:GetObject", arn, False)) == is_read


def test_nothing_travels_unencrypted(requests: set[Request]):
    """Every request without TLS is denied to everybody."""
    plain = {"aws:SecureTransport": "false"}
    on_output = [one for one in requests if one[1].startswith(_BUCKET)]
    assert [one for one in on_output if _allowed("WriterPolicy", one, **plain)] == []


def test_parts_of_uploads_are_admitted():
    """A part of a multipart upload needs no condition, since it creates no object."""
    part = ("s3:PutObject", f"{_BUCKET}/labelled/runs/r/commits/shard-000000.parquet", False)
    assert _allowed("WriterPolicy", part, **{"s3:ObjectCreationOperation": "false"})


# The template


def test_cloudformation_takes_the_template():
    """AWS's own schemas find nothing wrong with storage.yaml."""
    text = (INFRA / "aws" / "storage.yaml").read_text()
    assert [f"{found.rule.id} {found.message}" for found in lint(text)] == []


def test_unfinished_uploads_end():
    """Multipart uploads that nobody finishes are aborted after a week."""
    bucket = _RESOURCES["OutputBucket"]
    [rule] = bucket["Properties"]["LifecycleConfiguration"]["Rules"]

    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"


def test_the_role_is_for_the_pods_alone():
    """The writer's role is taken by the service account of infra/kuberay and by nobody else."""
    [trust] = _RESOURCES["WriterRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    account = documents(INFRA / "kuberay" / "access.yaml")[1]["metadata"]
    subject = f"system:serviceaccount:{account['namespace']}:{account['name']}"

    assert trust["Condition"]["StringEquals"].popitem()[1] == subject
    assert account["annotations"]["eks.amazonaws.com/role-arn"].endswith(
        f":role/{_RESOURCES['WriterRole']['Properties']['RoleName']}"
    )


# ray up


@pytest.fixture(scope="module")
def cluster() -> Document:
    [found] = documents(INFRA / "aws" / "cluster.yaml")
    return found


def test_ray_up_takes_the_cluster(cluster: Document):
    """The file agrees with Ray's schema, as it stands and with Ray's defaults filled in."""
    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")

    jsonschema.validate(cluster, json.loads(schema.read_text()))
    validate_config(prepare_config(yaml.safe_load(json.dumps(cluster))))


def test_machines_have_the_profiles_of_the_template(cluster: Document):
    """The head has the role that starts workers, workers have that of a writer; all as made."""
    profiles = {
        name: node["node_config"]["IamInstanceProfile"]["Name"]
        for name, node in cluster["available_node_types"].items()
    }
    [pass_role] = [
        statement["Condition"]["StringEquals"]
        for policy in _RESOURCES["HeadRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "ec2:TerminateInstances"
    ]

    assert (
        profiles.pop(cluster["head_node_type"])
        == (_RESOURCES["HeadProfile"]["Properties"]["InstanceProfileName"])
    )
    assert set(profiles.values()) == {
        _RESOURCES["NodeProfile"]["Properties"]["InstanceProfileName"]
    }
    assert pass_role == {"aws:ResourceTag/ray-cluster-name": cluster["cluster_name"]}


def test_machines_scale_as_the_pods_do(cluster: Document):
    """The head takes no tasks, spot goes before on-demand, and all fit the largest cluster."""
    types = cluster["available_node_types"]
    spot, on_demand = types["gpu-spot"], types["gpu-on-demand"]

    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert spot["priority"] > on_demand["priority"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in on_demand["node_config"]
    assert cluster["max_workers"] == sum(one.get("max_workers", 0) for one in types.values())


def test_machines_ask_for_a_token_and_show_no_dashboard(cluster: Document):
    """Every `ray start` asks for a token; the dashboard listens on the head itself only."""
    starts = [cluster[f"{which}_start_ray_commands"][-1] for which in ("head", "worker")]

    assert all("RAY_AUTH_MODE=token ray start" in re.sub(r"RAY_(J|U)\w+=\d+ ", "", one)
               for one in starts)  # fmt: skip
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in cluster["file_mounts"]


def test_machines_are_set_up_as_the_image_is(cluster: Document):
    """A machine installs the lock and the wheel as the image does; the head also boto3."""
    steps = [plain(one) for one in cluster["setup_commands"]]
    of_image = [plain(arguments) for name, arguments in dockerfile() if name == "RUN"]
    [boto3] = cluster["head_setup_commands"]
    tested = pins("requirements-dev.lock")

    assert steps[1] in recipes()
    assert steps[2] in of_image
    assert steps[3].replace("~/fcn", "/tmp") in of_image
    assert cluster["file_mounts"].items() >= {
        ("~/fcn/requirements.lock", "requirements.lock"),
        ("~/fcn/dist", "dist"),
    }
    assert dict(re.findall(r"(\S+)==(\S+)", boto3)) == {
        name: tested[name] for name in ("boto3", "s3transfer")
    }
