"""A disk as a store; its errors are translated here."""

import errno
import logging
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn

import fsspec

from pipeline.errors import ErrorCode, InputError, StoreError, UnsupportedError
from pipeline.store.attempts import Tally
from pipeline.store.entry import Entry, changed_since, check_part, check_size
from pipeline.store.uri import BUCKETS, local_path

_log = logging.getLogger(__name__)

# File systems that know no fsync of folders, as some of those in user space; and folders that may
# be written to and not read.
_NO_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# A write goes to such a name first, which tells leftovers of killed processes from masks.
_TEMPORARY = ".fcn-tmp-"
_MAX_SHOWN = 200
_LEFTOVER = re.compile(r"\.fcn-tmp-[0-9a-f]{12}")
# Names that no file can have, or that lead in a circle.
_NO_NAME = {errno.ELOOP, errno.ENAMETOOLONG}
_NO_SUCH_NAMES = {errno.EINVAL, errno.EILSEQ}
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, *_NO_NAME}
# What file systems keep for themselves, and let nobody into.
_OF_THE_DISK = "lost+found"


class Local:
    """A disk. Link and rename make a file appear whole, or not at all, also after a power cut."""

    def __init__(self, requests: Tally) -> None:
        """Open it.

        Args:
            requests: Counts what a bucket would be asked for the same.
        """
        self._requests = requests

    def read(
        self,
        uri: str,
        version: str | None,
        max_bytes: int | None,
        num_bytes: int | None = None,  # noqa: ARG002 - the version has the size in it
    ) -> bytes:
        """Implement `Storage.read_version`."""
        self._requests.count("read")
        path = local_path(uri)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is not a regular file")
            with fsspec.filesystem("file").open(path, "rb") as file:
                check_size(uri, os.fstat(file.fileno()).st_size, max_bytes)
                before = _local_version(os.fstat(file.fileno()))
                # A file of the kernel's without a size may keep who reads it waiting for ever.
                data: bytes = file.read() if os.fstat(file.fileno()).st_size else b""
                after = _local_version(os.fstat(file.fileno()))
        except OSError as error:
            _raise_local(error, uri)
        if version is not None and not version == before == after:
            raise changed_since(uri, version, after)
        return data

    def read_span(self, uri: str, span: range, version: str | None = None) -> bytes:
        """Implement `Storage.read_extent`, and with a version as `Storage.read_version_of`."""
        self._requests.count("read")
        path = local_path(uri)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is not a regular file")
            with fsspec.filesystem("file").open(path, "rb") as file:
                before = _local_version(os.fstat(file.fileno()))
                file.seek(span.start)
                data: bytes = file.read(len(span))
                after = _local_version(os.fstat(file.fileno()))
        except OSError as error:
            _raise_local(error, uri)
        if version is not None:
            if not version == before == after:
                raise changed_since(uri, version, after)
            check_part(uri, span, data)
        return data

    def write(self, uri: str, data: bytes) -> None:
        """Implement `Storage.write`."""
        self._requests.count("write")
        path = local_path(uri)
        try:
            _named(os.replace, _write_temporary(path, data), path)
            _keep_names(os.path.dirname(path))
        except OSError as error:
            _raise_local(error, uri)

    def create(self, uri: str, data: bytes) -> bool:
        """Implement `Storage.create`, but an answer that was lost counts as False."""
        self._requests.count("write")
        path = local_path(uri)
        try:
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if os.path.lexists(path):
                # Who put it there may have died before that.
                _keep_names(os.path.dirname(path))
                return False
            temporary = _write_temporary(path, data)
            try:
                _named(os.link, temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise UnsupportedError(
                        ErrorCode.TIMEOUT, f"{uri}: this disk has no hard links"
                    ) from error
                raise
            finally:
                os.unlink(temporary)
                _keep_names(os.path.dirname(path))
        except OSError as error:
            _raise_local(error, uri)
        return True

    def stat(self, uri: str) -> Entry:
        """Implement `Storage.stat`."""
        self._requests.count("look")
        try:
            found = os.stat(local_path(uri))
        except OSError as error:
            if error.errno in _NO_SUCH_NAMES:
                raise StoreError(ErrorCode.NOT_FOUND, f"{uri} does not exist") from error
            _raise_local(error, uri)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is not a regular file")
        return Entry(uri, _local_version(found), found.st_size)

    def lists(self, uri: str) -> bool:
        """Implement `Storage.lists`."""
        folder, _, name = uri.rpartition("/")
        return name in self.children(folder)

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        """Implement `Storage.walk`."""
        self._requests.count("list")

        for folder, _, names in os.walk(local_path(folder_uri), onerror=_pass_over_or_refuse):
            for name in names:
                if entry := _listed(os.path.join(folder, name)):
                    yield entry

    def children(self, folder_uri: str) -> list[str]:
        """Implement `Storage.children`."""
        self._requests.count("list")
        try:
            return sorted(name for name in os.listdir(local_path(folder_uri)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            _raise_local(error, folder_uri)

    def remove(self, uri: str) -> None:
        """Implement `Storage.remove`."""
        self._requests.count("write")
        self._remove(local_path(uri))

    def remove_folder(self, folder_uri: str) -> None:
        """As `Storage.remove_folder`; the folder goes, too."""
        self._requests.count("write")
        path = local_path(folder_uri).rstrip("/")
        # What others remove meanwhile is gone as well.
        for folder, folders, names in os.walk(os.path.realpath(path), topdown=False):
            for name in (*names, *folders, ""):
                self._remove(os.path.join(folder, name).rstrip("/"))
        self._remove(path)

    def remove_leftovers(self, folder_uri: str) -> None:
        """Implement `Storage.remove_leftovers`."""
        for folder, _, names in os.walk(local_path(folder_uri)):
            for name in names:
                if _LEFTOVER.fullmatch(name):
                    self._remove(os.path.join(folder, name))

    def _remove(self, path: str) -> None:
        try:
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            (os.rmdir if is_folder else os.unlink)(path)
        except FileNotFoundError:
            pass  # another process removes leftovers too
        except OSError as error:
            _raise_local(error, f"file://{path}")


def is_folder(uri: str) -> bool:
    """Return whether a folder of a disk has a name; in a bucket both may have it.

    Args:
        uri: The name of what should be a file.
    """
    return not uri.startswith(BUCKETS) and os.path.isdir(local_path(uri))


def folder_in_the_way(uri: str) -> InputError:
    """Build the error for a folder where a file belongs: until it is moved no rerun helps.

    Args:
        uri: The name of both.
    """
    return InputError(f"{uri} is to be a file, and a folder has its name; move it elsewhere")


def _listed(path: str) -> Entry | None:
    """Look at what a folder names; None if there is no file. Raises StoreError."""
    try:
        found = os.stat(path)
    except PermissionError:
        # A link into a folder that may not be entered: its version is not known.
        return Entry(f"file://{path}", "", 0)
    except OSError as error:
        if error.errno in _NOWHERE:
            return None  # removed since, or a link to nowhere
        _raise_local(error, f"file://{path}")
    if not stat.S_ISREG(found.st_mode):
        return None
    return Entry(f"file://{path}", _local_version(found), found.st_size)


def _pass_over_or_refuse(error: OSError) -> None:
    """Take a folder that can't be listed for an error, unless nobody's images can lie in it."""
    path: str = error.filename
    if error.errno != errno.ENAMETOOLONG and os.path.basename(path) != _OF_THE_DISK:
        _raise_local(error, f"file://{path}")
    _log.warning("a folder is passed over: %s: ...%s", error.strerror, path[-_MAX_SHOWN:])


def _raise_local(error: OSError, uri: str) -> NoReturn:
    if isinstance(error, IsADirectoryError):
        raise folder_in_the_way(uri) from error
    if isinstance(error, NotADirectoryError):
        message = f"{uri}: a part of the path is a file, not a folder"
        raise StoreError(ErrorCode.NOT_FOUND, message) from error
    if isinstance(error, FileNotFoundError):
        raise StoreError(ErrorCode.NOT_FOUND, f"{uri} does not exist") from error
    reason = error.strerror or str(error)
    if error.errno in _NO_NAME:
        raise StoreError(ErrorCode.NOT_FOUND, f"{uri}: {reason}") from error
    if isinstance(error, PermissionError):
        raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: {reason}") from error
    raise StoreError(ErrorCode.TIMEOUT, f"{uri}: {reason}") from error


def _local_version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns}-{found.st_size}"


def _keep_names(folder: str) -> None:
    """Let the names in a folder outlive a power cut: a commit must not stand without its masks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _named(make: Callable[..., None], *paths: str) -> None:
    """Give a file or folder its name, where there is room for others: raises StoreError."""
    try:
        make(*paths)
    except OSError as error:
        if error.errno not in _NO_SUCH_NAMES:
            raise
        raise StoreError(
            ErrorCode.NAME_REFUSED,
            f"file://{paths[-1]}: the disk can't hold such a name ({error.strerror}), as FAT and "
            'SMB hold none with ? * : " < > |; rename the image, or write to another disk',
        ) from error


def _make_folder(folder: str) -> None:
    """Make a folder, and those above it, so that each outlives a power cut."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above)
    # Others make it at the same time.
    with suppress(FileExistsError):
        _named(os.mkdir, folder)
    _keep_names(above)


def _write_temporary(path: str, data: bytes) -> str:
    folder = os.path.dirname(path)
    _make_folder(folder)
    temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex[:12]}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            # Else a power cut can leave the name without the bytes.
            os.fsync(file.fileno())
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return temporary
