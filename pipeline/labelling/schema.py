"""Every table and row, declared once.

`PLAN` is what plan writes and fetch reads, `COMMIT` what write commits, `IMAGES` and
`CLASS_STATISTICS` what publish makes of the commit records and readers query.
"""

from typing import Any, NotRequired, TypedDict

import pyarrow as pa

OK = "ok"
ERROR = "error"

_TIME = pa.timestamp("ms", tz="UTC")

PLAN = pa.schema(
    [
        ("shard", pa.int32()),
        ("image_id", pa.string()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("num_bytes", pa.int64()),
        ("mask_key", pa.string()),
        ("attempts", pa.int32()),
        ("error_code", pa.string()),
        # Of an image that its name keeps out, or of a tar that can't be read to its end.
        ("error_message", pa.string()),
        # Where the image begins in its tar; null where it is an object of its own.
        ("image_offset", pa.int64()),
    ]
)

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("num_bytes", pa.int64()),
        # Where the image lies in a tar; null where it is an object of its own.
        ("image_offset", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("mask_uri", pa.string()),
        ("mask_sha256", pa.string()),
        # Where the mask lies in a tar; null where it is a file of its own.
        ("mask_offset", pa.int64()),
        ("mask_bytes", pa.int64()),
        ("mean_confidence", pa.float64()),
        ("shard", pa.int32()),
        ("run_id", pa.string()),
        ("fingerprint", pa.string()),
        ("labelled_at", _TIME),
        ("attempts", pa.int32()),
    ]
)

_CLASS_PIXELS = pa.struct(
    [
        ("class_id", pa.int32()),
        ("pixel_count", pa.int64()),
        ("mean_confidence", pa.float64()),
    ]
)

COMMIT = IMAGES.append(pa.field("classes", pa.list_(_CLASS_PIXELS)))

CLASS_STATISTICS = pa.schema(
    [
        ("image_id", pa.string()),
        ("key", pa.string()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("pixel_count", pa.int64()),
        ("pixel_fraction", pa.float64()),
        ("mean_confidence", pa.float64()),
        ("run_id", pa.string()),
    ]
)

# What people should see, first of all: a manifest, since it has a column `uri`.
SELECTION = pa.schema(
    [
        IMAGES.field("uri"),
        ("reason", pa.string()),
        *(
            IMAGES.field(name)
            for name in (
                *("mean_confidence", "status", "error_code", "error_message", "key", "image_id"),
                *("etag", "num_bytes", "image_offset", "height", "width", "mask_uri"),
                *("mask_sha256", "mask_offset", "mask_bytes"),
                *("run_id", "fingerprint", "labelled_at"),
            )
        ),
    ]
)

# What tables of earlier versions have not: there they are null.
_ADDED = frozenset({"attempts", "mask_offset", "mask_bytes", "image_offset"})


def of_any_version(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the columns that earlier versions did not write, as nulls, where the schema has them.

    Args:
        table: As it was read.
        schema: The schema of the table as it is written today.

    Returns:
        The table in the schema's order of columns; as it was, if it lacks any other column.
    """
    lacking = set(schema.names) - set(table.column_names)
    if not lacking or lacking - _ADDED:
        return table
    for name in sorted(lacking):
        field = schema.field(name)
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names)


class ClassPixels(TypedDict):
    """One class in one image: exact count of its pixels, mean of their confidence in [0, 1]."""

    class_id: int
    pixel_count: int
    mean_confidence: float | None


class ImageRow(TypedDict):
    """One image on its way through the steps; each step adds the fields it is the author of.

    plan: the first seven, where the image begins in its tar, and the error of what is not read: an
    image that its name keeps out, or a damaged tar. fetch: `data` or the error. segment: the sizes,
    `png` and the statistics, or the error; `data` ends there. write: `png` ends there.
    """

    image_id: str
    key: str
    uri: str
    etag: str | None
    num_bytes: int | None
    mask_key: str
    attempts: NotRequired[int | None]
    error_code: NotRequired[str | None]
    error_message: NotRequired[str | None]
    image_offset: NotRequired[int | None]
    data: NotRequired[bytes | None]
    height: NotRequired[int | None]
    width: NotRequired[int | None]
    png: NotRequired[bytes | None]
    mean_confidence: NotRequired[float | None]
    classes: NotRequired[list[ClassPixels]]


class ShardTask(TypedDict):
    """One shard to do: where the plan holds its images."""

    shard: int
    plan_uri: str
    row_group: int


class ShardGroup(TypedDict):
    """What Ray carries into fetch: shards of one file of the plan, whose first is `first_shard`."""

    plan_uri: str
    first_shard: int
    row_groups: list[int]


class ShardRow(TypedDict):
    """One shard between the steps: one Ray row, alone in its block, which Ray never splits.

    `work` is `pipeline.labelling.cost.Work` as a dict: what the steps have spent so far.
    """

    shard: int
    images: list[ImageRow]
    work: NotRequired[dict[str, Any]]


class Receipt(TypedDict):
    """What write hands back for one shard: what stands in its commit record.

    `errors` counts images by error code, `work` is `pipeline.labelling.cost.Work` as a dict.
    """

    shard: int
    num_images: int
    num_failed: int
    errors: dict[str, int]
    work: dict[str, Any]
