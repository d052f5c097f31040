"""Storage on a disk: whole objects or none, put-if-absent, errors with the right code."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ErrorCode, SettingError, StoreError
from pipeline.store.entry import Entry
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage, sha256_hex
from pipeline.store.uri import has_wildcard, local_path, normalise_uri

_ROOT = Path(__file__).parent.parent.parent.parent
_STORAGE = Storage()


def _uri(path: Path) -> str:
    return f"file://{path}"


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Reading and writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """An object comes back as it was written, folders in between are made, nothing else stays."""
    _STORAGE.write(_uri(tmp_path / "a/b/c"), b"content")
    assert _STORAGE.read(_uri(tmp_path / "a/b/c")) == b"content"
    assert _names(tmp_path) == ["a", "a/b", "a/b/c"]


@pytest.mark.parametrize("name", ["ä ö.png", "100%25.png", "a+b&c#d?.png", "tab\there", "[x]*"])
def test_names_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    """No character of a name is a code for another one."""
    _STORAGE.write(_uri(tmp_path / name), b"content")
    assert os.listdir(tmp_path) == [name]
    assert [entry.uri for entry in _STORAGE.walk(_uri(tmp_path))] == [_uri(tmp_path / name)]
    assert _STORAGE.read(_uri(tmp_path / name)) == b"content"


def test_a_write_replaces_the_object_at_once(tmp_path: Path) -> None:
    """Who reads during a write sees all of the old or all of the new content."""
    contents = [bytes([number]) * 300_000 for number in range(2)]
    uri = _uri(tmp_path / "object")
    _STORAGE.write(uri, contents[0])
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            for content in reversed(contents):
                _STORAGE.write(uri, content)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {_STORAGE.read(uri) for _ in range(200)}
    while len(seen) < len(contents):
        seen.add(_STORAGE.read(uri))
    ended.set()
    writer.join()
    assert seen == set(contents)
    assert _names(tmp_path) == ["object"]


def test_entries_tell_size_and_version(tmp_path: Path) -> None:
    """`stat` and `walk` say the same of an object: its URI, version and size."""
    _STORAGE.write(_uri(tmp_path / "object"), b"content")
    found = _STORAGE.stat(_uri(tmp_path / "object"))
    assert (found.uri, found.num_bytes) == (_uri(tmp_path / "object"), 7)
    assert list(_STORAGE.walk(_uri(tmp_path))) == [found]


def test_the_version_that_was_planned_is_read(tmp_path: Path) -> None:
    """An unchanged object is read with its version, and with none at all."""
    uri = _uri(tmp_path / "object")
    _STORAGE.write(uri, b"content")
    version = _STORAGE.stat(uri).version
    assert _STORAGE.read_version(uri, version, 7) == b"content"
    assert _STORAGE.read_version(uri, None, 7) == b"content"


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def _replace(path: Path) -> None:
    modified = path.stat().st_mtime_ns
    path.write_bytes(b"other content")
    os.utime(path, ns=(0, modified))


@pytest.mark.parametrize("change", [_touch, _replace])
def test_another_version_is_changed(change: object, tmp_path: Path) -> None:
    """An object with another time or another size is `changed`, with both versions named."""
    path = tmp_path / "object"
    path.write_bytes(b"content")
    version = _STORAGE.stat(_uri(path)).version
    change(path)
    with pytest.raises(StoreError, match=version) as caught:
        _STORAGE.read_version(_uri(path), version, 100)
    assert caught.value.code == ErrorCode.CHANGED
    assert _STORAGE.stat(_uri(path)).version in caught.value.message


def test_a_part_of_an_object_is_read(tmp_path: Path) -> None:
    """What is asked for comes, of what lies beyond the end only what is there."""
    uri = f"file://{tmp_path}/object"
    Storage().write(uri, b"content")
    spans = {(0, 3): b"con", (5, 9): b"nt", (7, 1): b"", (70, 5): b""}
    for (offset, number), expected in spans.items():
        assert Storage().read_extent(Extent(uri, offset, number)) == expected
    assert Storage().read_extent(Extent(uri)) == b"content"
    assert Storage().find_extent(Extent(f"{uri}-none", 0, 3)) is None
    assert (str(Extent(uri)), str(Extent(uri, 1, 4))) == (uri, f"{uri} (bytes 1 to 4)")


def test_a_part_is_of_the_version_that_was_planned(tmp_path: Path) -> None:
    """Of a file that has changed, or that ends before the part, nothing is taken for the part."""
    uri = f"file://{tmp_path}/object"
    _STORAGE.write(uri, b"content")
    version, part = _STORAGE.stat(uri).version, Extent(uri, 1, 4)
    assert _STORAGE.read_version_of(part, version, 4) == b"onte"
    assert _STORAGE.read_version_of(Extent(uri), version, 7) == b"content"
    with pytest.raises(StoreError, match=r"4 bytes, the limit is 3 \(max_image_bytes\)"):
        _STORAGE.read_version_of(part, version, 3)
    with pytest.raises(StoreError, match="bytes 5 to 8 and ends before them") as caught:
        _STORAGE.read_version_of(Extent(uri, 5, 4), version, 4)
    assert caught.value.code is ErrorCode.CHANGED
    _STORAGE.write(uri, b"another")
    with pytest.raises(StoreError, match=f"planned as version {version}") as caught:
        _STORAGE.read_version_of(part, version, 4)
    assert caught.value.code is ErrorCode.CHANGED


def test_a_large_object_is_not_read(tmp_path: Path) -> None:
    """An object of one byte more than the limit is `too_many_bytes`, with both numbers named."""
    (tmp_path / "object").write_bytes(b"content")
    with pytest.raises(StoreError, match=r"7 bytes, the limit is 6 \(max_image_bytes\)") as caught:
        _STORAGE.read_version(_uri(tmp_path / "object"), None, 6)
    assert caught.value.code == ErrorCode.TOO_MANY_BYTES


@pytest.mark.parametrize("name", ["nothing", "no/such/folder", "file/below", "folder", "nowhere"])
def test_what_is_not_there_is_not_found(name: str, tmp_path: Path) -> None:
    """A missing file, one below a file, a folder and a dangling link are `not_found`."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    uri = _uri(tmp_path / name)
    for act in (_STORAGE.read, _STORAGE.stat, lambda uri: _STORAGE.read_version(uri, None, 100)):
        with pytest.raises(StoreError, match=name) as caught:
            act(uri)
        assert caught.value.code == ErrorCode.NOT_FOUND
    assert not _STORAGE.exists(uri)


def test_an_object_exists(tmp_path: Path) -> None:
    """`exists` is true for a file, be it empty, and for a link to one."""
    (tmp_path / "object").touch()
    (tmp_path / "link").symlink_to("object")
    assert _STORAGE.exists(_uri(tmp_path / "object"))
    assert _STORAGE.exists(_uri(tmp_path / "link"))


def test_special_files_are_not_read(tmp_path: Path) -> None:
    """A pipe, which would block its reader, is `not_found`."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="not a regular file") as caught:
        _STORAGE.read(_uri(tmp_path / "pipe"))
    assert caught.value.code == ErrorCode.NOT_FOUND


# Put-if-absent

_STORAGES = [Storage(), Storage(conditional_put=False)]


@pytest.mark.parametrize("storage", _STORAGES, ids=["conditional", "looking first"])
def test_create_is_put_if_absent(storage: Storage, tmp_path: Path) -> None:
    """The first one creates, another one is refused and changes nothing, the same one succeeds."""
    uri = _uri(tmp_path / "folder/object")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.create(uri, b"first")
    assert storage.read(uri) == b"first"
    assert _names(tmp_path) == ["folder", "folder/object"]


@pytest.mark.parametrize("storage", _STORAGES, ids=["conditional", "looking first"])
def test_an_empty_object_is_created_like_any_other(storage: Storage, tmp_path: Path) -> None:
    """An object without content is there, and stands against others."""
    uri = _uri(tmp_path / "object")
    assert storage.create(uri, b"")
    assert storage.create(uri, b"")
    assert not storage.create(uri, b"something")


def _create_at_once(uri: str, contents: list[bytes]) -> list[bool]:
    barrier = threading.Barrier(len(contents))

    def create(content: bytes) -> bool:
        barrier.wait()
        return _STORAGE.create(uri, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        return list(pool.map(create, contents))


@pytest.mark.parametrize("attempt", range(20))
def test_of_many_at_once_one_creates(attempt: int, tmp_path: Path) -> None:
    """Of eight threads with different contents exactly one is told that its content stands."""
    contents = [f"{attempt} {number}".encode() * 1000 for number in range(8)]
    created = _create_at_once(_uri(tmp_path / "object"), contents)
    standing = _STORAGE.read(_uri(tmp_path / "object"))
    assert created == [content == standing for content in contents]
    assert created.count(True) == 1
    assert _names(tmp_path) == ["object"]


def test_of_many_at_once_with_one_content_all_succeed(tmp_path: Path) -> None:
    """Eight threads with the same content have all succeeded."""
    assert _create_at_once(_uri(tmp_path / "object"), [b"same"] * 8) == [True] * 8


def test_create_does_not_follow_a_dangling_link(tmp_path: Path) -> None:
    """A name that is taken by a link to nowhere is not created through the link."""
    (tmp_path / "object").symlink_to("elsewhere")
    with pytest.raises(StoreError):
        _STORAGE.create(_uri(tmp_path / "object"), b"content")
    assert _names(tmp_path) == ["object"]


# Listing


def test_walk_finds_files_at_any_depth(tmp_path: Path) -> None:
    """All files below a folder are listed, hidden ones too, folders and dangling links are not."""
    for name in ("b", "a/c", "a/d/e/f", ".hidden"):
        _STORAGE.write(_uri(tmp_path / name), name.encode())
    (tmp_path / "empty").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "under a file").symlink_to("b/x")
    os.mkfifo(tmp_path / "pipe")
    entries = sorted(_STORAGE.walk(_uri(tmp_path)), key=lambda entry: entry.uri)
    assert [(entry.uri, entry.num_bytes) for entry in entries] == [
        (_uri(tmp_path / name), len(name)) for name in (".hidden", "a/c", "a/d/e/f", "b")
    ]


def test_walk_passes_over_what_no_image_can_be_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Links to names that can't be, paths too long to be opened, and what a disk keeps."""
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "x.jpg").symlink_to("n" * 300)
    folder, top = os.open(tmp_path, os.O_RDONLY), tmp_path
    for _ in range(20):
        os.mkdir("d" * 240, dir_fd=folder)
        below = os.open("d" * 240, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("deep.txt", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    assert [entry.uri for entry in _STORAGE.walk(_uri(top))] == [_uri(tmp_path / "a.jpg")]
    assert "a folder is passed over: File name too long" in caplog.text


@pytest.mark.parametrize("name", ["lost+found", "private"])
def test_a_folder_that_may_not_be_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what is in it, so it is an error, but for the one that every disk has."""
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / name).mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    if name == "private":
        with pytest.raises(StoreError, match="Permission denied"):
            list(_STORAGE.walk(_uri(tmp_path)))
    else:
        assert len(list(_STORAGE.walk(_uri(tmp_path)))) == 1


def test_a_link_that_may_not_be_followed_is_listed_without_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leads to can't be looked at; its name is there all the same."""
    (tmp_path / "p.jpg").symlink_to("private/p.jpg")
    look = os.stat

    def refuse(path: object, *given: Any, **named: Any) -> os.stat_result:
        if str(path).endswith("p.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return look(path, *given, **named)

    monkeypatch.setattr(os, "stat", refuse)
    assert list(_STORAGE.walk(_uri(tmp_path))) == [Entry(_uri(tmp_path / "p.jpg"), "", 0)]


def test_walk_gives_a_linked_file_its_own_name(tmp_path: Path) -> None:
    """A link to a file is listed under its name, with the size and version of the file."""
    (tmp_path / "elsewhere").write_bytes(b"content")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to("../elsewhere")
    version = _STORAGE.stat(_uri(tmp_path / "elsewhere")).version
    assert list(_STORAGE.walk(_uri(tmp_path / "in"))) == [
        Entry(_uri(tmp_path / "in/link"), version, 7)
    ]


def test_walking_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    """A folder that is not there is `not_found`, unlike one that is empty."""
    (tmp_path / "empty").mkdir()
    assert list(_STORAGE.walk(_uri(tmp_path / "empty"))) == []
    with pytest.raises(StoreError, match="missing") as caught:
        list(_STORAGE.walk(_uri(tmp_path / "missing")))
    assert caught.value.code == ErrorCode.NOT_FOUND


def test_a_slash_at_the_end_changes_nothing(tmp_path: Path) -> None:
    """A folder's URI is taken with and without a slash."""
    _STORAGE.write(_uri(tmp_path / "a/b"), b"")
    folder = _uri(tmp_path)
    assert list(_STORAGE.walk(folder + "/")) == list(_STORAGE.walk(folder))
    assert _STORAGE.children(folder + "/") == _STORAGE.children(folder) == ["a"]


def test_children_are_the_names_directly_below(tmp_path: Path) -> None:
    """Files and folders are listed by name, in order; a missing folder has none."""
    for name in ("b", "a/c", "d/e"):
        _STORAGE.write(_uri(tmp_path / name), b"")
    assert _STORAGE.children(_uri(tmp_path)) == ["a", "b", "d"]
    assert _STORAGE.children(_uri(tmp_path / "missing")) == []


# Leftovers


_KILLED = """
import os, sys
import pipeline.store.storage
os.replace = os.link = lambda *_: os._exit(9)
getattr(pipeline.store.storage.Storage(), sys.argv[1])(sys.argv[2], b"content")
"""


@pytest.mark.parametrize("action", ["write", "create"])
def test_leftovers_of_killed_writes_are_removed(action: str, tmp_path: Path) -> None:
    """What a killed write has left is removed; objects stay, whatever they are called."""
    uri = _uri(tmp_path / "a/object")
    process = subprocess.run([sys.executable, "-c", _KILLED, action, uri], cwd=_ROOT, check=False)
    assert process.returncode == 9
    assert len(_names(tmp_path / "a")) == 1
    assert not _STORAGE.exists(uri)
    kept = [".fcn-tmp-0123456789ab.png", "a/b.fcn-tmp-0123456789ab", "a/fcn-tmp-", "object"]
    for name in kept:
        _STORAGE.write(_uri(tmp_path / name), b"")
    _STORAGE.remove_leftovers(_uri(tmp_path))
    assert _names(tmp_path) == sorted(["a", *kept])


def test_a_missing_folder_has_no_leftovers(tmp_path: Path) -> None:
    """Clearing up where nothing was written is no error and makes nothing."""
    _STORAGE.remove_leftovers(_uri(tmp_path / "missing"))
    assert _names(tmp_path) == []


# Rights

_WITHOUT_RIGHTS = """
import os, sys
from pipeline.errors import StoreError
from pipeline.store.storage import Storage

storage, folder = Storage(), f"file://{sys.argv[1]}"
storage.read(f"{folder}/readable")  # loads what is imported late
if os.geteuid() == 0:
    os.setuid(65534)
actions = {
    "read": lambda: storage.read(f"{folder}/secret"),
    "read below": lambda: storage.read(f"{folder}/closed/object"),
    "stat below": lambda: storage.stat(f"{folder}/closed/object"),
    "exists below": lambda: storage.exists(f"{folder}/closed/object"),
    "write": lambda: storage.write(f"{folder}/readonly/object", b""),
    "create": lambda: storage.create(f"{folder}/readonly/object", b""),
    "make a folder": lambda: storage.create(f"{folder}/readonly/a/b", b""),
    "walk": lambda: list(storage.walk(folder)),
    "walk to a link": lambda: list(storage.walk(f"{folder}/links")),
    "children": lambda: storage.children(f"{folder}/closed"),
    "remove leftovers": lambda: storage.remove_leftovers(f"{folder}/readonly"),
    "read what may be read": lambda: storage.read(f"{folder}/readable"),
}
for name, act in actions.items():
    try:
        act()
        print(f"{name}: done")
    except StoreError as error:
        print(f"{name}: {error.code}")
"""


def test_without_rights_every_action_is_forbidden() -> None:
    """Whatever a user may not do is `forbidden`, be it reading, listing or writing.

    It runs as another user in a folder that this one can enter, because root may do everything.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for made in ("closed/object", "readonly/.fcn-tmp-0123456789ab", "secret", "readable"):
            (folder / made).parent.mkdir(exist_ok=True)
            (folder / made).touch()
        (folder / "links").mkdir()
        (folder / "links/link").symlink_to("../closed/object")
        (folder / "secret").chmod(0)
        (folder / "closed").chmod(0)
        (folder / "readonly").chmod(0o555)
        try:
            process = subprocess.run(
                [sys.executable, "-c", _WITHOUT_RIGHTS, name],
                cwd=_ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            (folder / "closed").chmod(0o700)
            (folder / "readonly").chmod(0o700)
    assert process.stderr == ""
    assert dict(line.split(": ") for line in process.stdout.splitlines()) == {
        **dict.fromkeys(
            (
                *("read", "read below", "stat below", "exists below", "write", "create"),
                *("make a folder", "walk", "children", "remove leftovers"),
            ),
            "forbidden",
        ),
        # The file is there by its name; whoever reads it is told.
        "walk to a link": "done",
        "read what may be read": "done",
    }


# URIs


def test_uris_get_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths become absolute `file://` URIs, buckets lose the slash at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    given = {
        "images": f"file://{tmp_path}/images",
        "./a/../b/": f"file://{tmp_path}/b",
        "/data//images/": "file:///data/images",
        "//data/images": "file:///data/images",
        "file:////data/images": "file:///data/images",
        "~/images": "file:///home/somebody/images",
        "file:///data/images/": "file:///data/images",
        "file:///data/**/*.jpg": "file:///data/**/*.jpg",
        "/with space/%20": "file:///with space/%20",
        "s3://bucket": "s3://bucket",
        "s3://bucket/": "s3://bucket",
        "s3://bucket/a//b/": "s3://bucket/a//b",
        "s3://bucket/a/*.jpg": "s3://bucket/a/*.jpg",
        "gs://bucket/a/": "gs://bucket/a",
        "gcs://bucket/a": "gs://bucket/a",
        "az://container/a%2F": "az://container/a%2F",
    }
    assert {text: normalise_uri(text, "input") for text in given} == given


@pytest.mark.parametrize(
    "text", ["hdfs://bucket/a", "https://example.org/a.jpg", "S3A://b", "://a"]
)
def test_other_schemes_are_setting_errors(text: str) -> None:
    """A scheme that is not supported is refused with the setting, the value and what is allowed."""
    with pytest.raises(SettingError, match=r"output='.*scheme .* use a local path, file://, s3"):
        normalise_uri(text, "output")


@pytest.mark.parametrize("text", ["s3://", "s3:///key"])
def test_a_missing_bucket_is_a_setting_error(text: str) -> None:
    """An S3 URI without a bucket is refused."""
    with pytest.raises(SettingError, match=r"input='s3:.*names no bucket; write s3://BUCKET"):
        normalise_uri(text, "input")


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_a_setting_error(text: str) -> None:
    """Nothing, as from a variable that is not set, does not mean the current folder."""
    with pytest.raises(SettingError, match="input is empty"):
        normalise_uri(text, "input")


def test_the_small_helpers() -> None:
    """A path is taken out of its URI, a hash is SHA-256 in hexadecimal, wildcards are seen."""
    assert local_path("file:///a/b") == "/a/b"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_hex(b"") == empty
    wild = {text: has_wildcard(text) for text in ("a/*.jpg", "a/?.jpg", "a/[bc].jpg", "a/b.jpg")}
    assert list(wild.values()) == [True, True, True, False]


@pytest.mark.parametrize("action", ["write", "create"])
def test_a_name_appears_after_its_bytes_and_is_kept(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes are synced before the name appears; then its folder is, and each new one above it."""
    done: list[tuple[str, str]] = []
    sync, link, replace = os.fsync, os.link, os.replace

    def note(kind: str, path: str) -> None:
        done.append((kind, "bytes" if ".fcn-tmp-" in path else os.path.relpath(path, tmp_path)))

    def note_sync(number: int) -> None:
        note("sync", os.readlink(f"/proc/self/fd/{number}"))
        sync(number)

    def note_name(act: object) -> object:
        return lambda source, name: (act(source, name), note("name", name))

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_name(link))
    monkeypatch.setattr(os, "replace", note_name(replace))
    getattr(Storage(), action)(_uri(tmp_path / "a" / "b" / "c"), b"data")
    assert done == [
        ("sync", "."),
        ("sync", "a"),
        ("sync", "bytes"),
        ("name", "a/b/c"),
        ("sync", "a/b"),
    ]


def test_a_disk_that_can_not_sync_folders_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no such call, the order of the bytes is all there is."""
    sync = os.fsync

    def refuse(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(number)

    monkeypatch.setattr(os, "fsync", refuse)
    assert Storage().create(_uri(tmp_path / "a" / "b"), b"data")
    assert (tmp_path / "a" / "b").read_bytes() == b"data"


def test_a_folder_is_removed_whatever_others_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone before its turn is no error, and all else goes; links go and not their ends."""
    for name in ("gone/a/1", "gone/a/2", "gone/b/3", "kept/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    real = os.unlink

    def unlink(path: str) -> None:
        if (tmp_path / "gone/a/2").exists():
            real(tmp_path / "gone/a/2")
        real(path)

    monkeypatch.setattr("pipeline.store.local.os.unlink", unlink)
    Storage().remove_folder(f"file://{tmp_path}/gone")
    Storage().remove_folder(f"file://{tmp_path}/nowhere")

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["4", "kept"]


def test_a_name_that_no_file_can_have_is_not_found(tmp_path: Path) -> None:
    """A circle of links, and names that are too long, are missing files and no broken disk."""
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    for name in ("circle.png", "x" * 300 + ".png", "/".join(["deep"] * 1500) + "/a.png"):
        with pytest.raises(StoreError) as found:
            Storage().stat(f"file://{tmp_path}/{name}")
        assert found.value.code == ErrorCode.NOT_FOUND
