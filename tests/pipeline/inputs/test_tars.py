"""Tars as inputs: what lies in them, what is damaged, and how little of them is read."""

import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import webdataset

from pipeline.inputs.tar_reading import TarReading
from pipeline.inputs.tars import DamagedTarError, Member, read_members
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage
from tests.servers import Server
from tests.tar_writer import tar_of

_FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
_SMALL = [("a.jpg", b"A" * 700), ("a.json", b"{}"), ("b/c.png", b"C" * 512), ("d", b"")]


def _put(folder: Path, data: bytes, name: str = "0.tar") -> Entry:
    uri = f"file://{folder}/{name}"
    Storage().write(uri, data)
    return Storage().stat(uri)


def _found(entry: Entry) -> tuple[list[Member], str]:
    """Read the members, and what is wrong after them."""
    members: list[Member] = []
    try:
        members.extend(one for one in read_members(Storage(), entry))
    except DamagedTarError as error:
        return members, str(error)
    return members, ""


def _names(data: bytes, folder: Path) -> tuple[list[str], str]:
    """Read the members one by one, so that those before a damage count."""
    names: list[str] = []
    try:
        for member in read_members(Storage(), _put(folder, data)):
            names.append(member.name)  # noqa: PERF401 - what came before an error is looked at
    except DamagedTarError as error:
        return names, str(error)
    return names, ""


@pytest.mark.parametrize("tar_format", _FORMATS)
def test_members_are_where_tarfile_says(tar_format: int, tmp_path: Path) -> None:
    """Names of any length and alphabet, sizes and places are those that tarfile extracts."""
    long = "é/" * (9 if tar_format == tarfile.USTAR_FORMAT else 90) + "photo.jpg"
    data = tar_of([*_SMALL, (long, b"long" * 300)], tar_format)
    members, damage = _found(_put(tmp_path, data))
    assert damage == ""
    cut = {one.name: data[one.offset : one.offset + one.num_bytes] for one in members}
    assert cut == {**dict(_SMALL), long: b"long" * 300}
    assert all(one.is_whole for one in members)


# The library leaves the closing of its files to Python.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same_members(tmp_path: Path) -> None:
    """What lies at a member's place is what webdataset gives under its name."""
    pictures = [(f"{index:09d}.jpg", random.Random(index).randbytes(3000)) for index in range(9)]
    data = tar_of([one for pair in pictures for one in (pair, (f"{pair[0][:-4]}.txt", b"words"))])
    members, _ = _found(_put(tmp_path, data))
    ours = {
        one.name: data[one.offset : one.offset + one.num_bytes]
        for one in members
        if one.name.endswith(".jpg")
    }
    samples = webdataset.WebDataset(f"{tmp_path}/0.tar", shardshuffle=False)
    assert ours == {f"{sample['__key__']}.jpg": sample["jpg"] for sample in samples}


def test_names_are_those_that_are_extracted(tmp_path: Path) -> None:
    """`tar cf x.tar .` writes dots and slashes, which no folder has."""
    data = tar_of([("./a.jpg", b"1"), ("/b/c.jpg", b"2"), ("d//e.jpg", b"3"), ("../f.jpg", b"4")])
    names, damage = _names(data, tmp_path)
    assert (names, damage) == (["a.jpg", "b/c.jpg", "d/e.jpg", "../f.jpg"], "")


def test_what_has_no_content_of_its_own_is_not_whole(tmp_path: Path) -> None:
    """Links and devices are told from files, and folders are left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in [
            *(("folder", tarfile.DIRTYPE), ("soft.jpg", tarfile.SYMTYPE)),
            *(("hard.jpg", tarfile.LNKTYPE), ("dev.jpg", tarfile.CHRTYPE)),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
    members, _ = _found(_put(tmp_path, buffer.getvalue()))
    assert [(one.name, one.is_whole) for one in members] == [
        *(("soft.jpg", False), ("hard.jpg", False), ("dev.jpg", False)),
    ]


_DAMAGES = {
    "cut off in a member": (lambda data: data[:3200], ["a.jpg", "a.json"], "'b/c.png' is cut off"),
    "cut off in a header": (lambda data: data[:3000], ["a.jpg", "a.json"], "no empty block at"),
    "cut off before its end": (
        lambda data: data[:4096], ["a.jpg", "a.json", "b/c.png", "d"], "no empty block at the end",
    ),
    "a header of other bytes": (
        lambda data: data[:1536] + b"x" * 512 + data[2048:], ["a.jpg"], "neither a header nor",
    ),
    "joined by cat": (
        lambda data: data + data, ["a.jpg", "a.json", "b/c.png", "d"], "`tar -A`",
    ),
    "nothing": (lambda _: b"", [], "empty file"),
    "no tar": (lambda _: b"\x1f\x8b" + b"gzip" * 200, [], "at byte 0 of 802: "),
    "a size below nothing": (
        lambda data: data[:1536] + _header("a.json", -1024) + data[2048:], ["a.jpg"], "has -1,024",
    ),
    "a PAX header without end": (
        lambda data: data[:1536] + _header("a.json", 1 << 40, b"x") + data[2048:],
        ["a.jpg"],
        "a header of 1099511627776 bytes",
    ),
}  # fmt: skip


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", _DAMAGES)
def test_a_damage_is_said_after_what_lies_before_it(kind: str, tmp_path: Path) -> None:
    """Whatever is wrong with a tar, what comes before is known, and nothing is left out in silence.

    The places of the four members: 0, 1536, 2560, 3584; the end is at 4096.
    """
    damage, names, said = _DAMAGES[kind]
    found, reason = _names(damage(tar_of(_SMALL)), tmp_path)
    assert found == names
    assert said in reason


def test_an_empty_tar_is_whole(tmp_path: Path) -> None:
    """A tar without members, and zeros behind the end, are no damage."""
    assert _names(tar_of([]), tmp_path) == ([], "")
    assert _names(tar_of(_SMALL) + bytes(1 << 17), tmp_path)[1] == ""


@pytest.mark.parametrize("seed", range(40))
def test_no_bytes_are_too_much(seed: int, tmp_path: Path) -> None:
    """Whichever bytes of a tar are others, its members are read or it is damaged: nothing else."""
    dice = random.Random(seed)
    data = bytearray(tar_of(_SMALL, dice.choice(_FORMATS)))
    for _ in range(dice.randint(1, 60)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    names, _ = _names(bytes(data), tmp_path)
    assert len(names) <= 20


def _reads(storage: Storage, entry: Entry) -> int:
    counting = storage.counting()
    assert list(read_members(counting, entry))
    return counting.requests["read"]


def _sized(sizes: Sequence[int]) -> bytes:
    return tar_of([(f"{index}.jpg", bytes(size)) for index, size in enumerate(sizes)])


def test_little_is_asked_for(s3: Server) -> None:
    """Small members are read by the MiB, large ones are hopped over: a request for each."""
    bucket = s3.make_bucket()
    s3.put(bucket, "small.tar", _sized([3_000] * 500))
    s3.put(bucket, "large.tar", _sized([3 << 20] * 4))
    storage = Storage(s3.endpoint_url)
    small, large = (storage.stat(f"s3://{bucket}/{name}.tar") for name in ("small", "large"))
    assert _reads(storage, small) == -(-small.num_bytes // (1 << 20))
    assert _reads(storage, large) == 5
    reading = TarReading(storage, large)
    reading.seek(3 << 20)
    assert reading.read(100) == bytes(100)
    assert (reading.tell(), reading.read(1 << 20)[:1]) == ((3 << 20) + 100, b"\0")
