"""The flags of a command, made of its settings: for parsing, --help, completion and the docs."""

import argparse
import re
from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from jobs.settings.mistakes import OneLineParser, refuse_left_over
from pipeline.errors import SettingError
from pipeline.settings.shared import Group, Mark, NoSettings

PREFIX = "FCN_"
CONFIG = "config"
CONFIG_HELP = "YAML file with settings (local or in a bucket); flags and FCN_... override it"
# What a flag says to give up what file or environment have set.
_NONE = "null"
# At the end of a word, which may be a name and a range in quotes.
_RANGE = re.compile(r"(?:^|\s)[\d.]*\.\.[\d.]*$")


def variable_of(name: str) -> str:
    """Return the environment variable of a setting, by its name in Python."""
    return PREFIX + name.rstrip("_").upper()


@dataclass(frozen=True)
class Setting:
    """One field, as people type it.

    Attributes:
        name: In Python and in the config file.
        field: As it is declared.
    """

    name: str
    field: FieldInfo

    @property
    def flag(self) -> str:
        """Its flag; names that Python has taken are written with a _ behind them (PEP 8)."""
        return f"--{self.name.rstrip('_').replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable_of(self.name)

    @property
    def positional(self) -> bool:
        """Return whether it is an argument without a flag."""
        return Mark.POSITIONAL in self.field.metadata

    @property
    def optional(self) -> bool:
        """Return whether None is a value of it."""
        return NoneType in get_args(self.field.annotation)

    @property
    def _type(self) -> Any:
        found = self.field.annotation
        if get_origin(found) in (Union, UnionType):
            [found] = (one for one in get_args(found) if one is not NoneType)
        return get_args(found)[0] if get_origin(found) is Annotated else found

    @property
    def switch(self) -> bool:
        """Return whether its flag takes no value and has a twin with `no-`."""
        return self._type is bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be; empty if it is something else."""
        return get_args(self._type) if get_origin(self._type) is Literal else ()

    @property
    def several(self) -> bool:
        """Return whether it is a sequence of values."""
        return get_origin(self._type) is tuple

    @property
    def two_words(self) -> bool:
        """Return whether its flag takes a name and a range."""
        return Mark.TWO_WORDS in self.field.metadata

    @property
    def metavar(self) -> str:
        """What stands for its value."""
        if self.two_words:
            return "TEXT FLOAT..FLOAT"
        if self.choices:
            return f"{{{','.join(self.choices)}}}"
        if not self.several:
            return {str: "TEXT", int: "INT", float: "FLOAT"}[self._type]
        first, *others = get_args(self._type)
        one = {int: "INT", float: "FLOAT"}[first]
        return f"{one}S" if Ellipsis in others else ",".join([one] * (1 + len(others)))

    @property
    def default(self) -> str | None:
        """Its default in words; None if it has to be given or the text says what is done."""
        value = self.field.default
        if self.field.is_required() or value is None:
            return None
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return ",".join(f"{one:g}" for one in value)
        return f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def help(self) -> str:
        """Its meaning, with its default."""
        text = self.field.description or ""
        if self.field.is_required():
            return f"{text} (required)"
        return text if self.default is None else f"{text} (default: {self.default})"


def settings_of(kind: type[NoSettings]) -> dict[Group, list[Setting]]:
    """Return the fields of a command under their headings."""
    return {
        group: [Setting(name, kind.model_fields[name]) for name in names]
        for group, names in kind.groups().items()
    }


def command_parser(
    kind: type[NoSettings], command: str, *, completing: bool = False
) -> argparse.ArgumentParser:
    """Build the parser of a command, with its flags under their headings.

    Args:
        kind: Class of its settings.
        command: For the usage line.
        completing: Whether it is for a shell, which is told the choices. They are checked with
            all other values, wherever those come from.
    """
    groups = settings_of(kind)
    every = [one for some in groups.values() for one in some]
    words = [*_positionals(every), "[FLAGS]"]
    parser = OneLineParser(
        f"fcn {command}",
        usage=" ".join([f"fcn {command}", *words]),
        description=kind.__doc__,
        allow_abbrev=False,
        add_help=not completing,
    )
    for place, (group, some) in enumerate(groups.items()):
        heading = parser.add_argument_group(group.value)
        for setting in some:
            action = _add(heading, setting)
            if completing and setting.choices:
                action.choices = setting.choices
        if place == 0:
            common: dict[str, Any] = {"default": argparse.SUPPRESS, "help": CONFIG_HELP}
            heading.add_argument(f"--{CONFIG}", metavar="TEXT", action="append", **common)
    return parser


def _add(heading: argparse._ArgumentGroup, setting: Setting) -> argparse.Action:
    # Argparse formats help with %; of what was not given it shall say nothing.
    common: dict[str, Any] = {
        "help": setting.help.replace("%", "%%"),
        "default": argparse.SUPPRESS,
    }
    if setting.positional:
        name = setting.name
        return heading.add_argument(name, metavar=name.upper(), nargs="?", **common)
    common["dest"] = setting.name
    if setting.switch:
        return heading.add_argument(setting.flag, action=argparse.BooleanOptionalAction, **common)
    if setting.two_words:
        words = tuple(setting.metavar.split())
        return heading.add_argument(setting.flag, metavar=words, nargs=2, action="append", **common)
    return heading.add_argument(setting.flag, metavar=setting.metavar, action="append", **common)


def parse(kind: type[NoSettings], command: str, argv: Sequence[str]) -> dict[str, Any]:
    """Parse flags to values that are yet to be checked, `config` among them.

    Args:
        kind: Class of the settings.
        command: For the usage line.
        argv: Flags.

    Raises:
        SettingError: Flags that do not parse, or that the command has not.
        SystemExit: After --help, with 0.
    """
    every = [one for some in settings_of(kind).values() for one in some]
    words = _in_two_words(_with_values(kind, argv), {one.flag for one in every if one.two_words})
    found, left_over = command_parser(kind, command).parse_known_args(words)
    refuse_left_over(left_over, command, _flags(every), _positionals(every))
    several = {one.name for one in every if one.several}
    given = {
        name: value if name in several else _only(name, value)
        for name, value in vars(found).items()
    }
    for setting in every:
        value = given.get(setting.name)
        if setting.two_words and value is not None:
            given[setting.name] = " ".join(value)
        if setting.several and value is not None:
            given[setting.name] = _numbers(" ".join(value))
        if setting.optional and value in (_NONE, [_NONE]):
            given[setting.name] = None
    return given


def _only(name: str, values: Any) -> Any:
    """Return the value of a flag; of two, one would be lost unseen. Raises SettingError."""
    if isinstance(values, list) and len(values) > 1:
        flag = name.rstrip("_").replace("_", "-")
        raise SettingError(f"--{flag} is given twice; it takes one value")
    return values[0] if isinstance(values, list) else values


def _flags(settings: Sequence[Setting]) -> list[str]:
    return [f"--{CONFIG}", *(one.flag for one in settings if not one.positional)]


def _positionals(settings: Sequence[Setting]) -> list[str]:
    return [one.name.upper() for one in settings if one.positional]


def _with_values(kind: type[NoSettings], argv: Sequence[str]) -> list[str]:
    """Write the value of a switch behind flags that stand alone and need not."""
    alone = {f"--{name.replace('_', '-')}" for name in kind.marked(Mark.VALUE_OPTIONAL)}
    words: list[str] = []
    for word, following in zip(argv, [*argv, "--"][1:], strict=True):
        words += [word, "yes"] if word in alone and following.startswith("--") else [word]
    return words


def _in_two_words(argv: Sequence[str], flags: Container[str]) -> list[str]:
    """Write name and range as two words, be they quoted together, or names of several words not."""
    words: list[str] = []
    left = deque(argv)
    while left:
        words.append(left.popleft())
        values = takewhile(lambda one: not one.startswith("--"), left if words[-1] in flags else ())
        end = next((at for at, word in enumerate(values, 1) if _RANGE.search(word)), 0)
        value = " ".join(left.popleft() for _ in range(end))
        words += filter(None, value.rpartition(" ")[::2]) if end else ()
    return words


def of_environment(kind: type[NoSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    """Read what the environment says; a variable that is set to nothing says nothing.

    Args:
        kind: Class of the settings.
        environ: Environment variables.
    """
    return {
        one.name: _numbers(environ[one.variable]) if one.several else environ[one.variable]
        for some in settings_of(kind).values()
        for one in some
        if environ.get(one.variable)
    }


def _numbers(text: str) -> list[int | float | str]:
    """Read numbers as people type them, 0.75,1 or [0.75, 1]; what is none is refused later."""
    words = re.split(r"[\s,]+", re.sub(r"[\[\]]", " ", text).strip())
    return [_number(word) for word in words if word]


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
