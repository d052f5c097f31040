"""Threads that watch Ray, until a command ends it itself."""

import threading
from collections.abc import Callable


class Watcher(threading.Thread):
    """Watches Ray beside the work of a process."""

    def __init__(self, watch: Callable[["Watcher"], None]) -> None:
        """Prepare to watch.

        Args:
            watch: What is done; is given this, to ask whether Ray's end still matters.
        """
        super().__init__(name="head", daemon=True)
        self._watch = watch
        self._dismissed = threading.Event()

    def run(self) -> None:
        """Watch."""
        self._watch(self)

    @property
    def on_duty(self) -> bool:
        """Whether Ray's end would be a loss."""
        return not self._dismissed.is_set()

    def dismiss(self) -> None:
        """Let Ray's end be what is wanted from now on."""
        self._dismissed.set()


def dismiss_watchers() -> None:
    """Dismiss all that watch in this process."""
    for thread in threading.enumerate():
        if isinstance(thread, Watcher):
            thread.dismiss()
