"""Completion of commands and flags for shells, as a script that needs no Python when it works."""

import argparse
from collections.abc import Mapping

import shtab

from jobs.settings.flags import command_parser
from pipeline.settings.shared import NoSettings

SHELLS = ("bash", "zsh")


def completion(shell: str, commands: Mapping[str, tuple[type[NoSettings], str]]) -> str:
    """Build the script for a shell.

    Args:
        shell: One of `SHELLS`.
        commands: Settings and meaning of each command.
    """
    parser = argparse.ArgumentParser("fcn", add_help=False)
    parser.add_argument("--help", "--version", action="store_true")
    parser.add_argument("--completion", choices=SHELLS)
    under = parser.add_subparsers()
    for name, (kind, text) in commands.items():
        flags = command_parser(kind, name, completing=True)
        under.add_parser(name, parents=[flags], help=text, description=text)
    script: str = shtab.complete(parser, shell)
    return script
