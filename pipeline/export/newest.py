"""The newest answer for every image, over all finished runs of one network, in flat memory.

In order of the images' places the answers for one image come one after the other, whatever the
number of runs and images.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from pipeline.errors import InputError
from pipeline.export.by_place import by_place
from pipeline.export.published import in_pieces, published_tables
from pipeline.labelling.history import History
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.records import ClassRecord, Manifest
from pipeline.labelling.runs import Run, masks_folder
from pipeline.wording import there_are

_log = logging.getLogger(__name__)

# A row of the images table: its columns by name. `mask_key` is the mask's place in its run.
Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What finished runs of one network say.

    Attributes:
        runs: Oldest first, each with its manifest.
        others: Runs of the output that are not read; an unfinished one has no manifest.
    """

    runs: tuple[tuple[Run, Manifest], ...]
    others: tuple[tuple[Run, Manifest | None], ...] = ()

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
            # It may be a trial of a new network, on a few images, in the output of the old one.
            newest_run = same[-1][0]
            _log.info(
                "what the newest run's network says is read: run %s of input %s; %s of other "
                "networks and left out (run_id names one)",
                *(newest_run.run_id, newest_run.record.input),
                there_are(len(finished) - len(same), "run"),
            )
        return Answers(same, _others(history, {run.run_id for run, _ in same}))

    @property
    def every_run(self) -> tuple[tuple[Run, Manifest | None], ...]:
        """All runs of the output, those first that are read."""
        return (*self.runs, *self.others)

    @property
    def classes(self) -> list[ClassRecord]:
        """The classes of the network, in order of their indices."""
        return self.runs[-1][0].record.network.classes

    @property
    def fingerprint(self) -> str:
        """Of the network."""
        return self.runs[-1][1].fingerprint

    def rows(self, *, shares_of: Collection[int] = ()) -> Iterator[Row]:
        """Read the newest answer for every image, in order of the URI without its scheme.

        Args:
            shares_of: Classes of which `shares` says, too, how much of an image's pixels they are,
                by class id.

        Raises:
            InputError: A table is damaged, or in another order.
            SettingError: There is no room for the rows of several runs on the disk.
        """
        tables = (
            table
            for number, one in enumerate(self.runs)
            for table in published_tables(number, *one, shares_of)
        )
        # Those of one run are in order.
        rows = in_pieces(tables if len(self.runs) == 1 else by_place(tables))
        for _, same_place in groupby(rows, key=itemgetter("place")):
            for row in _newest(same_place):
                yield _as_it_lies_now(row, self.runs[row["run"]][0])


def _others(history: History, read: Collection[str]) -> tuple[tuple[Run, Manifest | None], ...]:
    others = [run for run in history.runs() if run.run_id not in read]
    return tuple(zip(others, history.manifests(others), strict=True))


def _newest(rows: Iterable[Row]) -> Iterable[Row]:
    """Keep the newest row of every URI; of two of one moment the newer run's, which comes last."""
    found: dict[str, Row] = {}
    for row in rows:
        other = found.get(row["uri"])
        if other is None or row["labelled_at"] >= other["labelled_at"]:
            found[row["uri"]] = row
    return found.values()


def _as_it_lies_now(row: Row, run: Run) -> Row:
    """Say where the mask is in the output as it lies now, which may have moved."""
    del row["place"], row["run"]
    row["shares"] = dict(row["shares"])
    if row["mask_uri"] is not None:
        place = row["mask_uri"].removeprefix(masks_folder(run.record.output, run.run_id) + "/")
        row["mask_uri"] = f"{run.masks_folder}/{place}"
        row["mask_key"] = _mask_key(run, row, place)
    return row


def _mask_key(run: Run, row: Row, place: str) -> str:
    """Return the place of a mask in its run, or the one that it would have outside of a tar."""
    if row["mask_offset"] is None:
        return place
    return mask_key(row["key"], run.record.settings["mask_name"])
