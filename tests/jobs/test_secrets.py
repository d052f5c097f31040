"""Secrets: after a night of trouble on a real head, no log, record or object holds one."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.settings.submission import submission_name
from pipeline.labelling import report
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, Proxy, fault_proxy
from tests.jobs.logs.test_logs import parsed
from tests.jobs.test_submit import User
from tests.product import draw_photographs, label_flags, the_run
from tests.ray_nodes import TOKEN, ray_head
from tests.servers import CREDENTIALS, Server

pytestmark = pytest.mark.cluster

_SIGNED = "https://photos.host/a.jpg?X-Amz-Expires=600&X-Amz-Signature=0123"
_SECRETS = (CREDENTIALS["AWS_SECRET_ACCESS_KEY"], TOKEN["RAY_AUTH_TOKEN"], "X-Amz-Signature")


def search(texts: dict[str, bytes], secrets: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the place of every secret in some texts, also where it stands in UTF-16."""
    return [
        (place, secret)
        for place, text in texts.items()
        for secret in secrets
        for form in (secret.encode(), secret.encode("utf-16-le"))
        if form in text
    ]


def files(folder: str) -> dict[str, bytes]:
    """Read every file below a folder; sockets and what goes away meanwhile are none."""
    found = {}
    for path in Path(folder).rglob("*"):
        try:
            found[str(path)] = path.read_bytes() if path.is_file() else b""
        except OSError:
            continue
    return found


def objects(server: Server, bucket: str) -> dict[str, bytes]:
    """Read every object of a bucket, tables with what their pages hold compressed."""
    found = {}
    for key in server.objects(bucket):
        data = server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        if key.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(data))
            data += f"{table.schema.metadata} {table.to_pylist()}".encode()
        found[f"s3://{bucket}/{key}"] = data
    return found


def environments(folder: str) -> dict[str, bytes]:
    """Read the environment of every process of a Ray that lives in a folder."""
    return {
        f"/proc/{one.pid}/environ": Path(f"/proc/{one.pid}/environ").read_bytes()
        for one in psutil.process_iter(["cmdline"])
        if any(folder in word for word in one.info["cmdline"] or ())
    }


@dataclass(frozen=True)
class Night:
    """What a submitted run has left: texts by place, its log, and the run itself."""

    texts: dict[str, bytes]
    log: str
    code: int
    environments: dict[str, bytes]
    output: str
    storage: Storage


@pytest.fixture(scope="module")
def night(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Run `label` as a job: a broken image, one that is refused, a lost answer, a slow store."""
    folder = tmp_path_factory.mktemp("night")
    bucket = s3.make_bucket()
    photographs = draw_photographs(folder / "in", 8)
    (photographs / "broken.jpg").write_bytes(b"no picture")
    for photograph in photographs.iterdir():
        s3.put(bucket, f"in/{photograph.name}", photograph.read_bytes())
    s3.put(bucket, "signed.jsonl", json.dumps({"uri": _SIGNED}).encode())
    with (
        ray_head(dashboard=True) as head,
        fault_proxy(s3.endpoint_url) as proxy,
        ExitStack() as stack,
    ):
        _make_trouble(proxy)
        user = User(head, folder, stack)
        endpoint = ("--s3-endpoint-url", proxy.endpoint_url, "--io-attempts", 3)
        flags = ("--max-shard-images", 3, "--max-error-rate", 0.1, *endpoint)
        words = label_flags(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags)
        code, *shown = user.submit("--", *words, FCN_LOG_FORMAT="json")
        assert all(fault.struck for fault in proxy.faults)
        signed = label_flags(f"s3://{bucket}/signed.jsonl", f"s3://{bucket}/out", *endpoint)
        # The first is refused by the job, the others do not get as far as to Ray.
        for expected, more in ((3, ()), (2, ("--input", _SIGNED)), (2, ("--config", _SIGNED))):
            refused, *said = user.submit("--", *signed, *more)
            assert refused == expected, said
            assert any("holds a password or a signature" in text for text in said)
            shown += said
        job = submission_name(words, {"FCN_LOG_FORMAT": "json"})
        log = user.ask(f"{job}/logs")["logs"]
        known = {"submit": "".join(shown), "job log": log, "job record": json.dumps(user.ask(job))}
        known["all jobs"] = json.dumps(user.ask(""))
        # Ray writes some of its files a little later.
        time.sleep(2)
        texts = {place: text.encode() for place, text in known.items()}
        texts |= files(head.folder) | objects(s3, bucket)
        # That is where the user has put it.
        del texts[f"s3://{bucket}/signed.jsonl"]
        output, storage = f"s3://{bucket}/out", Storage(s3.endpoint_url)
        yield Night(texts, log, code, environments(head.folder), output, storage)


def _make_trouble(proxy: Proxy) -> None:
    proxy.faults += [
        Fault("GET", r"/in/photo_002\.jpg$", "before", lambda: 403, times=100),
        Fault("GET", r"/in/photo_004\.jpg$", "before", lambda: 503),
        Fault("PUT", r"/commits/shard-000001", "after", lambda: None),
    ]


def test_the_search_finds_what_is_there(night: Night, tmp_path: Path):
    """It finds the secrets in the environment of Ray's processes, the run's name in every place.

    So they could have come into any of its files.
    """
    assert {secret for _, secret in search(night.environments, _SECRETS)} == set(_SECRETS[:2])

    run_id = the_run(night.output, night.storage).run_id
    places = [place for place, _ in search(night.texts, (run_id,))]
    for place in ("submit", "job log", "/run.json", "/manifest.json", "/report.html", "/images/",
                  "/commits/", "job-driver-"):  # fmt: skip
        assert [found for found in places if place in found], place
    places = [place for place, _ in search(night.texts, (night.output,))]
    assert {"job record", "all jobs"} <= set(places)
    (tmp_path / "planted").write_bytes(b"\0\0" + _SECRETS[0].encode("utf-16-le"))
    assert search(files(str(tmp_path)), _SECRETS) == [(f"{tmp_path}/planted", _SECRETS[0])]


def test_no_log_record_or_object_holds_a_secret(night: Night):
    """S3's secret key, Ray's token and signatures stand in no log, record, table or other object.

    That goes for all files of Ray's session folder, too.
    """
    assert len(night.texts) > 50
    assert search(night.texts, _SECRETS) == []


def test_the_log_of_a_job_tells_the_run(night: Night):
    """Beside Ray's two lines and the result all is objects; committed shards have a line each."""
    assert night.code == 4
    run = the_run(night.output, night.storage)
    manifest = run.manifest()
    assert manifest is not None
    said = night.log.splitlines()
    result = report.as_text(run, manifest).splitlines()
    rest = [line for line in said if line and line[0] != "{" and line not in result]
    for line, words in zip(rest, ("Runtime env", "Running entry", "network included"), strict=True):
        assert words in line

    lines = parsed("\n".join(line for line in said if line.startswith("{")))
    shards = {line["shard"]: line for line in lines if line["shard"] is not None}
    assert sorted(shards) == run.committed() == [0, 1, 2]
    assert {(line["run"], line["attempt"]) for line in shards.values()} == {(run.run_id, 1)}
    assert sum(line["failed"] for line in shards.values()) == 2
    assert sum(sum(line["retries"].values()) for line in shards.values()) >= 1
    assert "max_error_rate allows" in lines[-1]["message"]
    assert (lines[-1]["level"], lines[-1]["run"]) == ("ERROR", run.run_id)
