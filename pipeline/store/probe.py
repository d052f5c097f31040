"""Whether an output can be written, and how safely."""

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipeline.errors import InputError, SettingError, StoreError, UnsupportedError
from pipeline.store.storage import Storage
from pipeline.store.uri import BUCKETS, local_path

_log = logging.getLogger(__name__)


def writable_storage(storage: Storage, output: str) -> Storage:
    """Find out whether an output can be written, and how safely.

    Args:
        storage: Reads and writes the output.
        output: URI of a folder.

    Returns:
        The storage, which knows whether it has put-if-absent.

    Raises:
        SettingError: The output can't be written.
        StoreError: The store does not answer.
    """
    with naming_place("output", output):
        conditional_put = probe_conditional_put(storage, output)
    if not conditional_put:
        _log.warning(
            "THE STORE IGNORES %s: %s. Commits are safe only while one process "
            "writes; this run relies on its lock for that.",
            "x-goog-if-generation-match" if output.startswith("gs://") else "If-None-Match",
            output,
        )
    return replace(storage, conditional_put=conditional_put)


def refuse_file(setting: str, uri: str) -> None:
    """Refuse a place on a disk where a file is, or that is below one; looks, and writes nothing.

    Args:
        setting: Its name.
        uri: Its value, which is to be a folder.

    Raises:
        SettingError: No folder can be there.
    """
    if uri.startswith(BUCKETS):
        return
    there = local_path(uri)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if os.path.exists(there) and not os.path.isdir(there):
        raise SettingError(
            f"{setting}={uri!r}: {there} is a file, and a folder is wanted; name another"
        )


@contextmanager
def naming_place(setting: str, uri: str) -> Iterator[None]:
    """Say which setting names a place that can't be written, where trying again can't help.

    Args:
        setting: Its name.
        uri: Its value.

    Raises:
        SettingError: The place can't be written.
        StoreError: The store does not answer.
    """
    try:
        yield
    except InputError as error:  # a folder has the name of a file
        raise SettingError(f"{setting}={uri!r} can't be written: {error}") from error
    except StoreError as error:
        if uri.startswith(BUCKETS) and not error.refused:
            raise
        raise SettingError(
            f"{setting}={uri!r} can't be written: {error}; is there such a bucket or disk, and "
            "may you write there?"
        ) from error


def probe_conditional_put(storage: Storage, output: str) -> bool:
    """Find out whether the store honours `If-None-Match: *`, or what it has in its place.

    The probe is one object that stays, written twice at most with different bytes.

    Args:
        storage: With `conditional_put` True.
        output: Whose store is probed; `locks/probe` is created there.

    Returns:
        Whether the second write was refused.

    Raises:
        StoreError: The output can't be written.
    """
    uri = f"{output}/locks/probe"
    question = b"This object stands for the question whether put-if-absent works here.\n"
    try:
        storage.create(uri, question)
        return not storage.create(uri, uuid.uuid4().hex.encode())
    except UnsupportedError:
        storage.write(uri, question)
        return False
