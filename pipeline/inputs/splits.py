"""Splits of a data set's own images: by pattern, by share, or in folds; groups stay whole.

Images of one drive, patient or place are alike. A split that divides them flatters whoever is
judged by it, so what belongs together goes to one side.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import SettingError
from pipeline.inputs.samples import Sample
from pipeline.wording import count

_log = logging.getLogger(__name__)

Parts = tuple[list[Sample], list[Sample]]


@dataclass(frozen=True)
class Fold:
    """One of several parts, each of which is held out once.

    Attributes:
        index: From 0.
        number: How many there are.
    """

    index: int
    number: int

    @staticmethod
    def parse(text: str) -> "Fold":
        """Read `0/5`, the first of five. Raises SettingError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not int(found[1]) < int(found[2]) or int(found[2]) < 2:
            raise SettingError(f"a fold is K/N, from 0/N to N-1/N with N from 2 up, not {text!r}")
        return Fold(int(found[1]), int(found[2]))


def by_pattern(samples: Sequence[Sample], pattern: str, field: str) -> Parts:
    """Divide samples into those whose image's URI does not match, and those whose does.

    Args:
        samples: All of them.
        pattern: A regular expression, looked for anywhere in the URI.
        field: The setting, for messages.

    Raises:
        SettingError: It is no regular expression, or one of the parts is empty.
    """
    look = _compiled(pattern, field)
    chosen = [bool(look.search(sample.image_uri)) for sample in samples]
    if chosen and all(chosen):
        raise SettingError(_matches_all(look, samples, field) + ": none would be left to train on")
    return _checked(samples, chosen, f"{field}={pattern!r}")


def matching(samples: Sequence[Sample], pattern: str) -> list[Sample]:
    """Return the samples whose image's URI a regular expression matches.

    That all of them do is a warning: training could not have held them out.

    Raises:
        SettingError: It is none, or no URI matches.
    """
    look = _compiled(pattern, "val_match")
    found = [sample for sample in samples if look.search(sample.image_uri)]
    if not found:
        raise SettingError(
            f"val_match={pattern!r} matches none of {len(samples)} images, such as "
            f"{samples[0].image_uri}"
        )
    if len(found) == len(samples):
        _log.warning(
            "%s: train with the same setting would have none to train on",
            _matches_all(look, samples, "val_match"),
        )
    return found


def _matches_all(look: re.Pattern[str], samples: Sequence[Sample], field: str) -> str:
    """Say that a pattern divides nothing, and by what: names of folders count, too."""
    uri = samples[0].image_uri
    found = look.search(uri)
    assert found is not None
    return (
        f"{field}={look.pattern!r} matches all {count(len(samples), 'image')}, such as "
        f"{found[0]!r} in {uri}, where names of folders count"
    )


def by_share(samples: Sequence[Sample], share: float, seed: int, group: str | None) -> Parts:
    """Hold out a share of the samples: whole groups, at random, until it is reached.

    Args:
        samples: All of them.
        share: Of the images, 0 to 1.
        seed: Decides the choice.
        group: As for `groups_of`.

    Raises:
        SettingError: One of the parts is empty.
    """
    groups = groups_of(samples, group)
    sizes = Counter(groups)
    left, held = round(share * len(samples)), set[str]()
    for name in _shuffled(groups, seed):
        if left <= 0:
            break
        held.add(name)
        left -= sizes[name]
    return _checked(samples, [name in held for name in groups], f"val_share={share}")


def by_fold(samples: Sequence[Sample], fold: Fold, seed: int, group: str | None) -> Parts:
    """Hold out one fold of the samples; every group is in one fold.

    Args:
        samples: All of them.
        fold: Which one.
        seed: Decides the deal.
        group: As for `groups_of`.

    Raises:
        SettingError: There are fewer groups than folds.
    """
    groups = groups_of(samples, group)
    dealt = {name: place % fold.number for place, name in enumerate(_shuffled(groups, seed))}
    if len(dealt) < fold.number:
        raise SettingError(f"{fold.number} folds of {count(len(dealt), 'group')} leave some empty")
    chosen = [dealt[name] == fold.index for name in groups]
    return _checked(samples, chosen, f"fold {fold.index}/{fold.number}")


def groups_of(samples: Sequence[Sample], group: str | None) -> list[str]:
    """Name the group of each sample.

    Args:
        samples: In any order.
        group: A regular expression; what its first group, or all of it, matches in the URI of the
            image is the name. None: each image is one of its own.

    Raises:
        SettingError: It is no regular expression, or does not match an image.
    """
    if group is None:
        return [sample.image_uri for sample in samples]
    look = _compiled(group, "val_group")
    return [_group(look, sample.image_uri) for sample in samples]


def _group(look: re.Pattern[str], uri: str) -> str:
    found = look.search(uri)
    if found is None:
        raise SettingError(f"val_group={look.pattern!r} matches nothing of {uri}")
    return found[1] if look.groups else found[0]


def _compiled(pattern: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SettingError(f"{field}={pattern!r} is no regular expression: {error}") from error


def _shuffled(groups: Sequence[str], seed: int) -> list[str]:
    names = sorted(set(groups))
    return [names[place] for place in np.random.default_rng(seed).permutation(len(names))]


def _checked(samples: Sequence[Sample], chosen: Sequence[bool], what: str) -> Parts:
    pairs = list(zip(samples, chosen, strict=True))
    parts = [one for one, held in pairs if not held], [one for one, held in pairs if held]
    if not all(parts):
        raise SettingError(
            f"{what} of {len(samples)} images leaves {len(parts[0])} and takes {len(parts[1])}; "
            "neither may be 0"
        )
    return parts
