"""Messages of worker 0 on the driver: lines of the log, and a bar where there is a terminal."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.cluster.mailbox import Mailbox
from pipeline.errors import WaitedTooLong
from pipeline.training.plan import TrainingPlan
from pipeline.training.tracker import Track

_log = logging.getLogger(__name__)

_WAIT_S = 0.2
_BAR = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"


class Messages:
    """Shows messages while a training runs."""

    def __init__(self, plan: TrainingPlan, check: Callable[[], None], track: Track) -> None:
        """Open the way for messages.

        Args:
            plan: What is trained, on what, and how.
            check: Called again and again while the training runs; what it raises ends it.
            track: Called with the line of each evaluation.
        """
        self._check = check
        self._track = track
        self._interval_s = plan.settings.log_interval_s
        self._max_wait_minutes = plan.settings.max_wait_minutes
        self._mailbox = Mailbox()
        self._bar = (
            tqdm(total=100, unit="%", bar_format=_BAR, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        self._opened = ExitStack()
        self._said_at = self._heard_at = time.monotonic()

    def __enter__(self) -> Self:
        """Show that the work begins."""
        if self._bar is not None:
            # Lines of the log stand above the bar.
            self._opened.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the bar and the way."""
        if self._bar is not None:
            self._bar.close()
        self._opened.close()
        self._mailbox.close()

    def sender(self) -> Callable[[dict[str, Any]], None]:
        """Return what worker 0 sends with; it travels."""
        return self._mailbox.send

    def until(self, train: Callable[[], Any]) -> Any:
        """Run a training and show its messages until it ends.

        Args:
            train: Is called in a thread.

        Returns:
            Its result, or what it has raised.

        Raises:
            WaitedTooLong: The workers were silent for `max_wait_minutes`.
        """
        ended: list[Any] = []

        def run() -> None:
            try:
                ended.append(train())
            except BaseException as error:  # noqa: BLE001 - the main thread judges it
                ended.append(error)

        # A thread of its own: Ray Train would take over the signals of the main one.
        thread = threading.Thread(target=run, name="ray-train", daemon=True)
        thread.start()
        while thread.is_alive():
            self._check()
            self._show_all()
            self._mind_silence()
            thread.join(_WAIT_S)
        self._show_all()
        return ended[0]

    def _show_all(self) -> None:
        for message in self._mailbox.arrived():
            self._show(message)

    def _mind_silence(self) -> None:
        now = time.monotonic()
        silence_s = now - self._heard_at
        if silence_s > 60 * self._max_wait_minutes:
            raise WaitedTooLong(
                f"the workers have made no progress for {self._max_wait_minutes:g} minutes "
                "(max_wait_minutes): they wait for nodes, or hang; see `ray status`"
            )
        if silence_s >= self._interval_s and now - self._said_at >= self._interval_s:
            self._said_at = now
            _log.info(
                "nothing from the workers for %.0f s: they are started, evaluate, or wait for room",
                silence_s,
            )

    def _show(self, message: dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        if "say" in message:
            _log.info("%s", message["say"])
        elif "evaluation" in message:
            _log.info("%s", _evaluation_line(message["evaluation"]))
            self._track(message["evaluation"])
        elif self._bar is not None:
            self._bar.set_postfix(
                loss=f"{message['loss']:.4g}", step=message["step"], refresh=False
            )
            self._bar.update(100 * message["share"] - self._bar.n)
        elif time.monotonic() - self._said_at >= self._interval_s:
            self._said_at = time.monotonic()
            _log.info("%s", _progress_line(message))


def _progress_line(message: dict[str, Any]) -> str:
    of = f" of {message['of']}" if message["of"] else ""
    return f"step {message['step']}{of}, {message['share']:.0%} done, loss {message['loss']:.4g}"


def _evaluation_line(line: dict[str, Any]) -> str:
    text = (
        f"epoch {line['epoch']:g}, step {line['step']}: loss {line['loss']:.4g}, rate "
        f"{line['learning_rate']:.3g}, {line['images_per_s']:.1f} images/s"
    )
    if "mean_iu" not in line:
        return text
    best = ", the best so far" if line["best"] else ""
    return (
        f"{text}; val: loss {line['val_loss']:.4g}, mean IU {line['mean_iu']:.4f}, pixel accuracy "
        f"{line['pixel_accuracy']:.4f}{best}"
    )
