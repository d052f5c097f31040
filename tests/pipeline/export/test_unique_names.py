"""Names of images in an export: no two images have one, and none of them is held in memory."""

import random
import tracemalloc
from collections import deque

import pytest

from pipeline.errors import InputError, SettingError
from pipeline.export.unique_names import Names


def _row(uri: str, key: str) -> dict[str, str]:
    return {"uri": uri, "key": key, "mask_key": f"{key.rpartition('.')[0]}.png"}


def test_each_has_the_first_name_that_no_other_has() -> None:
    """Names are given as a set of all that were given before would say."""
    lots, names, given = random.Random(0), Names(), set()
    for number in range(500):
        key = f"{lots.randrange(200)}.{lots.choice(['jpg', 'png', 'tif'])}"
        in_all = f"bucket/{number}/{key}"
        wanted = next(one for one in (key[:-4], key, in_all) if one not in given)
        assert names.of(_row(f"s3://{in_all}", key)) == wanted
        given.add(wanted)
    again = _row("s3://bucket/1/new.jpg", "new.jpg")
    assert [names.of(again) for _ in range(3)] == ["new", "new.jpg", "bucket/1/new.jpg"]
    with pytest.raises(InputError, match=r"another image has its name, 'new.jpg'; use run_id"):
        names.of(again)
    names.close()


def test_no_object_is_held_of_a_name() -> None:
    """After many names Python holds as much as before."""
    names = Names()
    tracemalloc.start()
    for number in range(20_000):
        names.of(_row(f"s3://b/{number}.jpg", f"{number}.jpg"))
    assert tracemalloc.get_traced_memory()[0] < 100_000
    tracemalloc.stop()
    names.close()


def test_a_full_disk_is_a_setting_error() -> None:
    """Where names do not fit on the disk, the message says which variable names another one."""
    names = Names()
    names._given.execute("PRAGMA max_page_count = 3")
    rows = (_row(f"s3://b/{number}.jpg", f"{number}.jpg") for number in range(20_000))
    with pytest.raises(SettingError, match="set the environment variable TMPDIR"):
        deque(map(names.of, rows), maxlen=0)
    names.close()
