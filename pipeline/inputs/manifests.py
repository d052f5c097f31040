"""Manifests: tables that name the images of an input, or of a labelled data set."""

import io
import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline.errors import InputError

MANIFEST_ENDINGS = (".parquet", ".csv", ".jsonl", ".ndjson")


def manifest_uris(data: bytes, manifest_uri: str) -> Iterator[str]:
    """Read the column `uri` of a manifest.

    Raises:
        InputError: It has no such column, or a row of it holds no text.
    """
    table = read_manifest(data, manifest_uri)
    if table.column_names.count("uri") != 1:
        raise InputError(
            f"manifest {manifest_uri} needs one column `uri`; "
            f"it has {', '.join(table.column_names)}"
        )
    for row, uri in enumerate(table.column("uri").to_pylist()):
        if not isinstance(uri, str) or not uri.strip():
            raise InputError(f"manifest {manifest_uri}, row {row}: uri is {uri!r}, not a text")
        yield uri.strip()


def read_manifest(data: bytes, manifest_uri: str) -> pa.Table:
    """Read a manifest of any of `MANIFEST_ENDINGS`.

    Raises:
        InputError: It is damaged.
    """
    ending = os.path.splitext(manifest_uri)[1].lower()
    try:
        if ending == ".parquet":
            return pq.read_table(pa.BufferReader(data))
        if ending == ".csv":
            return pyarrow.csv.read_csv(io.BytesIO(data))
        return pyarrow.json.read_json(io.BytesIO(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"manifest {manifest_uri} can't be read: {error}") from error
