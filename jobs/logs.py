"""The log: lines for people, or JSON for machines, each with what it belongs to."""

import logging
import sys
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(message)s"
_JSON_FIELDS = ["levelname", "message", "name"]


class _Belonging(logging.Filter):
    """Adds run, shard and attempt to records that do not say them."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self._fields = {"run": None, "shard": None, "attempt": None, **fields}

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self._fields.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def configure(log_format: LogFormat, **fields: Any) -> None:
    """Say how the log looks from now on.

    Args:
        log_format: `text`, or `json`: one object per line.
        fields: What all lines belong to: `run`, `attempt`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_TEXT))
    if log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                [*_JSON_FIELDS, "run", "shard", "attempt"],
                timestamp="at",
                rename_fields={"levelname": "level", "name": "logger"},
            )
        )
    handler.addFilter(_Belonging(fields))
    root = logging.getLogger()
    for old in [one for one in root.handlers if getattr(one, "stream", None) is sys.stderr]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
