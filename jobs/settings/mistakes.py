"""What people mistype on a command line, and the sentence that helps each time."""

import argparse
import difflib
import os
from collections.abc import Iterable, Sequence
from typing import NoReturn

from pipeline.errors import SettingError


class OneLineParser(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence, without the usage of many lines above it."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line that does not parse. Raises SettingError."""
        raise SettingError(f"{message}; {self.prog} --help lists the flags")


def similar(word: str, known: Iterable[str]) -> str:
    """Ask for the word that was meant; nothing where none is like it.

    Args:
        word: As it was typed.
        known: The words that there are.
    """
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


def refuse_left_over(
    left_over: Sequence[str], command: str, flags: Sequence[str], positionals: Sequence[str]
) -> None:
    """Refuse words of a command line that nothing has taken.

    Args:
        left_over: The words, in order.
        command: The command.
        flags: Its flags, each with its dashes.
        positionals: What it takes without a flag, as in OUTPUT.

    Raises:
        SettingError: There are such words.
    """
    if not left_over:
        return
    unknown = [word for word in left_over if word.startswith("-") and word != "--"]
    if unknown:
        raise SettingError(_unknown_flag(unknown[0], command, flags, positionals))
    words = [word for word in left_over if word != "--"] or list(left_over)
    raise SettingError(_stray(words, command, flags, positionals))


def _unknown_flag(word: str, command: str, flags: Sequence[str], positionals: Sequence[str]) -> str:
    name = word.partition("=")[0]
    meant = name.lstrip("-").upper()
    if meant in positionals:
        return f"{name} is not a flag: give {meant} as it is, as in `fcn {command} {meant}`"
    hint = similar("--" + name.lstrip("-").replace("_", "-"), flags)
    more = "" if hint else f"; fcn {command} --help lists those there are"
    return f"fcn {command} has no flag {name}{hint}{more}"


def _stray(
    words: Sequence[str], command: str, flags: Sequence[str], positionals: Sequence[str]
) -> str:
    shown = ", ".join(repr(word) for word in words[:3]) + (" ..." if len(words) > 3 else "")
    if "--input" in flags and any(os.path.exists(word) for word in words):
        return (
            f"{shown}: behind no flag, or more than one file behind one; give images as --input "
            "FOLDER, and quote a pattern, as in --input 'photos/*.jpg', which the shell writes out"
        )
    if positionals:
        usage = " ".join(["fcn", command, *positionals])
        return f"{shown}: more than `{usage}` takes; give one at a time"
    return (
        f"{shown} belongs to no flag; give each value behind its flag, with quotes if it has "
        f"spaces or *; fcn {command} --help lists the flags"
    )
