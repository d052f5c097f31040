"""What is kept of tars: a night reads the headers of new ones, and is never wrong for it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ErrorCode, StoreError
from pipeline.inputs import kept_tars, open_tars
from pipeline.labelling.draft import Draft, draft
from pipeline.labelling.history import History
from pipeline.labelling.plan import start_run
from pipeline.store.storage import Storage
from tests.disk_runs import make_settings, network_record
from tests.tar_writer import tar_of

_WORTH_BYTES = 20_000
_LARGE = random.Random(0).randbytes(_WORTH_BYTES)


@pytest.fixture(autouse=True)
def small_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what lies in tars that are written quickly."""
    monkeypatch.setattr(kept_tars, "WORTH_BYTES", _WORTH_BYTES)


def _put(folder: Path, name: str, *images: str) -> None:
    members = [("first.txt", _LARGE), *((image, image.encode()) for image in images)]
    Storage().write(f"file://{folder}/in/{name}.tar", tar_of([*members, ("link!/x.jpg", b"y")]))


def _draft(folder: Path) -> Draft:
    settings = make_settings(folder, folder / "in", input_form="tar")
    return draft(History(Storage(), settings.output), settings, network_record())


def _start(folder: Path, drafted: Draft) -> None:
    settings = make_settings(folder, folder / "in", input_form="tar")
    start_run(Storage(), settings, network_record(), drafted)


def _rows(drafted: Draft) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in drafted.sample(100)]


def test_a_tar_is_read_once(tmp_path: Path) -> None:
    """The run that plans it keeps what lies in it; the next reads no header and finds the same."""
    _put(tmp_path, "a", "1.jpg", "2.jpg")
    first = _draft(tmp_path)
    assert not (tmp_path / "out").exists()
    rows = _rows(first)
    _start(tmp_path, first)
    [kept] = (tmp_path / "out/tars").iterdir()
    again = _draft(tmp_path)
    assert (first.num_header_reads, again.num_header_reads) == (1, 0)
    assert (_rows(again), again.num_ignored) == (rows, first.num_ignored)
    assert len(rows) == 3
    _put(tmp_path, "b", "3.jpg")
    assert _draft(tmp_path).num_header_reads == 1
    kept.write_bytes(kept.read_bytes()[:-9])
    assert (_draft(tmp_path).num_header_reads, _rows(_draft(tmp_path))[:3]) == (2, rows)


def test_another_version_is_read_anew(tmp_path: Path) -> None:
    """What was kept of a tar is true of its version alone, and the new one takes its place."""
    for night in range(3):
        _put(tmp_path, "a", f"{night}.jpg")
        drafted = _draft(tmp_path)
        assert drafted.num_header_reads == 1
        keys = [row["key"] for row in drafted.sample(9)]
        assert keys == [f"a.tar/{night}.jpg", "a.tar/link%21/x.jpg"]
        _start(tmp_path, drafted)
    assert len(list((tmp_path / "out/tars").iterdir())) == 1
    assert _draft(tmp_path).num_header_reads == 0


@pytest.mark.parametrize("kind", ["damaged", "small", "many"])
def test_what_is_not_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept of a tar whose end is not known, of a small one, nor of very many images."""
    _put(tmp_path, "a", "1.jpg")
    place = tmp_path / "in/a.tar"
    if kind == "damaged":
        place.write_bytes(place.read_bytes() + b"x")
    elif kind == "small":
        place.write_bytes(tar_of([("1.jpg", b"1"), ("2.jpg", b"2")]))
    else:
        monkeypatch.setattr(open_tars, "MOST_IMAGES", 1)
    drafted = _draft(tmp_path)
    assert drafted.num_images == 2 + (kind == "damaged")
    _start(tmp_path, drafted)
    assert not (tmp_path / "out/tars").exists()


def test_an_output_that_refuses_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the folder may be neither read nor written, tars are read, and the run is started."""
    _put(tmp_path, "a", "1.jpg")

    def refusing(method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(storage: Storage, uri: str, *given: object) -> Any:
            if "/out/tars/" in uri:
                raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: no")
            return method(storage, uri, *given)

        return answer

    for name in ("find", "write"):
        monkeypatch.setattr(Storage, name, refusing(getattr(Storage, name)))
    _start(tmp_path, _draft(tmp_path))
    assert "what lies in tars could not be kept" in caplog.text
    assert (tmp_path / "out/runs").exists()


def test_names_that_no_table_holds_are_not_kept(tmp_path: Path) -> None:
    """A tar with a name that is no UTF-8 is planned each time, its image a row that says so."""
    data = tar_of([("first.txt", _LARGE), ("a.jpg", b"1"), ("Z.jpg", b"2")])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(_renamed(data))
    drafted = _draft(tmp_path)
    assert [row["error_code"] for row in drafted.sample(9)] == ["name_not_utf8", None]
    _start(tmp_path, drafted)
    assert not (tmp_path / "out/tars").exists()


def _renamed(data: bytes) -> bytes:
    """Give the member Z.jpg a first byte that is no UTF-8, and mend the checksum of its header."""
    start = data.index(b"Z.jpg")
    header = bytearray(data[start : start + 512])
    header[0] = 0xE9
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:start] + bytes(header) + data[start + 512 :]
