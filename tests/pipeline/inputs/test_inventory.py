"""S3 Inventory as an input: what it names is what a listing shows."""

import gzip
import hashlib
import io
import json
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.inputs.listing import Sources
from pipeline.store.storage import Storage
from tests.servers import Server

_KEYS = (
    "a.jpg",
    "deep/b c+d%20.png",
    "deep/ü=&.tif",
    "notes.txt",
    "masks/run=1/a.png",
    "out/a.png",
)
_IN_PARQUET = {
    "Bucket": "bucket",
    "Key": "key",
    "VersionId": "version_id",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
    "Size": "size",
    "ETag": "e_tag",
    "StorageClass": "storage_class",
}


@pytest.fixture
def bucket(s3: Server) -> str:
    name = s3.make_bucket()
    for number, key in enumerate(_KEYS):
        s3.put(name, key, b"x" * number)
    return name


def _rows(s3: Server, bucket: str) -> list[dict[str, Any]]:
    """List the bucket as AWS does, with an older version and a marker of a deletion in between."""
    rows = [
        {"Bucket": bucket, "Key": key, "VersionId": "v", "IsLatest": True, "IsDeleteMarker": False,
         "Size": number, "ETag": etag.strip('"'), "StorageClass": "STANDARD"}
        for number, (key, etag) in enumerate(
            (key, s3.objects(bucket)[key][0]) for key in _KEYS
        )
    ]  # fmt: skip
    old = {**rows[0], "VersionId": "u", "IsLatest": False, "ETag": "older"}
    gone = {**rows[0], "Key": "gone.jpg", "IsDeleteMarker": True, "Size": None, "ETag": None}
    return [old, *rows, gone]


def _csv(rows: list[dict[str, Any]], names: list[str]) -> bytes:
    def cell(name: str, value: Any) -> str:
        text = quote_plus(value) if name == "Key" else str("" if value is None else value)
        return f'"{text.lower() if isinstance(value, bool) else text}"'

    lines = [",".join(cell(name, row[name]) for name in names) for row in rows]
    return gzip.compress("\n".join([*lines, ""]).encode())


def _arrow(rows: list[dict[str, Any]], names: list[str], file_format: str) -> bytes:
    table = pa.table({_IN_PARQUET[name]: [row[name] for row in rows] for name in names})
    buffer = io.BytesIO()
    (pq.write_table if file_format == "Parquet" else pa.orc.write_table)(table, buffer)
    return buffer.getvalue()


def _write(s3: Server, bucket: str, file_format: str, without: str = "", **changed: Any) -> str:
    """Write an inventory of two files beside the bucket; return the URI of its manifest."""
    beside, rows = s3.make_bucket(), _rows(s3, bucket)
    names = [name for name in _IN_PARQUET if name != without]
    files = []
    for number, some in enumerate((rows[:3], rows[3:])):
        data = _csv(some, names) if file_format == "CSV" else _arrow(some, names, file_format)
        key = f"lists/{bucket}/all/data/{number}"
        s3.put(beside, key, data)
        files.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
    manifest = {
        "sourceBucket": bucket,
        "destinationBucket": f"arn:aws:s3:::{beside}",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": file_format,
        "fileSchema": ", ".join(names) if file_format == "CSV" else "struct<...>",
        "files": files,
    }
    place = f"lists/{bucket}/all/2026-11-27T01-00Z/manifest.json"
    s3.put(beside, place, json.dumps({**manifest, **changed}).encode())
    return f"s3://{beside}/{place}"


def _sources(s3: Server, uri: str, bucket: str) -> Sources:
    storage = Storage(s3_endpoint_url=s3.endpoint_url)
    return Sources(storage, uri, f"s3://{bucket}/out", threads=2)


@pytest.mark.parametrize("file_format", ["CSV", "ORC", "Parquet"])
def test_an_inventory_names_what_a_listing_shows(file_format: str, s3: Server, bucket: str):
    """Names, versions and sizes are those of the listing: of images alone, not of the output."""
    listed = _sources(s3, f"s3://{bucket}", bucket)
    named = _sources(s3, _write(s3, bucket, file_format), bucket)

    expected = {one.uri: (one.version, one.num_bytes, f"{bucket}/{one.key}") for one in listed}
    assert {one.uri: (one.version, one.num_bytes, one.key) for one in named} == expected
    assert len(expected) == 3
    assert (
        (named.num_ignored, named.ignored.num_masks)
        == (listed.num_ignored, listed.ignored.num_masks)
        == (2, 1)
    )


def test_no_object_is_looked_at(s3: Server, bucket: str):
    """Two requests find out what the input is; then it is one for each file."""
    uri = _write(s3, bucket, "CSV")
    storage = Storage(s3_endpoint_url=s3.endpoint_url).counting()

    assert len(list(Sources(storage, uri, "file:///out", 2))) == 4

    assert dict(storage.requests) == {"look": 1, "list": 1, "read": 3}


@pytest.mark.parametrize("file_format", ["CSV", "ORC", "Parquet"])
def test_an_inventory_without_etags_is_refused(file_format: str, s3: Server, bucket: str):
    """Without them no later night would know what has changed: it says which field to add."""
    uri = _write(s3, bucket, file_format, without="ETag")

    with pytest.raises(InputError, match=r"lacks ETag, which tell.*optional fields"):
        list(_sources(s3, uri, bucket))


def test_a_file_that_is_another_one_is_refused(s3: Server, bucket: str):
    """A file that is cut off, or from another day, is found by its MD5."""
    uri = _write(s3, bucket, "CSV")
    manifest = json.loads(Storage(s3_endpoint_url=s3.endpoint_url).read(uri))
    beside = uri.split("/")[2]
    s3.put(beside, manifest["files"][1]["key"], b"cut off")

    with pytest.raises(InputError, match=r"data/1 is not the file that .* names"):
        list(_sources(s3, uri, bucket))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fileFormat": "TSV"}, r"is no manifest of an S3 Inventory \(fileFormat: Input should be"),
        ({"files": [{"key": "a"}]}, r"files.0.MD5checksum: Field required"),
    ],
)
def test_another_manifest_json_is_refused(
    changed: dict[str, Any], words: str, s3: Server, bucket: str
):
    """What is wrong with it is said, and what a manifest of images is."""
    with pytest.raises(InputError, match=words) as raised:
        list(_sources(s3, _write(s3, bucket, "CSV", **changed), bucket))
    assert "a manifest of images is .parquet, .csv or .jsonl" in str(raised.value)


def test_a_file_without_rows_is_no_error(s3: Server, bucket: str):
    """A file of the list may be empty; the others are read."""
    uri = _write(s3, bucket, "CSV")
    storage = Storage(s3_endpoint_url=s3.endpoint_url)
    manifest = json.loads(storage.read(uri))
    empty = gzip.compress(b"")
    s3.put(uri.split("/")[2], manifest["files"][0]["key"], empty)
    manifest["files"][0]["MD5checksum"] = hashlib.md5(empty).hexdigest()
    storage.write(uri, json.dumps(manifest).encode())

    assert len(list(_sources(s3, uri, bucket))) == 1


def test_a_file_that_can_not_be_read_is_refused(s3: Server, bucket: str):
    """A file of another format than the manifest says is named."""
    manifest = _write(s3, bucket, "Parquet", fileFormat="ORC")

    with pytest.raises(InputError, match=r"data/0 can't be read"):
        list(_sources(s3, manifest, bucket))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"size": [1.5]}, r"a.jpg has '1.5' bytes, no number"),
        ({"size": [float("nan")]}, r"a.jpg has 'nan' bytes, no number"),
        ({"size": [-1]}, r"a.jpg has '-1' bytes, no number"),
        ({"size": ["9" * 5000]}, r"a.jpg has '9{40}' bytes, no number"),
        ({"key": pa.array([None], pa.string())}, "a key is None, not a text"),
        ({"key": [b"a.jpg"]}, "a key is b'a.jpg', not a text"),
        ({"key": pa.array([b"\xff.jpg"]).view(pa.string())}, "can't be read: .*Invalid UTF8"),
    ],
)
def test_cells_that_say_nothing_are_refused(
    changed: dict[str, Any], words: str, s3: Server, bucket: str
):
    """What no inventory of AWS has, and a copy by other tools may have, ends with its place."""
    columns = {"key": ["a.jpg"], "size": [1], "e_tag": ["e"], **changed}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    uri = _write(s3, bucket, "Parquet")
    beside = uri.split("/")[2]
    manifest = json.loads(Storage(s3_endpoint_url=s3.endpoint_url).read(uri))
    file = manifest["files"][0]
    s3.put(beside, file["key"], buffer.getvalue())
    file["MD5checksum"] = hashlib.md5(buffer.getvalue()).hexdigest()
    s3.put(beside, uri.split("/", 3)[3], json.dumps(manifest).encode())

    with pytest.raises(InputError, match=words):
        list(_sources(s3, uri, bucket))
