"""The log on stderr: lines for people, or JSON for machines, each with what it belongs to."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from jobs.logs.stderr_lines import stderr_as_lines
from pipeline.log_context import belong_to_no_run, belonging
from pipeline.redact import redacted
from pipeline.settings.shared import LogFormat

_FIELDS = ("levelname", "name", "message")
_NAMES = {"levelname": "level", "name": "logger", "exc_info": "traceback"}


@contextmanager
def log_to_stderr(log_format: LogFormat) -> Iterator[None]:
    """Log what a command and its libraries have to say, until the block ends.

    Args:
        log_format: Until `configure` is told another one.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    # It says where it found credentials, at every start.
    for name in ("aiobotocore", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with ExitStack() as opened:
        opened.callback(logging.captureWarnings, capture=False)
        logging.captureWarnings(capture=True)
        handler = _Handler(opened)
        root.addHandler(handler)
        opened.callback(root.removeHandler, handler)
        opened.callback(belong_to_no_run)
        configure(log_format)
        yield


def configure(log_format: LogFormat) -> None:
    """Say how lines look from now on.

    Args:
        log_format: `text` or `json`.
    """
    for handler in _handlers():
        handler.setFormatter(_formatter(log_format))
        if log_format == "json":
            handler.take_all()


class _Handler(logging.StreamHandler[Any]):
    """Writes lines to stderr."""

    def __init__(self, opened: ExitStack) -> None:
        super().__init__(sys.stderr)
        self._opened = opened
        self._takes_all = False

    def take_all(self) -> None:
        """Make lines, too, of what is written to stderr past all logging."""
        if not self._takes_all:
            self._takes_all = True
            self.setStream(self._opened.enter_context(stderr_as_lines(_tell)))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        """Stay silent where nobody reads any more: a complaint would be a line again, for ever."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _tell(line: str) -> None:
    logging.getLogger("stderr").warning("%s", line)


def _handlers() -> list[_Handler]:
    return [one for one in logging.getLogger().handlers if isinstance(one, _Handler)]


def _formatter(log_format: LogFormat) -> logging.Formatter:
    if log_format == "text":
        return _Text("%(asctime)s %(levelname)s %(message)s")
    return _Json(_FIELDS, rename_fields=_NAMES, timestamp=True)


class _Text(logging.Formatter):
    """Lines for people, without secrets in what libraries say."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class _Json(JsonFormatter):
    """One object per line, without secrets in what libraries say."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data.update(belonging())
        super().add_fields(log_data, record, message_dict)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {
            name: redacted(value) if isinstance(value, str) else value
            for name, value in log_data.items()
        }
