"""Where an export may not lie: in the input, in an output's own folders, or around any image.

Files of an export have fixed names, and replace what has them. So before anything is written, all
runs of the output are asked where their images are: finished or not, exported or not.
"""

import os
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SettingError
from pipeline.export.newest import Answers
from pipeline.inputs.inventory import INVENTORY_NAME
from pipeline.inputs.manifests import MANIFEST_ENDINGS
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import TABLES, Run
from pipeline.store.uri import as_folder, local_path

# What commands write in an output. What lies beside these is free.
_OWN = (*TABLES, "masks", "runs", "history", "locks", "tars", "evaluations")
# What names images that may lie anywhere.
_LISTS = (*MANIFEST_ENDINGS, f"/{INVENTORY_NAME}")


def refuse_folder(answers: Answers, to: str) -> None:
    """Keep an export from replacing anything, and the next `label` from taking it for photographs.

    Args:
        answers: What is exported.
        to: URI of the folder to write.

    Raises:
        SettingError: It lies there.
        InputError: A table is damaged.
    """
    _refuse_own_folders(answers, to)
    for run, _ in answers.every_run:
        _refuse_input(run, to)
    _refuse_around_images(answers, as_folder(to), to)


def refuse_file(answers: Answers, to: str) -> None:
    """Keep a selection from replacing what was labelled, or what says so.

    Args:
        answers: What is selected from.
        to: URI of the file to write.

    Raises:
        SettingError: It is such a file.
        InputError: A table is damaged.
    """
    _refuse_own_folders(answers, to)
    for run, _ in answers.every_run:
        named = run.record.input
        # A manifest may be a folder of parts.
        in_parts = named.lower().endswith(MANIFEST_ENDINGS) and _lies_below(to, named)
        if _is(to, named) or in_parts:
            raise SettingError(f"to={to!r} is the input of run {run.run_id}; name another file")
    _refuse_around_images(answers, f"{to}!/", to)


def _refuse_own_folders(answers: Answers, to: str) -> None:
    output = answers.runs[-1][0].output
    if _is(to, output) or any(_lies_below(to, f"{output}/{name}") for name in _OWN):
        raise SettingError(
            f"to={to!r} holds what label has written; name another folder, as in {output}/exports"
        )


def _refuse_input(run: Run, to: str) -> None:
    """Refuse what the next `label` would list; it leaves its output out."""
    lists = run.record.input
    # Of a pattern, the folder below which it takes what fits at any depth.
    places = (lists.partition("**")[0], run.record.output)
    in_input, in_output = (_lies_below(to, one) for one in places)
    if in_input and not in_output:
        raise SettingError(
            f"to={to!r} lies in the input {lists}, where the next label would take it for "
            "photographs; name another folder"
        )


def _refuse_around_images(answers: Answers, begins: str, to: str) -> None:
    for run, manifest in answers.every_run:
        if (found := _first_below(run, manifest, begins)) is not None:
            raise SettingError(
                f"to={to!r} holds {found}, of the images of run {run.run_id}, which could be "
                "replaced; name another place"
            )


def _first_below(run: Run, manifest: Manifest | None, begins: str) -> str | None:
    """Find an image of a run whose URI begins so; its tables are read only where one may."""
    lists = run.record.input
    if not lists.lower().endswith(_LISTS):
        folder = re.split(r"[*?\[]", lists, maxsplit=1)[0]
        if _lies_below(folder, begins):
            return folder
        if not any(one.startswith(folder) for one in _ways(begins)):
            return None
    for table in _uris(run, manifest):
        for one in _ways(begins):
            found = table["uri"].filter(pc.starts_with(table["uri"], one))
            if len(found):
                return str(found[0])
    return None


def _uris(run: Run, manifest: Manifest | None) -> Iterator[pa.Table]:
    """Read what images a run has, or is about to have."""
    return run.plan() if manifest is None else run.published(manifest, ["uri"])


def _is(place: str, other: str) -> bool:
    """Return whether two places are one, also by way of links."""
    return not _ways(place).isdisjoint(_ways(other))


def _lies_below(place: str, folder: str) -> bool:
    """Return whether a place lies below a folder, or is it, also by way of links."""
    folders = tuple(map(as_folder, _ways(folder)))
    return any(as_folder(one).startswith(folders) for one in _ways(place))


def _ways(uri: str) -> set[str]:
    """Name a place as it is called, and as it is called without links; a slash at its end stays."""
    if not uri.startswith("file://"):
        return {uri}
    end = "/" if uri.endswith("/") else ""
    return {uri, "file://" + os.path.realpath(local_path(uri)).rstrip("/") + end}
