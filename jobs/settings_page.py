"""docs/settings.md, made of the settings' classes: `make docs-settings` writes it."""

from collections.abc import Iterator

from jobs.__main__ import COMMANDS
from jobs.logs.output import say
from jobs.settings.flags import CONFIG_HELP, Setting, settings_of
from pipeline.settings.shared import NoSettings

_HEAD = f"""# Settings

This page is made of the settings' classes by `make docs-settings`; a test compares the two.

A setting is given as a flag, as an environment variable, or by its name in the YAML file that
`--config` (or `FCN_CONFIG`) names. The file is overruled by the environment, and that by flags;
unknown names are errors everywhere.

* `--config TEXT`: {CONFIG_HELP}.
  One file may serve all commands: each takes what is its own.
* In the file a setting has the name of its flag with `_` for `-`: `batch_size: 16`.
* A switch is set by its flag and unset by the flag with `no-`: `--no-flip`. Its variable is `true`
  or `false`.
* Several numbers have commas between them: `--scales 0.75,1,1.25`. In the file they are a list.
* `null` as the value of a flag gives up what file or environment have set, where a setting may be
  without a value.
* Variables that are set to nothing count as not set.
* Bash and zsh complete commands, flags and choices after
  `fcn --completion bash > ~/.local/share/bash-completion/completions/fcn`.
"""


def document() -> str:
    """Write the page."""
    parts = [_HEAD]
    seen: dict[type[NoSettings], str] = {}
    for name, command in COMMANDS.items():
        parts.append("\n".join([f"## fcn {name}", "", *_section(command.settings, seen)]) + "\n")
        seen.setdefault(command.settings, name)
    return "\n".join(parts)


def _section(kind: type[NoSettings], seen: dict[type[NoSettings], str]) -> Iterator[str]:
    """Write what a command adds to the settings of the one before that it builds upon."""
    base = next((one for one in kind.__mro__ if one in seen and one.model_fields), None)
    own = {
        group: [one for one in some if base is None or one.name not in base.model_fields]
        for group, some in settings_of(kind).items()
    }
    if not kind.model_fields:
        yield "It has no settings."
        return
    yield kind.__doc__ or ""
    if base is not None:
        more = ", and these" if any(own.values()) else ""
        yield f"They are [those of `{seen[base]}`](#fcn-{seen[base]}){more}."
    for group, some in own.items():
        if some:
            yield from ("", f"### {group.value}", "", *_table(some))


def _table(settings: list[Setting]) -> Iterator[str]:
    yield "| flag | environment variable | value | default | unit and meaning |"
    yield "|---|---|---|---|---|"
    for one in settings:
        given = f"`{one.name.upper()}`, without a flag" if one.positional else f"`{one.flag}`"
        value = "switch" if one.switch else " ".join(f"`{word}`" for word in _words(one))
        cells = (given, f"`{one.variable}`", value, _default(one), one.field.description or "")
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _words(setting: Setting) -> tuple[str, ...]:
    return setting.choices or (setting.metavar,)


def _default(setting: Setting) -> str:
    if setting.field.is_required():
        return "required"
    return "" if setting.default is None else f"`{setting.default}`"


if __name__ == "__main__":
    say(document(), end="")
