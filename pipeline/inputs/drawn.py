"""What is made of a data set before it is used: written once, then read as any other file."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.images.masks import encode_mask, make_palette
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

_THREADS = 8
_AT_A_TIME = 64
_COMPRESS_LEVEL = 1

Truth = Callable[[], NDArray[np.uint8]]


def write_truths(
    storage: Storage,
    folder: str,
    truths: Iterable[Truth],
    colours: Sequence[tuple[int, int, int]],
) -> Iterator[str]:
    """Draw and write ground truth, some at a time, unless a command before this one has.

    Args:
        storage: Where to.
        folder: Named by all that decides the truths.
        truths: Each draws one.
        colours: The colours of the classes.

    Yields:
        The URI of each, in order.

    Raises:
        PipelineError: What drawing and writing raise.
    """
    palette = make_palette(colours)
    files = (partial(_drawn, truth, palette) for truth in truths)
    return write_once(storage, folder, files, "drawing ground truth as masks", ".png")


def _drawn(truth: Truth, palette: bytes) -> bytes:
    return encode_mask(truth(), palette, _COMPRESS_LEVEL)


def write_once(
    storage: Storage,
    folder: str,
    files: Iterable[Callable[[], bytes]],
    what: str,
    ending: str = "",
) -> Iterator[str]:
    """Make and write files, some at a time, unless a command before this one has.

    Args:
        storage: Where to.
        folder: Named by all that decides the files.
        files: Each makes one.
        what: What is done, for the log.
        ending: Of the files' names.

    Yields:
        The URI of each, in order.

    Raises:
        PipelineError: What making and writing raise.
    """
    done = storage.exists(f"{folder}/_SUCCESS")

    def write(numbered: tuple[int, Callable[[], bytes]]) -> str:
        uri = f"{folder}/{numbered[0]:08d}{ending}"
        if not done:
            storage.write(uri, numbered[1]())
        return uri

    if not done:
        _log.info("%s into %s", what, folder)
    waiting = enumerate(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(waiting, _AT_A_TIME)):
            yield from pool.map(write, some)
    if not done:
        storage.write(f"{folder}/_SUCCESS", b"")
