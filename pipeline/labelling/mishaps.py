"""Exceptions over one image: they cost it a row, and the run only where they are everywhere.

A step that works on one image at a time catches whatever it raises. A decoder's bug, an overflow
or a value that no table can hold would otherwise end the run, and again with every rerun.
"""

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import ErrorCode, ImageError
from pipeline.redact import redacted

_log = logging.getLogger(__name__)

# Fewer may all be files of one odd kind; a bug that meets every image meets so many as well.
_EVERYWHERE = 8
_MAX_MESSAGE = 2000  # characters


class Mishaps:
    """Makes an image's error of an exception; each kind is logged once, with its traceback."""

    def __init__(self) -> None:
        """Start with none."""
        self._logged: set[tuple[str, str]] = set()

    def image_error(self, error: Exception, uri: str) -> ImageError:
        """Return what stands in the image's row.

        Args:
            error: What was raised over one image. Its traceback is not kept: it holds pictures.
            uri: The URI of the image.
        """
        if isinstance(error, ImageError):
            return ImageError(error.code, storable(error.message))
        if isinstance(error, MemoryError):
            return ImageError(
                ErrorCode.OUT_OF_MEMORY,
                "there was no memory to work on it; fewer replicas per node leave more",
            )
        self._log_once(error, uri)
        return ImageError(ErrorCode.FAILED, storable(f"{type(error).__name__}: {error}"))

    def _log_once(self, error: Exception, uri: str) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        kind = (type(error).__name__, str(place and (place[0].filename, place[0].lineno)))
        if kind in self._logged:
            return
        self._logged.add(kind)
        _log.error(
            "a bug: %s could not be labelled, and its row says so (failed); others of this kind "
            "are not logged again",
            uri,
            exc_info=error,
        )


def storable(message: str) -> str:
    """Return a message that a table can hold: of limited length, in UTF-8, without secrets.

    Args:
        message: Of any exception.
    """
    text = redacted(message[:_MAX_MESSAGE])
    return text.encode(errors="backslashreplace").decode()


def stop_if_everywhere(shard: int, images: Sequence[Mapping[str, Any]]) -> None:
    """End the run if a bug meets every image of a shard.

    Args:
        shard: Its number.
        images: Its images; those with another error say nothing about it.

    Raises:
        RuntimeError: Every image `failed` by the same exception, and there are several.
    """
    # Those that failed in an earlier run, too, are rows already: together they tell nothing new.
    failed = [
        image
        for image in images
        if image.get("error_code") == ErrorCode.FAILED and (image.get("attempts") or 1) == 1
    ]
    labelled = [image for image in images if image.get("error_code") is None]
    kinds = {str(image.get("error_message")).partition(":")[0] for image in failed}
    if len(failed) >= _EVERYWHERE and len(kinds) == 1 and not labelled:
        raise RuntimeError(
            f"shard {shard}: all {len(failed)} images that could be read failed, so the run stops "
            f"and nothing of the shard is committed; the first: {failed[0].get('error_message')}"
        )
