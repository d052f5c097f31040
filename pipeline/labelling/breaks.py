"""Breaks: what contradicts what, counted by kind, with the first ten of each."""

from collections.abc import Iterable

from pydantic import BaseModel

_MAX_SHOWN = 10


class _Kind(BaseModel):
    number: int = 0
    first: list[str] = []

    def add(self, number: int, first: Iterable[str]) -> None:
        self.number += number
        self.first = [*self.first, *first][:_MAX_SHOWN]


class Breaks(BaseModel):
    """What is broken, by kind; travels as JSON, and adds up."""

    kinds: dict[str, _Kind] = {}

    def add(self, kind: str, what: str) -> None:
        """Count one break and keep it if it is among the first ten of its kind."""
        self.kinds.setdefault(kind, _Kind()).add(1, (what,))

    def add_all(self, others: "Breaks") -> None:
        """Add the breaks of what comes next."""
        for kind, found in others.kinds.items():
            self.kinds.setdefault(kind, _Kind()).add(found.number, found.first)

    @property
    def numbers(self) -> dict[str, int]:
        """How often each kind was met."""
        return {kind: found.number for kind, found in self.kinds.items()}

    @property
    def first(self) -> dict[str, list[str]]:
        """The first ten of each kind."""
        return {kind: list(found.first) for kind, found in self.kinds.items()}

    def __bool__(self) -> bool:
        """Return whether anything is broken."""
        return bool(self.kinds)

    def __str__(self) -> str:
        """List them for a person."""
        lines = []
        for kind, found in self.kinds.items():
            lines.append(f"{kind}: {found.number}")
            lines += [f"  {what}" for what in found.first]
            if found.number > _MAX_SHOWN:
                lines.append(f"  ... and {found.number - _MAX_SHOWN} more")
        return "\n".join(lines)
