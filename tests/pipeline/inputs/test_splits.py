"""Splits by pattern, share and fold: nothing lost, groups whole, the same for the same seed."""

import pytest

from pipeline.errors import SettingError
from pipeline.inputs.samples import Sample
from pipeline.inputs.splits import Fold, by_fold, by_pattern, by_share, matching

_SAMPLES = [
    Sample(f"s3://data/{drive}_{frame:03}.jpg", f"s3://truth/{drive}_{frame:03}.png")
    for drive, number in (("01TP", 20), ("06R0", 30), ("16E5", 50))
    for frame in range(number)
]
# Its first group is the drive's name; all of it is that of one frame.
_DRIVE = r"/(\w{4})_\d+"


def test_a_pattern_holds_out_a_drive():
    """The images that match are val, all others stay, in their order."""
    train, val = by_pattern(_SAMPLES, "/01TP_", "val_match")

    assert val == _SAMPLES[:20]
    assert train == _SAMPLES[20:]
    assert matching(_SAMPLES, "/01TP_") == val


def test_a_pattern_that_matches_all_is_said(caplog: pytest.LogCaptureFixture):
    """Names of folders count, so that an evaluation on all images says by what they match."""
    assert matching(_SAMPLES[:20], "/01TP_") == _SAMPLES[:20]
    assert "val_match='/01TP_' matches all 20 images, such as '/01TP_' in s3://data/" in caplog.text
    caplog.clear()
    matching(_SAMPLES, "/01TP_")
    assert not caplog.text


@pytest.mark.parametrize("group", [None, _DRIVE])
def test_folds_hold_out_every_image_once(group: str | None):
    """Over all folds each image is val once, and with groups no drive is on both sides."""
    parts = [by_fold(_SAMPLES, Fold(index, 3), 7, group) for index in range(3)]

    held = [sample for _, val in parts for sample in val]
    assert sorted(held, key=lambda one: one.image_uri) == _SAMPLES
    for train, val in parts:
        assert len(train) + len(val) == len(_SAMPLES)
        if group:
            assert not {one.image_uri[10:14] for one in train} & {
                one.image_uri[10:14] for one in val
            }


def test_a_share_takes_whole_groups():
    """A tenth of the images is ten images; with drives it is the one that reaches it."""
    assert len(by_share(_SAMPLES, 0.1, 0, None)[1]) == 10
    _, val = by_share(_SAMPLES, 0.1, 0, _DRIVE)
    assert len({one.image_uri[10:14] for one in val}) == 1
    assert by_share(_SAMPLES, 0.1, 0, _DRIVE) == by_share(_SAMPLES, 0.1, 0, _DRIVE)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (lambda: by_pattern(_SAMPLES, "(", "val_match"), "val_match='\\(' is no regular"),
        (lambda: by_pattern(_SAMPLES, "09TP", "val_match"), "takes 0; neither may be 0"),
        (lambda: by_pattern(_SAMPLES, "da+", "val_match"), "'da' in s3://data/.*folders count"),
        (lambda: by_fold(_SAMPLES, Fold(0, 5), 0, _DRIVE), "5 folds of 3 groups"),
        (lambda: by_fold(_SAMPLES, Fold(0, 2), 0, "/01TP"), "matches nothing of s3://data/06R0"),
        (lambda: matching(_SAMPLES, "09TP"), "matches none of 100 images"),
        (lambda: Fold.parse("5/5"), "a fold is K/N"),
        (lambda: Fold.parse("1"), "a fold is K/N"),
    ],
)
def test_what_leaves_nothing_is_refused(split, words: str):
    """Patterns and folds that hold out nothing or all are errors that name the setting."""
    with pytest.raises(SettingError, match=words):
        split()
