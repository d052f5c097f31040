"""Real object stores as processes, for the tests to start and stop."""

import base64
import hashlib
import hmac
import http.client
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3

from tests.certificates import Certificates

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

# Azurite's one account, as its documentation publishes it.
_AZURITE = "devstoreaccount1"
_AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
CLOUD_CREDENTIALS = {
    "GOOGLE_BEARER_TOKEN": "testing",
    "AZURE_STORAGE_ACCOUNT_NAME": _AZURITE,
    "AZURE_STORAGE_ACCOUNT_KEY": _AZURITE_KEY,
}
_CHECKOUT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """An S3 server that listens."""

    endpoint_url: str

    def client(self):
        return boto3.client("s3", endpoint_url=self.endpoint_url)

    def make_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body=data)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, tuple[str, object]]:
        """Return key -> (ETag, time of the last change) of everything in a bucket."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return {
            found["Key"]: (found["ETag"], found["LastModified"])
            for page in pages
            for found in page.get("Contents", ())
        }


@contextmanager
def moto_server(log: Path, certificates: Certificates | None = None) -> Iterator[Server]:
    """Run moto's S3, which honours If-None-Match; with certificates behind TLS."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if certificates is not None:
        files = (str(certificates.certificate), str(certificates.key))
        command += ["--ssl", "--ssl-cert", files[0], "--ssl-key", files[1]]
    with server_process(command, log, port):
        yield Server(f"http{'s' if certificates else ''}://127.0.0.1:{port}")


@contextmanager
def rclone_server(folder: Path, log: Path) -> Iterator[Server]:
    """Run rclone's S3, which ignores If-None-Match."""
    port = free_port()
    with server_process(rclone_command(folder, port), log, port):
        yield Server(f"http://127.0.0.1:{port}")


def rclone_command(folder: Path, port: int) -> list[str]:
    """Return what serves a folder of buckets."""
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
    keys = f"{CREDENTIALS['AWS_ACCESS_KEY_ID']},{CREDENTIALS['AWS_SECRET_ACCESS_KEY']}"
    return [rclone, "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}",
            "--auth-key", keys, str(folder)]  # fmt: skip


@dataclass(frozen=True)
class CloudServer:
    """A server of Google's or Azure's kind that listens.

    `flag` is the setting that says where it is.
    """

    scheme: str
    endpoint_url: str

    @property
    def flag(self) -> str:
        return f"--{self.scheme}-endpoint-url"

    def make_bucket(self) -> str:
        """Make a bucket or container; return its URI."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        path = f"{urlsplit(self.endpoint_url).path}/{name}"
        headers = {"Content-Length": "0"}
        if self.scheme == "az":
            headers |= _azure_headers(path)
            path += "?restype=container"
        with closing(http.client.HTTPConnection(urlsplit(self.endpoint_url).netloc)) as connection:
            connection.request("PUT", path, headers=headers)
            assert connection.getresponse().status in (200, 201)
        return f"{self.scheme}://{name}"


def _azure_headers(path: str) -> dict[str, str]:
    """Sign the making of a container with the account's key."""
    headers = {
        "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True),
        "x-ms-version": "2021-12-02",
    }
    shown = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    text = "PUT" + "\n" * 12 + f"{shown}/{_AZURITE}{path}\nrestype:container"
    signed = hmac.digest(base64.b64decode(_AZURITE_KEY), text.encode(), hashlib.sha256)
    return headers | {"Authorization": f"SharedKey {_AZURITE}:{base64.b64encode(signed).decode()}"}


@contextmanager
def gcs_server(log: Path, *flags: str) -> Iterator[CloudServer]:
    """Run a server of Google's kind, `tests/gcs_server.py`."""
    port = free_port()
    command = [sys.executable, str(_CHECKOUT / "tests" / "gcs_server.py"), str(port), *flags]
    with server_process(command, log, port):
        yield CloudServer("gs", f"http://127.0.0.1:{port}")


def azurite() -> str | None:
    """Find Azurite, which `make azurite` installs."""
    here = str(_CHECKOUT / ".azurite" / "node_modules" / ".bin")
    return shutil.which("azurite-blob") or shutil.which("azurite-blob", path=here)


@contextmanager
def azurite_server(log: Path) -> Iterator[CloudServer]:
    """Run Azurite, Microsoft's server of Azure's kind."""
    port = free_port()
    found = azurite()
    assert found is not None, "there is no azurite-blob: `make azurite`"
    command = [found, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck",
               "--inMemoryPersistence", "--disableTelemetry", "--silent"]  # fmt: skip
    with server_process(command, log, port):
        yield CloudServer("az", f"http://127.0.0.1:{port}/{_AZURITE}")


@contextmanager
def server_process(command: list[str], log: Path, port: int) -> Iterator[None]:
    """Run a server that listens on a port until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(process, port, log)
            yield
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
