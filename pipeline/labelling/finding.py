"""A finding: what was looked at, what was found, and what to do about it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    CHANGE = "CHANGE"


@dataclass(frozen=True)
class Finding:
    """One line of the table; `remedy` stands wherever something is to be, or could be, changed."""

    subject: str
    level: Level
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, Level.OK, found)


def note(subject: str, found: str, remedy: str) -> Finding:
    """The job runs, but could run better or safer."""
    return Finding(subject, Level.NOTE, found, remedy)


def change(subject: str, found: str, remedy: str) -> Finding:
    """The job would fail."""
    return Finding(subject, Level.CHANGE, found, remedy)


def as_table(findings: Iterable[Finding]) -> Iterator[str]:
    """Lay findings out for a person, each remedy below its finding.

    Args:
        findings: In the order of the table.
    """
    rows = list(findings)
    width = max((len(row.subject) for row in rows), default=0)
    for row in rows:
        yield f"{row.level:<6}  {row.subject:<{width}}  {row.found}"
        if row.remedy:
            yield f"{'':<6}  {'':<{width}}  -> {row.remedy}"
