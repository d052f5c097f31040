"""Fetch: the planned images of shards -> their encoded bytes. I/O only, in threads.

In: a ShardGroup. Out: a ShardRow for each of its shards, one at a time, whose images have `data`,
or the error that stood in the way.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.errors import ErrorCode, PipelineError, Scope, StoreError
from pipeline.labelling.cost import Work
from pipeline.labelling.doubt import another_answers, refuse_a_store_that_fails
from pipeline.labelling.mishaps import Mishaps
from pipeline.labelling.reads import MAX_READ, Read, reads_of
from pipeline.labelling.runs import planned_images, read_plan
from pipeline.labelling.schema import ImageRow, ShardGroup, ShardRow, ShardTask
from pipeline.labelling.shards import tasks_of
from pipeline.store.cells import OpenColumns
from pipeline.store.names import MAX_KEY_BYTES, MAX_PART_BYTES
from pipeline.store.storage import Storage


class Fetch:
    """Reads the images of shards, each in the version that was planned."""

    def __init__(
        self, storage: Storage, max_image_bytes: int, threads: int, input_uri: str | None = None
    ) -> None:
        """Take the settings along to the worker.

        Args:
            storage: Of plan and images.
            max_image_bytes: Larger images are not read.
            threads: Images, or neighbours in a tar, read at a time.
            input_uri: What the run labels: where that is gone, no image is; None is not asked for.
        """
        self._input = input_uri
        self._storage = storage
        self._max_image_bytes = max_image_bytes
        self._threads = threads
        self._mishaps = Mishaps()

    def __call__(self, group: ShardGroup) -> Iterator[ShardRow]:
        """Fetch shards one after the other, each when it is asked for; the plan is read once.

        Raises:
            StoreError: The plan can't be read, or the store fails whatever it is asked for; an
                image that can't be read while others can is a row.
            InputError: The plan is damaged.
        """
        plan: bytes | None = None
        columns = OpenColumns()
        for task in tasks_of(group):
            work, storage = Work(), self._storage.counting()
            with work.timed("fetch"):
                plan = read_plan(storage, task["plan_uri"]) if plan is None else plan
            yield self._shard(task, plan, work, storage, columns)

    def shard(self, task: ShardTask) -> ShardRow:
        """Fetch one shard. Raises as a call does."""
        group = ShardGroup(
            plan_uri=task["plan_uri"],
            first_shard=task["shard"] - task["row_group"],
            row_groups=[task["row_group"]],
        )
        return next(self(group))

    def _shard(
        self, task: ShardTask, plan: bytes, work: Work, storage: Storage, columns: OpenColumns
    ) -> ShardRow:
        with work.timed("fetch"):
            images = self._fetch(storage, planned_images(task, plan), columns)
            refuse_a_store_that_fails(storage, task, images, self._max_image_bytes, self._input)
        work.read_bytes = sum(len(image["data"] or b"") for image in images)
        work.retried(storage.retries)
        return ShardRow(shard=task["shard"], images=images, work=work.model_dump())

    def images(self, planned: Sequence[ImageRow]) -> list[ImageRow]:
        """Fetch images that are in no shard yet; one that can't be read is a row.

        Args:
            planned: The images.
        """
        return self._fetch(self._storage, planned, OpenColumns())

    def _fetch(
        self, storage: Storage, planned: Sequence[ImageRow], columns: OpenColumns
    ) -> list[ImageRow]:
        limit = self._max_image_bytes
        fetch = partial(_fetch, storage.for_input(), columns, limit, self._mishaps)

        def fetch_or_end(read: Read) -> list[ImageRow]:
            try:
                return fetch(read)
            except StoreError:
                # True of the bucket or of all of the store, it seems; or of what stands before it.
                if not another_answers(storage, read.place.uri, planned, limit):
                    raise
                return fetch(read, is_alone=True)

        reads = reads_of(planned, self._max_image_bytes)
        with ThreadPoolExecutor(self._threads) as pool:
            found = {row["image_id"]: row for rows in pool.map(fetch_or_end, reads) for row in rows}
        return [found[image["image_id"]] for image in planned]


def _fetch(  # noqa: PLR0913 - what all reads share, and one
    storage: Storage,
    columns: OpenColumns,
    max_image_bytes: int,
    mishaps: Mishaps,
    read: Read,
    *,
    is_alone: bool = False,
) -> list[ImageRow]:
    """Fetch what is read at once; what can't be read costs only its own images a row each.

    Raises:
        StoreError: The bucket or the store fails; not of what is known to be alone in it.
    """
    if read.place.cell is not None and len(read.images) > 1:
        shared = storage, columns, max_image_bytes, mishaps
        return [_fetch(*shared, one, is_alone=is_alone)[0] for one in read.apart()]
    try:
        if len(read.images) > 1:
            return _fetch_together(storage, read)
        return [_fetch_image(storage, columns, max_image_bytes, read)]
    except StoreError as error:
        # What was planned was there: that its bucket is gone is true of more than one image.
        of_more = error.scope is Scope.STORE or (error.scope is Scope.BUCKET and read.version)
        if of_more and not is_alone:
            raise
        code, message = error.code, error.message
    except PipelineError:
        raise
    except Exception as error:  # noqa: BLE001 - one answer of a store must not end the run
        found = mishaps.image_error(error, read.images[0]["uri"])
        code, message = found.code, found.message
    return [
        {**image, "data": None, "error_code": str(code), "error_message": message}
        for image in read.images
    ]


def _fetch_together(storage: Storage, read: Read) -> list[ImageRow]:
    """Fetch images that lie close to each other. Raises StoreError."""
    data = storage.read_version_of(read.place, read.version, MAX_READ)
    first = read.place.offset or 0
    places = [(image, (image.get("image_offset") or 0) - first) for image in read.images]
    return [
        _fetched(image, data[start : start + (image["num_bytes"] or 0)]) for image, start in places
    ]


def _fetch_image(
    storage: Storage, columns: OpenColumns, max_image_bytes: int, read: Read
) -> ImageRow:
    """Fetch one image. Raises StoreError."""
    [image] = read.images
    _refuse_planned(image)
    in_table = read.place.cell is not None
    if image["etag"] is None:
        _fail_again(storage, read.place.uri if in_table else image["uri"])
    if in_table:
        column = columns.open(storage, read.place, read.version)
        return _fetched(image, column.read(read.place, max_image_bytes))
    limits = (max_image_bytes, image["num_bytes"])
    return _fetched(image, storage.read_version_of(read.place, read.version, *limits))


def _fetched(image: ImageRow, data: bytes) -> ImageRow:
    return {
        **image,
        "num_bytes": len(data),
        "data": data,
        "error_code": None,
        "error_message": None,
    }


_NAMES = {
    ErrorCode.NAME_TOO_LONG: f"its mask's name would be longer than the output can hold: a bucket "
    f"{MAX_KEY_BYTES} bytes, a disk {MAX_PART_BYTES} between two slashes; rename it, or give the "
    "output a shorter name",
    ErrorCode.NAME_NOT_UTF8: "its name is not valid UTF-8 and can stand in no table; rename it",
}


def _refuse_planned(image: ImageRow) -> None:
    """Say what the plan has found out about a name, or a tar. Raises StoreError."""
    if (known := image.get("error_code")) is not None:
        code = ErrorCode(known)
        said = image.get("error_message")
        raise StoreError(code, said or f"{image['uri']}: {_NAMES[code]}")


def _fail_again(storage: Storage, uri: str) -> None:
    """Say why the plan could not look the image up; what is not planned is not labelled."""
    storage.stat(uri)
    raise StoreError(
        ErrorCode.CHANGED, f"{uri} could not be read when the run was planned, and can be now"
    )
