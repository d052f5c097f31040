"""Ground truth that is drawn: written once as masks of class indices, then read as any other."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    done, palette = storage.exists(f"{folder}/_SUCCESS"), make_palette(colours)

    def write(numbered: tuple[int, Truth]) -> str:
        uri = f"{folder}/{numbered[0]:08d}.png"
        if not done:
            storage.write(uri, encode_mask(numbered[1](), palette, _COMPRESS_LEVEL))
        return uri

    if not done:
        _log.info("drawing ground truth as masks into %s", folder)
    waiting = enumerate(truths)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(waiting, _AT_A_TIME)):
            yield from pool.map(write, some)
    if not done:
        storage.write(f"{folder}/_SUCCESS", b"")
