"""The newest answer for every image, over all finished runs of one network, in flat memory.

Each run's table is in order of the key. A key is the image's place below its input, or all of its
place, so that the tables are in order of the URI without its scheme, too: merged by that, the
answers for one image come one after the other, whatever the number of runs and images.
"""

import heapq
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.labelling.history import History
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.records import ClassRecord, Manifest
from pipeline.labelling.runs import Run, damaged, masks_folder
from pipeline.labelling.schema import SELECTION
from pipeline.store.extent import place_of
from pipeline.store.parquet import DAMAGE, read_parquet

_log = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 1_000
_COLUMNS = [name for name in SELECTION.names if name != "reason"]
_SHARES = ["image_id", "class_id", "pixel_fraction"]

# A row of the images table: its columns by name. `mask_key` is the mask's place in its run.
Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What finished runs of one network say.

    Attributes:
        runs: Oldest first, each with its manifest.
    """

    runs: tuple[tuple[Run, Manifest], ...]

    @staticmethod
    def of(history: History, run_id: str | None) -> "Answers":
        """Choose the runs: one by its name, or all of the newest one's network.

        Args:
            history: The output's runs so far.
            run_id: Only this run; None takes all.

        Raises:
            InputError: There is no such run, or none is finished.
        """
        runs = history.require(run_id)
        finished = [
            (run, manifest)
            for run, manifest in zip(runs, history.manifests(runs), strict=True)
            if manifest is not None
        ]
        if not finished:
            what = "no finished run" if run_id is None else f"run {run_id!r}, which is unfinished"
            raise InputError(f"output={history.output!r} holds {what}; label finishes it")
        newest = finished[-1][1].fingerprint
        same = tuple(one for one in finished if one[1].fingerprint == newest)
        if len(same) < len(finished):
            _log.info(
                "of the newest run's network; %d run(s) of others are left out, run_id names one",
                len(finished) - len(same),
            )
        return Answers(same)

    @property
    def classes(self) -> list[ClassRecord]:
        """The classes of the network, in order of their indices."""
        return self.runs[-1][0].record.network.classes

    @property
    def fingerprint(self) -> str:
        """Of the network."""
        return self.runs[-1][1].fingerprint

    def rows(self, *, with_shares: bool = False) -> Iterator[Row]:
        """Read the newest answer for every image, in order of the URI without its scheme.

        Args:
            with_shares: Whether to read `shares`, too: the share of an image's pixels by class id.

        Raises:
            InputError: A table is damaged, or in another order.
        """
        streams = [_rows_of(*one, with_shares=with_shares) for one in self.runs]
        for _, same_place in groupby(heapq.merge(*streams, key=place_of), key=place_of):
            yield from _newest(same_place)


def _newest(rows: Iterable[Row]) -> Iterable[Row]:
    """Keep the newest row of every URI; of two of one moment the newer run's, which comes last."""
    found: dict[str, Row] = {}
    for row in rows:
        other = found.get(row["uri"])
        if other is None or row["labelled_at"] >= other["labelled_at"]:
            found[row["uri"]] = row
    return found.values()


def _rows_of(run: Run, manifest: Manifest, *, with_shares: bool) -> Iterator[Row]:
    """Read the images table of a run, with the places of its masks in the output as it lies now."""
    shares = _shares_of(run, manifest) if with_shares else iter(())
    ahead = next(shares, None)
    written_to = masks_folder(run.record.output, run.run_id) + "/"
    last = ""
    for row in _in_pieces(run.published(manifest, _COLUMNS)):
        if (place := place_of(row)) < last:
            table = f"{run.output}/{manifest.images[0].file}"
            raise damaged(table, ValueError(f"{row['uri']} is not in order"))
        last = place
        if row["mask_uri"] is not None:
            place = row["mask_uri"].removeprefix(written_to)
            row["mask_uri"] = f"{run.masks_folder}/{place}"
            row["mask_key"] = _mask_key(run, row, place)
        row["shares"] = {}
        if ahead is not None and ahead[0] == row["image_id"]:
            row["shares"] = ahead[1]
            ahead = next(shares, None)
        yield row


def _mask_key(run: Run, row: Row, place: str) -> str:
    """Return the place of a mask in its run, or the one that it would have outside of a tar."""
    if row["mask_offset"] is None:
        return place
    return mask_key(row["key"], run.record.settings["mask_name"])


def _shares_of(run: Run, manifest: Manifest) -> Iterator[tuple[str, dict[int, float]]]:
    """Read the class statistics of a run, which are in the order of its images."""
    rows = _in_pieces(_statistics(run, manifest))
    for image_id, some in groupby(rows, key=lambda row: row["image_id"]):
        yield image_id, {row["class_id"]: row["pixel_fraction"] for row in some}


def _statistics(run: Run, manifest: Manifest) -> Iterator[pa.Table]:
    for part in manifest.class_statistics:
        uri = f"{run.output}/{part.file}"
        data = run.storage.read(uri)
        try:
            yield read_parquet(data, _SHARES)
        except DAMAGE as error:
            raise damaged(uri, error) from error


def _in_pieces(tables: Iterable[pa.Table]) -> Iterator[Row]:
    for table in tables:
        for batch in table.to_batches(max_chunksize=_ROWS_AT_A_TIME):
            yield from batch.to_pylist()
