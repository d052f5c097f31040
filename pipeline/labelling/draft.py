"""Draft: what is to be done, before anything is written.

In: the settings, the input's listing, earlier runs. Out: the images to do, in order of the key and
cut into shards. Runs on the driver, without Ray or torch, in memory that does not grow.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import pyarrow as pa

from pipeline.errors import ErrorCode
from pipeline.inputs.kept_tars import KeptTars
from pipeline.inputs.listing import Reading, Sources
from pipeline.inputs.mask_looks import LOOKED_AT, all_masks
from pipeline.inputs.nothing import (
    HEIC_ENDINGS,
    LOOKED_INTO,
    Place,
    all_heic,
    no_images,
    only_heic,
)
from pipeline.inputs.source import Source
from pipeline.labelling.answers import stage_answers
from pipeline.labelling.cutting import Cutter, by_shard
from pipeline.labelling.history import History
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.name_clashes import check_names
from pipeline.labelling.records import NetworkRecord
from pipeline.labelling.runs import masks_folder, new_run_id
from pipeline.labelling.schema import PLAN, ImageRow
from pipeline.labelling.staging import Staging
from pipeline.settings.label import LabelSettings
from pipeline.store.entry import WITHOUT_ETAG
from pipeline.store.extent import Extent
from pipeline.store.names import NamedPlace
from pipeline.store.storage import Storage, sha256_hex

_log = logging.getLogger(__name__)

_ROWS_PER_CHUNK = 20_000

_TO_DO = pa.schema([PLAN.field(name) for name in PLAN.names if name != "shard"])
_LISTED = pa.schema([_TO_DO.field(name) for name in _TO_DO.names if name != "attempts"])
_SIZES = pa.schema([PLAN.field("num_bytes")])
_URI = pa.schema([PLAN.field("uri")])
_PLACES = pa.schema([PLAN.field(name) for name in ("uri", "etag", "num_bytes", "image_offset")])
_IN_ORDER = "key, uri"

# The first row of every object: manifests repeat, and so do pages of some stores. Of members of a
# tar that have one name the last, which is what is there when it is extracted.
_ONCE_EACH = """
    DELETE FROM listed
    USING (
        SELECT uri, arg_max(rowid, coalesce(image_offset, -rowid)) AS kept
        FROM listed GROUP BY uri HAVING count(*) > 1
    ) AS repeated
    WHERE listed.uri = repeated.uri AND listed.rowid <> repeated.kept
"""
_WHAT_IS_LEFT = """
    CREATE TABLE to_do AS
    SELECT listed.*, coalesce(attempts + 1, 1)::INTEGER AS attempts
    FROM listed
    LEFT JOIN answered USING (image_id)
    WHERE coalesce(again, true)
"""
_SKIPPED_FAILED = """
    SELECT count(*) FROM listed SEMI JOIN (
        SELECT image_id FROM answered WHERE NOT again AND NOT labelled
    ) USING (image_id)
"""
_COUNTS = """
    SELECT
        count(*),
        coalesce(sum(num_bytes), 0),
        count(*) FILTER (attempts > 1),
        count(*) FILTER (starts_with(etag, $without_etag))
    FROM to_do
"""

_NUM_HEIC = "SELECT count(*) FROM listed WHERE regexp_matches(uri, $endings)"
_IS_HEIC = f"regexp_matches(uri, '{HEIC_ENDINGS}')"
_IS_PNG = "regexp_matches(uri, '(?i)\\.png$')"


@dataclass(frozen=True)
class Draft:
    """A run that could be started.

    Attributes:
        staging: Holds the images to do.
        max_shard_images: Images in a shard, at most.
        max_shard_bytes: Encoded bytes in a shard of several images, at most.
        num_images: What is to be done.
        num_bytes: Of these, encoded.
        num_retried: Of these images, those that earlier runs have failed at.
        num_without_etag: Of these, those whose version is their time and size.
        num_skipped: Listed images that earlier runs have answered for.
        num_skipped_failed: Of these, failed ones.
        num_ignored: Files in the input, and in its tars, that are no images by their name.
        num_repeated: Further times that an image was listed, or that its name is in its tar; it
            is planned once.
        num_header_reads: Requests that it took to find what lies in tars.
        kept_tars: Has noted what lies in those that were new.
    """

    staging: Staging
    max_shard_images: int
    max_shard_bytes: int
    num_images: int
    num_bytes: int
    num_retried: int
    num_without_etag: int
    num_skipped: int
    num_skipped_failed: int
    num_ignored: int
    num_repeated: int
    num_header_reads: int
    kept_tars: KeptTars

    @cached_property
    def num_shards(self) -> int:
        """Number of shards; cuts them."""
        cutter = self._cutter()
        for sizes in self.staging.stream("to_do", _SIZES, _IN_ORDER):
            cutter.cut(sizes["num_bytes"].to_pylist())
        return cutter.num_shards

    def shards(self) -> Iterator[pa.Table]:
        """Cut the images into shards: the same images give the same ones, whoever cuts.

        Yields:
            Each shard's images in order of the key; columns of `schema.PLAN`.
        """
        cutter = self._cutter()
        tables = self.staging.stream("to_do", _TO_DO, _IN_ORDER)
        yield from by_shard(cutter.numbered(table) for table in tables)

    def sample(self, number: int) -> list[ImageRow]:
        """Pick some of the images, evenly spread over the listing, in order of the key."""
        if not self.num_images:
            return []
        step = max(1, self.num_images // max(1, number))
        spread = f"rowid % {step} = 0"
        tables = self.staging.stream("to_do", _TO_DO, _IN_ORDER, where=spread, limit=number)
        return [row for table in tables for row in table.to_pylist()]

    @property
    def first_uri(self) -> str | None:
        """Where the first image in order of the key is; None if there is nothing to do."""
        tables = self.staging.stream("to_do", _URI, _IN_ORDER, limit=1)
        return next((table["uri"][0].as_py() for table in tables), None)

    def _cutter(self) -> Cutter:
        return Cutter(self.max_shard_images, self.max_shard_bytes)


def draft(history: History, settings: LabelSettings, network: NetworkRecord) -> Draft:
    """List the input and leave out what earlier runs have answered for.

    Args:
        history: The output's runs so far.
        settings: What the command was asked to do.
        network: That it labels with.

    Raises:
        InputError: There are no images that are read here, or two would get one mask name.
        SettingError: There is no room for the listing on the disk.
    """
    storage = history.storage.for_input()
    staging = Staging()
    kept = KeptTars(history.storage, f"{settings.output}/tars", staging.folder)
    how = (settings.trust_manifest, settings.input_form, kept, settings.image_column)
    sources = Sources(storage, settings.input, settings.output, settings.io_threads, Reading(*how))
    staging.fill("listed", _LISTED, _chunks(sources, settings))
    [(num_repeated,)] = staging.run(_ONCE_EACH)
    [(num_listed,)] = staging.run("SELECT count(*) FROM listed")
    if num_listed == 0:
        raise no_images(settings.input, sources.ignored)
    _doubt_heic(storage, staging, settings.input, num_listed)
    check_names(staging, settings.mask_name, local=settings.output.startswith("file://"))
    stage_answers(staging, history, network.fingerprint, settings)
    staging.run(_WHAT_IS_LEFT)
    [(num_skipped_failed,)] = staging.run(_SKIPPED_FAILED)
    _doubt_masks(storage, staging, settings.input)
    staging.run("DROP TABLE listed")
    staging.run("DROP TABLE answered")
    [(num_images, num_bytes, num_retried, num_without_etag)] = staging.run(
        _COUNTS, {"without_etag": WITHOUT_ETAG}
    )
    return Draft(
        staging=staging,
        max_shard_images=settings.max_shard_images,
        max_shard_bytes=settings.max_shard_bytes,
        num_images=num_images,
        num_bytes=int(num_bytes),
        num_retried=num_retried,
        num_without_etag=num_without_etag,
        num_skipped=num_listed - num_images,
        num_skipped_failed=num_skipped_failed,
        num_ignored=sources.num_ignored,
        num_repeated=num_repeated,
        num_header_reads=sources.num_header_reads,
        kept_tars=kept,
    )


def _doubt_heic(storage: Storage, staging: Staging, input_uri: str, num_listed: int) -> None:
    """Refuse an input that holds nothing but HEIC, by all names and by some content; warn of some.

    Raises:
        InputError: It holds nothing else.
    """
    some = _first(staging, "listed", _IS_HEIC, LOOKED_INTO)
    if not some or not all_heic(storage, some):
        return
    [(number,)] = staging.run(_NUM_HEIC, {"endings": HEIC_ENDINGS})
    if number == num_listed:
        raise only_heic(input_uri, number)
    _log.warning(
        "%d files are named .heic, .heif or the like and get rows without a mask; convert them to "
        "JPEG first",
        number,
    )


def _doubt_masks(storage: Storage, staging: Staging, input_uri: str) -> None:
    """Warn where the first PNGs to do look like masks, whatever their folder is called."""
    some = _first(staging, "to_do", _IS_PNG, LOOKED_AT)
    if some and all_masks(storage, some):
        _log.warning(
            "input=%r: the first %d PNGs look like masks: palette, or grey with few values. Masks "
            "are labelled like photographs; are the images in a folder beside them?",
            *(input_uri, len(some)),
        )


def _first(staging: Staging, table: str, where: str, limit: int) -> list[Place]:
    tables = staging.stream(table, _PLACES, "uri", where=where, limit=limit)
    rows = [row for table in tables for row in table.to_pylist()]
    return [(Extent.of_image(row), row["etag"]) for row in rows]


def _chunks(sources: Iterable[Source], settings: LabelSettings) -> Iterator[pa.Table]:
    """Make rows of sources, some at a time."""
    place = NamedPlace(masks_folder(settings.output, settings.run_id or new_run_id()))
    rows = (_row(source, settings.mask_name, place) for source in sources)
    while some := list(islice(rows, _ROWS_PER_CHUNK)):
        yield pa.table(list(zip(*some, strict=True)), _LISTED)


def _row(source: Source, mask_name: str, place: NamedPlace) -> tuple[str | int | None, ...]:
    name = mask_key(source.key, mask_name)
    # The output can't hold a mask of this name: the image's row will say so.
    is_refused = source.reason is not None or place.holds(name)
    refusal = source.refusal if is_refused else ErrorCode.NAME_TOO_LONG
    known = (source.key, source.uri, source.version, source.num_bytes)
    said = (refusal and str(refusal), source.reason, source.offset)
    return (image_id(source.uri, source.version), *known, name, *said)


def image_id(uri: str, version: str | None) -> str:
    """Hash an image's URI and version: another id is another picture.

    Args:
        uri: Where the image is.
        version: ETag, or mtime and size; None if it could not be looked up.

    Returns:
        32 hexadecimal digits.
    """
    return sha256_hex(f"{uri}\0{version or ''}".encode())[:32]
