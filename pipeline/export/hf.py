"""Hugging Face: Parquet files with the features Image, as `datasets` reads them.

The feature Image is a struct of bytes and path, and is named in the schema's metadata. The masks
are grey (mode L): their values are the class indices.
"""

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export.form import About, File, Written
from pipeline.export.items import Item
from pipeline.export.parts import Parts
from pipeline.export.upright import as_png
from pipeline.export.voc import classes_json
from pipeline.images.masks import decode_mask
from pipeline.labelling.schema import IMAGES

_ROWS_PER_FILE = 10_000
_BYTES_PER_FILE = 128 << 20
_ROWS_PER_GROUP = 100
_KNOWN = ("key", "uri", "image_id", "mean_confidence", "run_id")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class HuggingFace:
    """Writes data/train-00000.parquet and so on, and classes.json."""

    with_images = True

    def __init__(self, about: About) -> None:
        """Begin."""
        self._classes = about.classes
        self._parts: Parts[dict[str, Any]] = Parts(
            lambda number: f"data/train-{number:05d}.parquet",
            _parquet,
            _ROWS_PER_FILE,
            _BYTES_PER_FILE,
        )

    def write(self, item: Item) -> Written:
        """Make a row of an image and its mask."""
        mask = as_png(decode_mask(item.mask))
        row = {name: item.row[name] for name in _KNOWN}
        row["image"] = {"bytes": item.image, "path": f"{item.name}.{item.ending}"}
        row["mask"] = {"bytes": mask, "path": f"{item.name}.png"}
        return Written((), row)

    def collect(self, entry: dict[str, Any]) -> Iterable[File]:
        """Take up a row."""
        num_bytes = len(entry["image"]["bytes"]) + len(entry["mask"]["bytes"])
        return self._parts.add(entry, num_bytes)

    def finish(self) -> Iterator[File]:
        """Write the last rows, and the classes."""
        yield from self._parts.close()
        yield "classes.json", classes_json(self._classes)


def _schema() -> pa.Schema:
    known = [IMAGES.field(name) for name in _KNOWN]
    features: dict[str, Any] = {
        one.name: {"dtype": "float64" if one.type == pa.float64() else "string", "_type": "Value"}
        for one in known
    }
    features = {"image": {"_type": "Image"}, "mask": {"_type": "Image"}, **features}
    fields = [pa.field("image", _IMAGE), pa.field("mask", _IMAGE), *known]
    about = json.dumps({"info": {"features": features}})
    return pa.schema(fields, {"huggingface": about})


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, _schema())
    # The files in it are packed already.
    pq.write_table(table, buffer, row_group_size=_ROWS_PER_GROUP, compression="none")
    return buffer.getvalue()
