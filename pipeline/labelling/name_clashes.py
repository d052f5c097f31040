"""Name clashes: mask names that can't stand together are refused before anything is written."""

from pipeline.errors import InputError
from pipeline.labelling.staging import Staging

_NAMED_TWICE = """
    SELECT count(*), min(mask_key)
    FROM (
        SELECT mask_key FROM listed WHERE error_code IS NULL GROUP BY mask_key HAVING count(*) > 1
    )
"""
# Joins and groups go to the disk where memory is short; a recursive query would not.
_FILES_AND_FOLDERS = """
    WITH parents AS (
        SELECT DISTINCT regexp_replace(mask_key, '/[^/]*$', '') AS name
        FROM listed
        WHERE error_code IS NULL AND contains(mask_key, '/')
    ),
    folders AS (
        SELECT unnest(
            list_transform(range(1, len(parts) + 1), lambda n: array_to_string(parts[:n], '/'))
        ) AS name
        FROM (SELECT string_split(name, '/') AS parts FROM parents)
    )
    SELECT min(name) FROM folders SEMI JOIN listed ON mask_key = name AND error_code IS NULL
"""


def check_names(staging: Staging, mask_name: str, *, local: bool) -> None:
    """Refuse names that two masks would have, before anything is written.

    Args:
        staging: With the images in its table `listed`.
        mask_name: As `mask_key` takes it.
        local: Whether the output is on a disk.

    Raises:
        InputError: There are such names.
    """
    [(num_names, name)] = staging.run(_NAMED_TWICE)
    if num_names:
        query = """
            SELECT key, uri FROM listed WHERE mask_key = $name AND error_code IS NULL
            ORDER BY uri LIMIT 3
        """
        keys, uris = zip(*staging.run(query, {"name": name}), strict=True)
        # A manifest may name one key in two stores.
        places = keys if len(set(keys)) == len(keys) else uris
        full = "Use mask_name=full, or leave out" if mask_name != "full" else "Leave out or rename"
        raise InputError(
            f"{num_names} mask names would be used twice; the first is {name!r}, "
            f"for {' and '.join(map(repr, places))}. {full} one of them"
        )
    if local:
        _check_folders(staging)


def _check_folders(staging: Staging) -> None:
    """Refuse what a bucket can hold and a disk can't."""
    [(folder,)] = staging.run(_FILES_AND_FOLDERS)
    if folder is None:
        return
    query = "SELECT min(mask_key) FROM listed WHERE starts_with(mask_key, $folder)"
    [(name,)] = staging.run(query, {"folder": f"{folder}/"})
    raise InputError(
        f"the mask names {folder!r} and {name!r} collide on a disk, as a file and a "
        "folder; use mask_name=full, or write the output to a bucket"
    )
