"""Real S3 servers as processes, for the tests to start and stop."""

import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


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
def moto_server(log: Path) -> Iterator[Server]:
    """Run moto's S3, which honours If-None-Match."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server_process(command, log, port):
        yield Server(f"http://127.0.0.1:{port}")


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
