"""Labelled data sets that are tables: manifests, selections, and the images table of a run."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from pipeline.errors import InputError
from pipeline.inputs.manifests import Manifest, Row
from pipeline.inputs.samples import TRAIN, UNDIVIDED, Labelled, Sample
from pipeline.store.object_file import open_object
from pipeline.store.storage import Storage
from pipeline.store.uri import normalise_uri

_log = logging.getLogger(__name__)

_NEEDS = "the columns image_uri and mask_uri, and may have split; or uri and mask_uri, as label's"
_OWN = ("uri", "mask_uri")
_MASK_IN_TAR, _IMAGE_IN_TAR = ("mask_offset", "mask_bytes"), ("image_offset", "image_bytes")
_IN_TAR = (*_MASK_IN_TAR, *_IMAGE_IN_TAR)
# OUTPUT/images/run=RUN, and a file of it.
_TABLE = re.compile(r"(.+)/images/run=([^/]+)(?:/[^/]+\.parquet)?\Z")
# OUTPUT/masks/run=RUN/KEY.
_MASK = re.compile(r"(.+)/masks/run=([^/]+)/.+\Z")


def is_table_of_run(uri: str) -> bool:
    """Return whether a folder is the images table of a run: OUTPUT/images/run=RUN."""
    return _TABLE.match(uri) is not None


def read_table_of_run(storage: Storage, uri: str) -> Labelled:
    """Read the images table of a finished run, which its manifest.json names file by file.

    Args:
        storage: Reads and writes the output.
        uri: OUTPUT/images/run=RUN.

    Raises:
        InputError: There is no such run, it is not finished, or none of its images has a mask.
    """
    output, run_id = _place_of_table(uri)
    manifest = _record(storage, f"{output}/runs/{run_id}/manifest.json")
    if manifest is None:
        raise InputError(f"data={uri!r} is the table of no finished run; label finishes it")
    files = [f"{output}/{part['file']}" for part in manifest["images"]]
    rows = (row for file in files for row in _own_rows(file, open_object(storage, file)))
    return _own_labelled(storage, rows, uri)


def read_manifest(storage: Storage, uri: str) -> Labelled:
    """Read a manifest, a selection, or a file of a run's images table.

    Args:
        storage: Where it is.
        uri: The file, whose ending names the format.

    Raises:
        InputError: It lacks the columns, is damaged, or holds no image with a mask.
    """
    manifest = Manifest(uri, ("image_uri", "mask_uri"), ("split", *_IN_TAR), _NEEDS)
    names = manifest.names(open_object(storage, uri))
    file = open_object(storage, uri)
    if "image_uri" not in names and set(_OWN) <= set(names):
        return _own_labelled(storage, _own_rows(uri, file), uri)
    splits = _splits((row.get("split") or TRAIN, _sample(row, uri)) for row in manifest.rows(file))
    return Labelled("manifest", splits, _classes_beside(storage, uri))


def _splits(pairs: Iterable[tuple[object, Sample]]) -> dict[str, list[Sample]]:
    splits: dict[str, list[Sample]] = {}
    for split, sample in pairs:
        splits.setdefault(str(split), []).append(sample)
    return {name: sorted(some, key=_image_uri) for name, some in splits.items()}


def _image_uri(sample: Sample) -> str:
    return sample.image_uri


def _sample(row: Row, uri: str) -> Sample:
    places = []
    for column in ("image_uri", "mask_uri"):
        value = row[column]
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"manifest {uri}: {column} is {value!r}, not a text")
        places.append(normalise_uri(value.strip(), column))
    of_mask = [_number(row.get(name), name, uri) for name in _MASK_IN_TAR]
    of_image = [_number(row.get(name), name, uri) for name in _IMAGE_IN_TAR]
    return Sample(places[0], places[1], of_mask[0], of_mask[1], of_image[0], of_image[1])


def _number(value: Any, column: str, uri: str) -> int | None:
    """Read a number of bytes; programs that know no null of integers write NaN, or nothing."""
    if value in (None, "") or value != value:  # noqa: PLR0124 - NaN is not itself
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or value < 0:
        raise InputError(f"manifest {uri}: {column} is {value!r}, not a number of bytes")
    return value


def _classes_beside(storage: Storage, uri: str) -> str | None:
    folder = uri.rpartition("/")[0]
    return f"{folder}/classes.json" if "classes.json" in storage.children(folder) else None


def _own_rows(uri: str, file: BinaryIO) -> Iterator[Row]:
    wanted = ("split", "fingerprint", "num_bytes", *_IN_TAR)
    for row in Manifest(uri, _OWN, wanted, _NEEDS).rows(file):
        # Of an object of its own the size says nothing.
        row["image_bytes"] = None if row.get("image_offset") is None else row["num_bytes"]
        yield row


def _own_labelled(storage: Storage, rows: Iterable[Row], uri: str) -> Labelled:
    """Take the rows that have a mask, and the classes of the runs that wrote them."""
    move = _mover(storage, uri)
    pairs, masks, num_rows = [], dict[object, str](), 0
    for row in rows:
        num_rows += 1
        if row["mask_uri"] is not None:
            row["image_uri"], row["mask_uri"] = row["uri"], move(row["mask_uri"])
            pairs.append((row.get("split") or UNDIVIDED, _sample(row, uri)))
            masks.setdefault(row.get("fingerprint"), row["mask_uri"])
    if not pairs:
        raise InputError(f"data={uri!r} has {num_rows} images, and none of them has a mask")
    if len(pairs) < num_rows:
        failed = num_rows - len(pairs)
        _log.info("%d of %d images of %s have no mask and are left out", failed, num_rows, uri)
    classes = _record_of_runs(storage, masks.values(), uri) or _classes_beside(storage, uri)
    return Labelled("table", _splits(pairs), classes)


class _Mover:
    """Finds a run's masks where its output lies now, which may have been copied."""

    def __init__(self, written_to: str, output: str) -> None:
        self._written_to, self._output = f"{written_to}/masks/", f"{output}/masks/"

    def __call__(self, mask_uri: str) -> str:
        if not mask_uri.startswith(self._written_to):
            return mask_uri
        return self._output + mask_uri.removeprefix(self._written_to)


def _mover(storage: Storage, uri: str) -> _Mover:
    """Build what moves the masks of a run's table; those of a selection stand as they are."""
    if not is_table_of_run(uri):
        return _Mover("", "")
    output, run_id = _place_of_table(uri)
    record = _record(storage, f"{output}/runs/{run_id}/run.json")
    return _Mover(record["output"] if record else output, output)


def _place_of_table(uri: str) -> tuple[str, str]:
    found = _TABLE.match(uri)
    assert found is not None
    return found[1], found[2]


def _record_of_runs(storage: Storage, masks: Iterable[str], uri: str) -> str | None:
    """Find the run.json that says the classes: of one mask of each network."""
    found: dict[str, str] = {}
    for mask in masks:
        place = _MASK.match(mask)
        name = place and f"{place[1]}/runs/{place[2]}/run.json"
        if name and (record := _record(storage, name)):
            found.setdefault(json.dumps(record["network"]["classes"]), name)
    if len(found) > 1:
        raise InputError(
            f"data={uri!r} has masks of networks with different classes, as "
            f"{' and '.join(list(found.values())[:2])} say; take those of one network"
        )
    return next(iter(found.values()), None)


def _record(storage: Storage, uri: str) -> dict[str, Any] | None:
    data = storage.find(uri)
    try:
        found: dict[str, Any] | None = None if data is None else json.loads(data)
    except ValueError as error:
        raise InputError(
            f"{uri} is damaged: {error}; `fcn verify` says what is to be done"
        ) from error
    return found
