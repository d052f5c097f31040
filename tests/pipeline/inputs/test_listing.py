"""Inputs: folder, glob, one image, manifest; what is an image and what is not."""

import io
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.inputs.listing import Reading, Sources
from pipeline.inputs.manifests import Named, manifest_entries
from pipeline.inputs.source import IMAGE_ENDINGS, Source
from pipeline.store.entry import Entry
from pipeline.store.object_file import ObjectFile, open_object
from pipeline.store.storage import Storage
from pipeline.store.uri import normalise_uri
from tests.servers import Server

_STORAGE = Storage()


def _make(folder: Path, *names: str) -> Path:
    """Write files that hold their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def _sources(source: object, output: object = "/elsewhere") -> Sources:
    input_uri, output_uri = (normalise_uri(str(text), "input") for text in (source, output))
    return Sources(_STORAGE, input_uri, output_uri, threads=4)


def _keys(source: object, output: object = "/elsewhere") -> list[str]:
    return sorted(found.key for found in _sources(source, output))


# Folders


def test_a_folder_is_searched_to_any_depth(tmp_path: Path) -> None:
    """Every image below a folder is found, under its name in the folder."""
    _make(tmp_path, "a.jpg", "b/c.png", "b/d/e f/ü.tif", ".hidden/g.bmp")
    assert _keys(tmp_path) == [".hidden/g.bmp", "a.jpg", "b/c.png", "b/d/e f/ü.tif"]


def test_what_evaluate_draws_is_no_photograph(tmp_path: Path) -> None:
    """An output that is named as an input holds pictures that nobody took."""
    _make(tmp_path, "a.png", "evaluations/x-1/confusion_matrix.png", "evaluations/x-1/photo.png")
    assert _keys(tmp_path) == ["a.png", "evaluations/x-1/photo.png"]


@pytest.mark.parametrize("name", ["SegmentationClass", "masks", "photos"])
def test_a_folder_that_is_called_like_masks_is_doubted(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its files are read all the same: photographs may lie there."""
    _make(tmp_path, f"{name}/a.png")
    assert _keys(tmp_path / name) == ["a.png"]
    assert ("mostly hold masks" in caplog.text) == (name != "photos")


def test_a_source_says_where_and_which(tmp_path: Path) -> None:
    """A source has the image's URI, its version and its size, as the store says them."""
    _make(tmp_path, "in/a.jpg")
    uri = f"file://{tmp_path}/in/a.jpg"
    version = _STORAGE.stat(uri).version
    assert list(_sources(tmp_path)) == [Source("in/a.jpg", uri, version, len("in/a.jpg"))]


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    """What has another ending, or none, is no image; it is counted, image formats are not."""
    _make(
        tmp_path, "a.jpg", "notes.txt", "b/Thumbs.db", "b/checksums", "c.jpg.md5", ".jpg", "d.gif"
    )
    sources = _sources(tmp_path)
    assert sorted(found.key for found in sources) == ["a.jpg", "d.gif"]
    assert sources.num_ignored == 5


def test_endings_count_in_either_case(tmp_path: Path) -> None:
    """Endings are known in capitals too."""
    _make(tmp_path, "a.JPG", "b.Png", "c.TIFF", "d.txt")
    assert _keys(tmp_path) == ["a.JPG", "b.Png", "c.TIFF"]


def test_what_macos_leaves_beside_an_image_is_none(tmp_path: Path) -> None:
    """AppleDouble files are called as images are, and are not; they are counted as other files."""
    _make(tmp_path, "a.jpg", "._a.jpg", "sub/._b.PNG", "sub/_.jpg", "._sub/c.jpg")
    assert _keys(tmp_path) == ["._sub/c.jpg", "a.jpg", "sub/_.jpg"]


@pytest.mark.parametrize("ending", [".mpo", ".apng", ".hif", ".dng", ".nef", ".cr3", ".avif"])
def test_what_cameras_write_is_planned(ending: str, tmp_path: Path) -> None:
    """What is read under other endings, and what is not read at all, gets a row."""
    _make(tmp_path, f"a{ending}", f"b{ending.upper()}")
    assert _keys(tmp_path) == [f"a{ending}", f"b{ending.upper()}"]


def test_every_ending_is_one(tmp_path: Path) -> None:
    """A file of each listed ending is planned, also where the decoder will refuse the format."""
    _make(tmp_path, *(f"image{ending}" for ending in IMAGE_ENDINGS))
    assert _keys(tmp_path) == sorted(f"image{ending}" for ending in IMAGE_ENDINGS)
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"} <= IMAGE_ENDINGS


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    """A folder without files has no images, which is not an error here."""
    sources = _sources(tmp_path)
    assert (list(sources), sources.num_ignored) == ([], 0)


def test_dangling_links_are_passed_over(tmp_path: Path) -> None:
    """A link to nowhere is no image, a link to an image is one."""
    _make(tmp_path, "in/a.jpg", "b.jpg")
    (tmp_path / "in/gone.jpg").symlink_to("nothing")
    (tmp_path / "in/link.jpg").symlink_to("../b.jpg")
    assert _keys(tmp_path / "in") == ["a.jpg", "link.jpg"]


def test_a_name_that_is_no_text_is_planned(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 is planned under a name that can be written down."""
    with open(os.fsencode(tmp_path) + b"/a\xff.jpg", "wb"):
        pass
    _make(tmp_path, "ä.jpg")
    found = sorted(_sources(tmp_path), key=lambda source: source.key)
    assert [(source.key, source.uri, source.refusal) for source in found] == [
        ("a\\xff.jpg", f"file://{tmp_path}/a\\xff.jpg", "name_not_utf8"),
        ("ä.jpg", f"file://{tmp_path}/ä.jpg", None),
    ]


# The output


_OUTPUT = (
    *("masks/run=1/a.png", "runs/1/plan/part.parquet", "runs/1/report.html"),
    *("images/run=1/part.parquet", "locks/probe"),
)


def test_an_output_inside_the_input_is_left_out(tmp_path: Path) -> None:
    """Masks are not labelled again, and nothing of the output counts as another file."""
    _make(tmp_path, "a.jpg", "outside/b.jpg", *(f"out/{name}" for name in _OUTPUT))
    sources = _sources(tmp_path, tmp_path / "out")
    assert sorted(found.key for found in sources) == ["a.jpg", "outside/b.jpg"]
    assert sources.num_ignored == 0


def test_a_neighbour_of_the_output_is_kept(tmp_path: Path) -> None:
    """A folder whose name only begins like the output's is input."""
    _make(tmp_path, "out/masks/run=1/a.png", "out2/a.jpg", "out.jpg")
    assert _keys(tmp_path, tmp_path / "out") == ["out.jpg", "out2/a.jpg"]


@pytest.mark.parametrize("source", [".", "images"])
def test_an_output_around_the_input_keeps_the_input(source: str, tmp_path: Path) -> None:
    """With the output at the input's place or above it, images are found and masks left out."""
    _make(tmp_path, "images/b.jpg", "images/masks/c.jpg", *_OUTPUT)
    prefix = "images/" if source == "." else ""
    assert _keys(tmp_path / source, tmp_path) == [f"{prefix}b.jpg", f"{prefix}masks/c.jpg"]


# Globs


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("*", ["a.jpg", "b.jpg", "c.png"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[ac].*", ["a.jpg", "c.png"]),
        ("[!ac].*", ["b.jpg"]),
        ("*/*.jpg", ["x/d.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "x/d.jpg", "x/y/e.jpg"]),
        ("x/**", ["d.jpg", "y/e.jpg", "y/f.png"]),
        ("x/**/*.jpg", ["d.jpg", "y/e.jpg"]),
        ("x/*/?.p*", ["y/f.png"]),
        ("nothing*", []),
        ("*.txt", []),
    ],
)
def test_globs(pattern: str, keys: list[str], tmp_path: Path) -> None:
    """A pattern takes the images that it matches; keys begin behind its fixed folders."""
    _make(tmp_path, "a.jpg", "b.jpg", "c.png", "x/d.jpg", "x/y/e.jpg", "x/y/f.png", "notes.txt")
    assert _keys(f"{tmp_path}/{pattern}") == keys


def test_a_glob_leaves_the_output_out(tmp_path: Path) -> None:
    """An output below the fixed folders of a pattern is not labelled."""
    _make(tmp_path, "a.png", "out/masks/run=1/a.png")
    assert _keys(f"{tmp_path}/**/*.png", tmp_path / "out") == ["a.png"]


# One image


def test_one_image_is_an_input(tmp_path: Path) -> None:
    """A single file is planned under its name, whatever its ending."""
    _make(tmp_path, "x/a.jpg", "x/b.jpg", "x/image")
    assert _keys(tmp_path / "x/a.jpg") == ["a.jpg"]
    assert _keys(tmp_path / "x/image") == ["image"]


def test_a_file_is_meant_before_a_pattern(tmp_path: Path) -> None:
    """A file whose name could be a pattern is that file."""
    _make(tmp_path, "a[1].jpg", "a1.jpg", "b*.jpg", "b2.jpg")
    assert _keys(tmp_path / "a[1].jpg") == ["a[1].jpg"]
    assert _keys(tmp_path / "b*.jpg") == ["b*.jpg"]


def test_a_folder_is_meant_before_a_pattern(tmp_path: Path) -> None:
    """A folder whose name could be a pattern is that folder."""
    _make(tmp_path, "photos [1]/a.jpg", "photos 1/b.jpg")
    assert _keys(tmp_path / "photos [1]") == ["a.jpg"]


# Manifests


def _write_manifest(path: Path, uris: list[str | None]) -> None:
    if path.suffix == ".parquet":
        table = pa.table({"other": range(len(uris)), "uri": pa.array(uris, pa.string())})
        pq.write_table(table, path)
    elif path.suffix.lower() == ".csv":
        lines = ["other,uri", *(f"1,{uri or ''}" for uri in uris)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(json.dumps({"other": 1, "uri": uri}) for uri in uris))


_MANIFESTS = pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "ndjson", "CSV"])


@_MANIFESTS
def test_a_manifest_names_images(ending: str, tmp_path: Path) -> None:
    """A manifest's images are planned in its order, by path or URI, whatever their ending."""
    _make(tmp_path, "in/a.jpg", "in/b", "in/c.jpg")
    path = tmp_path / f"list.{ending}"
    _write_manifest(path, [f"{tmp_path}/in/b", f"file://{tmp_path}/in/a.jpg "])
    found = list(_sources(path))
    assert [source.uri for source in found] == [
        f"file://{tmp_path}/in/{name}" for name in ("b", "a.jpg")
    ]
    assert [source.key for source in found] == [
        f"{tmp_path}/in/{name}"[1:] for name in ("b", "a.jpg")
    ]
    assert [source.num_bytes for source in found] == [4, 8]
    assert [source.version for source in found] == [_STORAGE.stat(s.uri).version for s in found]


@_MANIFESTS
def test_a_named_image_that_is_missing_is_planned(ending: str, tmp_path: Path) -> None:
    """An image that a manifest names and nobody finds is planned, so that its row says so."""
    path = tmp_path / f"list.{ending}"
    _write_manifest(path, [f"{tmp_path}/gone.jpg"])
    uri = f"file://{tmp_path}/gone.jpg"
    assert list(_sources(path)) == [Source(f"{tmp_path}/gone.jpg"[1:], uri, None, None)]


@_MANIFESTS
@pytest.mark.parametrize("uri", [None, " "])
def test_a_row_without_uri_is_an_input_error(ending: str, uri: str | None, tmp_path: Path) -> None:
    """A null or empty URI is refused, with the number of its row."""
    path = tmp_path / f"list.{ending}"
    _write_manifest(path, ["/a.jpg", uri])
    with pytest.raises(InputError, match="row 1: uri is"):
        list(_sources(path))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_manifest_without_uris_is_an_input_error(ending: str, tmp_path: Path) -> None:
    """A manifest without the column is refused, with the columns that it has."""
    path = tmp_path / f"list.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"url": ["/a.jpg"], "size": [1]}), path)
    else:
        path.write_text(
            '{"url": "/a.jpg", "size": 1}' if ending == "jsonl" else "url,size\n/a.jpg,1"
        )
    with pytest.raises(InputError, match="needs one column `uri`; it has url, size"):
        list(_sources(path))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_an_unreadable_manifest_is_an_input_error(ending: str, tmp_path: Path) -> None:
    """A manifest that is no file of its format is refused by name."""
    path = tmp_path / f"list.{ending}"
    path.write_bytes(b'"\xff\n{,,\n"')
    with pytest.raises(InputError, match=f"list.{ending} can't be read"):
        list(_sources(path))


def test_a_damaged_parquet_manifest_is_an_input_error(tmp_path: Path) -> None:
    """A Parquet file with both of its marks and damage between them is refused by name."""
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": ["/a.jpg"]}), path)
    whole = path.read_bytes()
    for start in range(4, len(whole) - 40, 40):
        path.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        with pytest.raises(InputError):
            list(_sources(path))


def test_numbers_are_no_uris(tmp_path: Path) -> None:
    """A column `uri` that holds numbers is refused."""
    (tmp_path / "list.csv").write_text("uri\n7\n")
    with pytest.raises(InputError, match="row 0: uri is 7, not a text"):
        list(_sources(tmp_path / "list.csv"))


def test_an_unsupported_scheme_in_a_manifest_is_an_input_error(tmp_path: Path) -> None:
    """A URI of another scheme is refused, and said to stand in the manifest."""
    _write_manifest(tmp_path / "list.csv", ["hdfs://node/a.jpg"])
    with pytest.raises(InputError, match=r"manifest .*list\.csv: uri='hdfs://node/a\.jpg'"):
        list(_sources(tmp_path / "list.csv"))


@_MANIFESTS
@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_a_presigned_url_in_a_manifest_is_an_input_error(
    scheme: str, ending: str, tmp_path: Path
) -> None:
    """It is refused without its signature, which would stand in every table."""
    path = tmp_path / f"list.{ending}"
    _write_manifest(path, ["/a.jpg", f"{scheme}://b/a.jpg?X-Amz-Expires=9&X-Amz-Signature=secret"])
    with pytest.raises(InputError, match="holds a password or a signature") as caught:
        list(_sources(path))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_only_the_column_of_uris_decides(ending: str, tmp_path: Path) -> None:
    """Columns of mixed types, of long fields and of vectors stand beside `uri` and cost nothing."""
    path = tmp_path / f"list.{ending}"
    long = "x" * 3_000_000
    if ending == "parquet":
        pq.write_table(pa.table({"vector": [[0.5] * 768] * 2, "uri": ["/a.jpg", "/b.jpg"]}), path)
    elif ending == "csv":
        path.write_text(f'score,uri,thumb\n1,/a.jpg,{long}\nhigh,/b.jpg,"two\nlines"\n')
    else:
        rows = [{"uri": "/a.jpg", "score": 1}, {"uri": "/b.jpg", "score": "high", "thumb": long}]
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert [source.uri for source in _sources(path)] == ["file:///a.jpg", "file:///b.jpg"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "latin-1"])
def test_a_manifest_in_another_encoding_is_told_to_be_one(
    encoding: str, ending: str, tmp_path: Path
) -> None:
    """A manifest in UTF-16, by its mark, or in no UTF-8 is an input error that says what to do."""
    path = tmp_path / f"list.{ending}"
    text = "uri\n/ä.jpg\n" if ending == "csv" else '{"uri": "/ä.jpg"}\n'
    marked = text if encoding == "latin-1" else f"\ufeff{text}"
    path.write_bytes(marked.encode(encoding))
    with pytest.raises(InputError, match="UTF-8"):
        list(_sources(path))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    """A CSV as spreadsheets write it, with a mark and Windows' line ends, is read."""
    (tmp_path / "list.csv").write_bytes("\ufeffuri\r\n/ä.jpg\r\n".encode())
    assert [source.uri for source in _sources(tmp_path / "list.csv")] == ["file:///ä.jpg"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (" a .jpg ", "{folder}/ a .jpg "),
        ("a.jpg", " {folder}/a.jpg "),
        ("a b.jpg", "file://{folder}/a%20b.jpg"),
        ("a%20b.jpg", "file://{folder}/a%20b.jpg"),
        ("ä.jpg", "file:{folder}/%C3%A4.jpg"),
        ("a.jpg", "file:{folder}/a.jpg"),
        ("a.jpg", "file://localhost{folder}/a.jpg"),
    ],
)
def test_a_name_is_taken_as_it_is_or_as_it_may_be_meant(
    name: str, written: str, tmp_path: Path
) -> None:
    """Spaces and percent signs are a name's own where it exists; else Spark's spelling is read."""
    _make(tmp_path, name)
    _write_manifest(tmp_path / "list.jsonl", [written.format(folder=tmp_path)])
    [source] = _sources(tmp_path / "list.jsonl")
    assert (source.uri, source.num_bytes) == (f"file://{tmp_path}/{name}", len(name.encode()))


def test_a_folder_of_parts_may_hold_what_is_none(tmp_path: Path) -> None:
    """An empty part, a folder, and what tools lay beside the parts are no manifests."""
    _make(tmp_path, "a.jpg", "b.jpg")
    parts = tmp_path / "list.csv"
    (parts / "x.csv").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (parts / f"part-{number}.csv").write_text(f"uri\n{tmp_path}/{name}\n")
    (parts / "part-2.csv").write_bytes(b"")
    (parts / "._part-0.csv").write_bytes(b"\0\5\x16\x07\xff")
    (parts / "_metadata.csv").write_bytes(b"\xff")
    (parts / "x.csv/c.csv").write_bytes(b"\xff")
    assert [source.uri[-5:] for source in _sources(parts)] == ["a.jpg", "b.jpg"]


def test_what_may_not_be_looked_at_is_planned_and_will_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link into a folder that may not be entered is an image without a version, by its name."""
    _make(tmp_path, "a.jpg")
    entries = [*Storage().walk(f"file://{tmp_path}"), Entry(f"file://{tmp_path}/p.jpg", "", 0)]
    others = [Entry(f"file://{tmp_path}/notes.txt", "", 0)]
    monkeypatch.setattr(Storage, "walk", lambda *_: iter(entries + others))
    found = {source.key: source for source in _sources(tmp_path)}
    assert found.keys() == {"a.jpg", "p.jpg"}
    assert (found["p.jpg"].version, found["p.jpg"].num_bytes) == (None, None)


# Buckets


def _bucket(server: Server, *keys: str) -> tuple[Storage, str]:
    bucket = server.make_bucket()
    for key in keys:
        server.put(bucket, key, b"" if key == "photos" else key.encode())
    return Storage(server.endpoint_url), bucket


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_empty_object_does_not_hide_the_folder_of_its_name(slash: str, s3: Server) -> None:
    """A marker that a tool has laid beside a prefix is no image; the images below are planned."""
    storage, bucket = _bucket(
        s3, "photos", "photos/", "photos/0.jpg", "photos/1.jpg", "photos2.jpg"
    )
    found = Sources(storage, f"s3://{bucket}/photos{slash}", "file:///out", 2)
    assert sorted(source.key for source in found) == ["0.jpg", "1.jpg"]


def test_a_slash_tells_a_folder_from_an_object(
    s3: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Where an object and a folder have one name, the slash decides, and its lack is said."""
    storage, bucket = _bucket(s3, "shot", "shot/0.jpg")
    place = f"s3://{bucket}/shot"
    assert [one.key for one in Sources(storage, f"{place}/", "file:///out", 2)] == ["0.jpg"]
    assert not caplog.messages
    assert [one.key for one in Sources(storage, place, "file:///out", 2)] == ["shot"]
    assert "is an object and a folder: the object is taken" in caplog.text


def test_sparks_names_of_buckets_are_read(tmp_path: Path, s3: Server) -> None:
    """s3a:// and s3n:// are s3://, and percent-encoded keys are found."""
    storage, bucket = _bucket(s3, "p/a b.jpg")
    _write_manifest(tmp_path / "list.csv", [f"s3a://{bucket}/p/a%20b.jpg"])
    [source] = Sources(storage, f"file://{tmp_path}/list.csv", "file:///out", 2)
    assert (source.uri, source.num_bytes) == (f"s3://{bucket}/p/a b.jpg", 9)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_manifest_that_is_trusted_costs_no_request_per_image(ending: str, tmp_path: Path) -> None:
    """Its ETags and sizes are the sources', without quotes, and digits stay a text."""
    table = pa.table(
        {
            "uri": ["s3://nowhere/b.jpg", "s3://nowhere/a b.jpg"],
            "etag": ["00000000000000000000000000000012", '"3858f62230ac3c915f300c664312c63f-2"'],
            "num_bytes": [12, 0],
            "other": [1.5, None],
        }
    )
    path = tmp_path / f"list.{ending}"
    if ending == "csv":
        pa.csv.write_csv(table, path)
    elif ending == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    storage = Storage().counting()
    place = (f"file://{path}", "file:///out", 2)

    found = list(Sources(storage, *place, Reading(trust_manifest=True)))

    assert [(one.key, one.version, one.num_bytes) for one in found] == [
        ("nowhere/b.jpg", "00000000000000000000000000000012", 12),
        ("nowhere/a b.jpg", "3858f62230ac3c915f300c664312c63f-2", 0),
    ]
    # At the manifest, as an input and as a file.
    assert storage.requests["look"] == 2


def _many_rows(folder: Path, ending: str) -> Path:
    path = folder / f"list.{ending}"
    with path.open("w") as file:
        file.writelines(["uri,etag,num_bytes\n"] if ending == "csv" else [])
        for number in range(200_000):
            uri = f"s3://bucket/{'of a long name ' * 8}{number:06d}.jpg"
            row = {"uri": uri, "etag": f"{number:032x}", "num_bytes": number}
            line = ",".join(map(str, row.values())) if ending == "csv" else json.dumps(row)
            file.write(f"{line}\n")
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_manifest_is_read_in_parts(ending: str, tmp_path: Path) -> None:
    """However long it is, what lies in memory of it is some megabytes; each row comes once."""
    path = _many_rows(tmp_path, ending)
    assert path.stat().st_size > 34 << 20
    tracemalloc.start()
    try:
        with open_object(Storage(), f"file://{path}") as file:
            numbers = [one.num_bytes for one in manifest_entries(file, path.name, trusted=True)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert numbers == list(range(200_000))
    assert peak < 28 << 20


def test_a_parquet_manifest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its columns are read in turn, and no part of it is asked for again at every turn."""
    rows = 300_000
    table = pa.table(
        {
            "uri": [f"s3://bucket/{number:040d}.jpg" for number in range(rows)],
            "etag": [f"{number:032x}" for number in range(rows)],
            "num_bytes": list(range(rows)),
            "other": [f"{number:060d}" for number in range(rows)],
        }
    )
    path = tmp_path / "list.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=rows)
    asked = []
    readinto = ObjectFile.readinto

    def counted(file: ObjectFile, buffer: memoryview) -> int:
        asked.append(len(buffer))
        return readinto(file, buffer)

    monkeypatch.setattr(ObjectFile, "readinto", counted)
    found = manifest_entries(open_object(Storage(), f"file://{path}"), path.name, trusted=True)
    assert sum(1 for _ in found) == rows
    assert sum(asked) < 1.1 * path.stat().st_size
    assert len(asked) < 40


def test_a_manifest_that_changes_while_it_is_read_ends_the_command(tmp_path: Path) -> None:
    """Half of one list and half of another would be the input of nobody."""
    path = _many_rows(tmp_path, "csv")
    rows = manifest_entries(open_object(Storage(), f"file://{path}"), path.name, trusted=True)
    next(rows)
    path.write_bytes(path.read_bytes().replace(b"bucket", b"basket"))
    with pytest.raises(StoreError, match="was planned as version") as raised:
        list(rows)
    assert raised.value.code is ErrorCode.CHANGED


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_what_a_trusted_manifest_does_not_know_is_looked_up(ending: str, tmp_path: Path) -> None:
    """A row without ETag and size is one for which there was nothing to say."""
    (tmp_path / "a.jpg").write_bytes(b"abc")
    row = {"uri": f"{tmp_path}/a.jpg", "etag": None, "num_bytes": None}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    (tmp_path / "list.csv").write_text(f"uri,etag,num_bytes\n{tmp_path}/a.jpg,,\n")
    place = (f"file://{tmp_path}/list.{ending}", "file:///out", 2)

    [source] = Sources(Storage(), *place, Reading(trust_manifest=True))

    assert source.num_bytes == 3


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"uri": "/a.jpg", "etag": "e"}, "needs one column each of `uri`, `etag` and `num_bytes`"),
        ({"uri": "/a.jpg", "etag": None, "num_bytes": 1}, "row 0: etag is None, not a text"),
        ({"uri": "/a.jpg", "etag": '""', "num_bytes": 1}, "row 0: etag is '\"\"', not a text"),
        (
            {"uri": "/a.jpg", "etag": "\ud800", "num_bytes": 1},
            r"row 0: etag is '\\ud800', not a te",
        ),
        ({"uri": "/a.jpg", "etag": "a\nb", "num_bytes": 1}, r"row 0: etag is 'a\\nb', not a text"),
        ({"uri": "/a.jpg", "etag": "e", "num_bytes": True}, "row 0: num_bytes is True, no number"),
        ({"uri": "/a.jpg", "etag": "e", "num_bytes": 10**20}, "num_bytes is 1000.*, no number of"),
        ({"uri": "/a.jpg", "etag": "e", "num_bytes": -1}, "row 0: num_bytes is -1, no number of"),
        ({"uri": "/a.jpg", "etag": "e", "num_bytes": "1"}, "row 0: num_bytes is '1', no number of"),
    ],
)
def test_what_can_not_be_trusted_is_refused(
    row: dict[str, object], words: str, tmp_path: Path
) -> None:
    """A manifest that lacks a column or a value is refused with its row."""
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    place = (f"file://{tmp_path}/list.jsonl", "file:///out", 2)

    with pytest.raises(InputError, match=words):
        list(Sources(Storage(), *place, Reading(trust_manifest=True)))


def test_texts_that_are_bytes_in_parquet_are_read(tmp_path: Path) -> None:
    """As writers leave them that do not say that a column holds texts."""
    (tmp_path / "a.jpg").write_bytes(b"abc")
    uris = pa.array([f"{tmp_path}/a.jpg".encode()], pa.binary())
    pq.write_table(pa.table({"uri": uris}), tmp_path / "list.parquet")
    assert [source.num_bytes for source in _sources(tmp_path / "list.parquet")] == [3]


# Missing inputs


@pytest.mark.parametrize("name", ["nothing", "nothing.jpg", "nothing.csv", "no/folder/*.jpg"])
def test_a_missing_input_is_an_input_error(name: str, tmp_path: Path) -> None:
    """An input that is not there is refused with its name."""
    with pytest.raises(InputError, match=r"input='file://.*/no.*does not exist"):
        list(_sources(tmp_path / name))


def test_a_trusted_manifest_may_say_where_in_a_tar() -> None:
    """Offsets are numbers, or nothing for an image that is an object of its own."""
    head = "uri,etag,num_bytes,image_offset\n"
    lines = f"{head}s3://b/a.jpg,e,5,\ns3://b/t.tar!/x.jpg,e,5,512\n"
    found = list(manifest_entries(io.BytesIO(lines.encode()), "list.csv", trusted=True))
    assert found == [
        Named("s3://b/a.jpg", "e", 5, None),
        Named("s3://b/t.tar!/x.jpg", "e", 5, 512),
    ]
    wrong = io.BytesIO(f"{head}s3://b/a.jpg,e,5,-1\n".encode())
    with pytest.raises(InputError, match="row 0: image_offset is '-1', no number of bytes"):
        list(manifest_entries(wrong, "list.csv", trusted=True))


def test_an_offset_is_for_what_lies_in_a_tar() -> None:
    """As zeros stand for nulls in a table that was put together from others."""
    for uri in ("s3://b/a.jpg", "s3://b/t.parquet!/image/000000001"):
        lines = f"uri,etag,num_bytes,image_offset\n{uri},e,5,0\n"
        found = manifest_entries(io.BytesIO(lines.encode()), "list.csv", trusted=True)
        with pytest.raises(InputError, match="row 0: image_offset is 0, and"):
            list(found)
