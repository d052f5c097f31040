"""Select: which images people should look at, written as a table that is a manifest.

The same output and settings give the same rows in the same order, the most telling first.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, SettingError
from pipeline.export.best import folder_of
from pipeline.export.newest import Answers, Row
from pipeline.export.place import refuse_file
from pipeline.export.taken import Pictures, Taken
from pipeline.images.masks import IGNORE_INDEX
from pipeline.labelling.class_statistics import IGNORED
from pipeline.labelling.schema import OK, SELECTION
from pipeline.settings.select import SelectSettings
from pipeline.store.probe import naming_place
from pipeline.store.storage import Storage

LEAST_CONFIDENT, RANDOM, MATCHING, FAILED = "least_confident", "random", "matching", "failed"
_ROWS_AT_A_TIME = 10_000


def select(answers: Answers, settings: SelectSettings, storage: Storage) -> Counter[str]:
    """Choose images and write them as a table of `schema.SELECTION`.

    Args:
        answers: What is chosen from.
        settings: What to choose, and where to write it.
        storage: Of the images and of the table.

    Returns:
        How many were chosen for which reason.

    Raises:
        InputError: No image is as asked for.
        SettingError: A class has a name that the network does not know, or the table would
            replace what was labelled.
    """
    refuse_file(answers, settings.to)
    chosen: Counter[str] = Counter()
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SELECTION, compression="zstd") as writer:
        rows = _chosen(answers, settings, storage)
        while some := list(islice(rows, _ROWS_AT_A_TIME)):
            chosen.update(row["reason"] for row in some)
            writer.write_table(pa.Table.from_pylist(some, SELECTION))
    if not chosen:
        raise InputError(f"{settings.output} holds no image as asked for; nothing is written")
    with naming_place("to", settings.to):
        storage.write(settings.to, buffer.getvalue())
    return chosen


def _chosen(answers: Answers, settings: SelectSettings, storage: Storage) -> Iterator[Row]:
    if settings.least_confident is None and settings.random is None:
        return _all(_matching(answers, settings), settings)
    return _few(answers, settings, storage)


def _matching(answers: Answers, settings: SelectSettings) -> Iterator[Row]:
    """Read the rows that have a mask, or failed, and the classes that are asked for."""
    present, share = settings.class_, settings.share_range
    ids = _class_ids(answers)
    for name in (present, share and share[0]):
        if name is not None and name not in ids:
            raise SettingError(f"there is no class {name!r}; there are: {', '.join(ids)}")
    shares_of = {ids[name] for name in (present, share and share[0]) if name is not None}
    for row in answers.rows(shares_of=shares_of):
        if settings.failed is (row["status"] == OK):
            continue
        if present and ids[present] not in row["shares"]:
            continue
        if share and not share[1] <= row["shares"].get(ids[share[0]], 0.0) <= share[2]:
            continue
        yield row


def _class_ids(answers: Answers) -> dict[str, int]:
    """Return the classes by name, what the network left open among them, if it has."""
    ids = {label.name: label.id for label in answers.classes}
    counted = (label.id for _, manifest in answers.runs for label in manifest.classes)
    return {IGNORED: IGNORE_INDEX, **ids} if IGNORE_INDEX in counted else ids


def _all(rows: Iterable[Row], settings: SelectSettings) -> Iterator[Row]:
    """Take every row, as far as its folder's limit lets it."""
    in_folder: Counter[str] = Counter()
    reason = FAILED if settings.failed else MATCHING
    for row in rows:
        if settings.max_per_folder is not None:
            in_folder[folder_of(row)] += 1
            if in_folder[folder_of(row)] > settings.max_per_folder:
                continue
        yield {**row, "reason": reason}


def _few(answers: Answers, settings: SelectSettings, storage: Storage) -> Iterator[Row]:
    """Take the least confident rows, then random ones of the others: a reading for each."""
    pictures = (
        Pictures(storage.for_input(), settings.io_threads) if settings.not_near_duplicates else None
    )
    taken = Taken(settings.max_per_folder, pictures)
    scores: tuple[tuple[str, int | None, Callable[[Row], float | str]], ...] = (
        (LEAST_CONFIDENT, settings.least_confident, _doubt),
        (RANDOM, settings.random, lambda row: _lot(row, settings.seed)),
    )
    for reason, number, score in scores:
        if number is not None:
            best = taken.best(number)
            for row in _matching(answers, settings):
                best.add(score(row), row)
            yield from ({**row, "reason": reason} for row in taken.take(best.rows(), number))


def _doubt(row: Row) -> float:
    confidence: float | None = row["mean_confidence"]
    return 1.0 if confidence is None else confidence


def _lot(row: Row, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{row['image_id']}".encode()).hexdigest()
