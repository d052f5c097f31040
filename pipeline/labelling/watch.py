"""Who watches a run: a person, the log, and Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from pipeline.labelling.progress import Progress, has_terminal
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt
from pipeline.labelling.shard_lines import log_shard, warn_of_losses
from pipeline.labelling.shards import Shards
from pipeline.labelling.within_shards import Send
from pipeline.settings.label import LabelSettings


class Counting(Protocol):
    """Counts receipts inside a `with` block."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""

    def add(self, receipt: Receipt) -> None:
        """Count one committed shard."""


class Listening(Protocol):
    """Takes messages of replicas."""

    def send(self, message: dict[str, Any], /) -> None:
        """Send a message; travels to replicas."""

    def arrived(self) -> Iterator[dict[str, Any]]:
        """Take out the messages that have arrived."""

    def close(self) -> None:
        """End it."""


@contextmanager
def watched(run: Run, todo: Shards, settings: LabelSettings) -> Iterator["Watch"]:
    """Show what becomes of a run until the block ends.

    Args:
        run: What is labelled.
        todo: What of it is left.
        settings: They say how lines look, and how often one comes.
    """
    num_images = run.record.num_images
    num_done = num_images - todo.num_images
    begin = partial(Progress, num_images, num_done, settings.log_interval_s)
    with ExitStack() as opened:
        see: list[Callable[[Receipt], None]] = [warn_of_losses]
        if settings.log_format == "json":
            # For people there are the lines of progress.
            see.append(log_shard)
        yield Watch(begin, see, opened)


class Watch:
    """Shows receipts to all who watch."""

    def __init__(
        self,
        begin: Callable[[], Progress],
        see: list[Callable[[Receipt], None]],
        opened: ExitStack,
    ) -> None:
        """Take along who watches.

        Args:
            begin: Makes the progress.
            see: Are called with every receipt.
            opened: Ends the progress, in whatever way the work ends.
        """
        self._begin = begin
        self._see = see
        self._opened = opened
        self._progress: Progress | None = None
        self._mailbox: Listening | None = None

    def listen(self, open_mailbox: Callable[[], "Listening"]) -> Send | None:
        """Let replicas tell how far they are within their shards, where a bar shows it.

        Args:
            open_mailbox: Opens a place for their messages, until the block of `watched` ends.

        Returns:
            What they send with; None where there is no terminal.
        """
        if not has_terminal():
            return None
        self._mailbox = mailbox = open_mailbox()
        self._opened.callback(mailbox.close)
        return mailbox.send

    def count_with(self, counter: Counting) -> None:
        """Show receipts to one more, which also sees the wait for the first.

        Args:
            counter: Stands until the block of `watched` ends.
        """
        self._see.append(self._opened.enter_context(counter).add)

    def show(self, receipts: Iterable[Receipt]) -> Iterator[Receipt]:
        """Show receipts, and pass them on; the speed counts from here.

        Args:
            receipts: Of committed shards.
        """
        # Ends here, or with the block if the work fails.
        opened = self._opened.enter_context(ExitStack())
        self._progress = progress = self._begin()
        if self._mailbox is not None:
            progress.follow(self._mailbox.arrived)
        opened.enter_context(progress)
        for receipt in receipts:
            for see in (progress.add, *self._see):
                see(receipt)
            yield receipt
        opened.close()

    @property
    def images_per_s(self) -> float:
        """Images committed per second, loading of the network included; 0 if nothing was."""
        return self._progress.images_per_s if self._progress is not None else 0.0
