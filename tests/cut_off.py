"""Work that is cut off at a step, as by a signal, so that a test can ask what is left of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.store.storage import Storage


@contextmanager
def cut_off(method: str, after: int) -> Iterator[None]:
    """End what is within at a call of a method of `Storage`, in this process.

    Args:
        method: Its name.
        after: The calls that are answered before.

    Raises:
        Failed: There were no more calls than these (pytest's).
    """
    real, answered = getattr(Storage, method), 0

    def asked(self: Storage, *arguments: Any, **named: Any) -> Any:
        nonlocal answered
        if answered == after:
            raise KeyboardInterrupt
        answered += 1
        return real(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, method, asked)
        with pytest.raises(KeyboardInterrupt):
            yield
