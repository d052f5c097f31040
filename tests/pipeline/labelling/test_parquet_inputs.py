"""Images in Parquet files: each is labelled as the same file would be, and every row is one."""

import base64
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from pipeline.errors import ErrorCode, InputError, SettingError, StoreError
from pipeline.export.items import read_item
from pipeline.images.ground_truth import Coding
from pipeline.inputs.inspect import Chunk, Inspect
from pipeline.inputs.listing import Sources
from pipeline.labelling.draft import draft
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.history import History
from pipeline.labelling.plan import run_to_continue
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ShardGroup
from pipeline.labelling.verify import verify
from pipeline.store import cells
from pipeline.store.cells import ImageColumn, OpenColumns, open_parquet, read_image
from pipeline.store.extent import Extent
from pipeline.store.object_file import ObjectFile
from pipeline.store.storage import Storage
from tests.disk_runs import make_settings, network_record, random_pixels, start_run
from tests.pipeline.labelling.test_tar_inputs import _draft, _hashes, _labelled, _rows, picture
from tests.servers import Server

_Images = Sequence[bytes | None]


def _plain(images: _Images, **_: Any) -> pa.Table:
    return pa.table({"jpg": pa.array(images, pa.binary()), "caption": ["x"] * len(images)})


def _large(images: _Images, **_: Any) -> pa.Table:
    return pa.table({"content": pa.array(images, pa.large_binary())})


def _hugging_face(images: _Images, **_: Any) -> pa.Table:
    rows = [None if data is None else {"bytes": data, "path": "a.png"} for data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"label": list(range(len(images))), "image": pa.array(rows, kind)})


def table_of(images: _Images, form: Callable[..., pa.Table] = _hugging_face, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(form(images), buffer, **{"row_group_size": 3, **how})
    return buffer.getvalue()


def _put(folder: Path, **tables: bytes) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    for name, data in tables.items():
        (folder / "in" / f"{name}.parquet").write_bytes(data)
    return folder / "in"


@pytest.mark.parametrize("form", [_plain, _large, _hugging_face])
@pytest.mark.parametrize("how", [{}, {"compression": "none"}, {"use_dictionary": False}])
def test_masks_are_those_of_the_same_files(
    form: Callable[..., pa.Table], how: dict[str, Any], tmp_path: Path
) -> None:
    """Out of Parquet come the masks that files give; the run is whole, a rerun has nothing."""
    for seed in range(9):
        Storage().write(f"file://{tmp_path}/files/{seed}.png", picture(seed))
    first, second = (table_of([picture(seed) for seed in some], form, **how)
                     for some in (range(5), range(5, 9)))  # fmt: skip
    source = _put(tmp_path, a=first, b=second)
    files = _labelled(tmp_path, tmp_path / "files")
    run = _labelled(tmp_path, source, input_form="parquet", max_shard_images=4)
    assert list(_hashes(run).values()) == list(_hashes(files).values())
    verdict = verify(run, 2)
    assert (verdict.num_masks, verdict.finished, str(verdict.breaks)) == (9, True, "")
    again = _draft(tmp_path, source, input_form="parquet")
    assert (again.num_images, again.num_skipped) == (0, 9)


def test_a_row_says_where_its_image_lies(tmp_path: Path) -> None:
    """URI, key, version and size are in the table, and enough to read the image again."""
    source = _put(tmp_path, a=table_of([picture(seed) for seed in range(4)]))
    run = _labelled(tmp_path, f"{source}/*.parquet")
    rows = _rows(run)
    uri = f"file://{source}/a.parquet"
    assert rows[3]["uri"] == f"{uri}!/image/000000003"
    assert rows[3]["key"] == "a.parquet/image/000000003"
    assert rows[3]["mask_uri"] == f"{run.masks_folder}/a.parquet/image/000000003.png"
    for seed, row in enumerate(rows):
        place = Extent.of_image(row)
        assert read_image(Storage(), place, row["etag"], 1 << 20) == picture(seed)
        assert (row["num_bytes"], row["image_offset"]) == (len(picture(seed)), None)
        assert read_item(Storage(), str(seed), row, with_image=True).image == picture(seed)


def test_each_form_of_naming_opens_the_tables(tmp_path: Path) -> None:
    """One file, a pattern, a folder, or a folder as Spark names it, with images beside them."""
    source = _put(tmp_path, a=table_of([picture(1), picture(2)]), b=table_of([picture(3)]))
    (source / "c.png").write_bytes(picture(4))
    spark = tmp_path / "spark.parquet"
    spark.mkdir()
    (spark / "part-0.parquet").write_bytes(table_of([picture(5)]))
    for named, form, expected in (
        (source / "a.parquet", "parquet", 2),
        (f"{source}/*.parquet", "files", 3),
        (source, "parquet", 4),
        (spark, "parquet", 1),
        (source, "files", 1),
    ):
        assert _draft(tmp_path, named, input_form=form).num_images == expected


def test_tables_that_nobody_asked_to_open_are_named(tmp_path: Path) -> None:
    """A folder of nothing but Parquet files says which setting labels what is in them."""
    source = _put(tmp_path, a=table_of([picture(1)]))
    with pytest.raises(InputError, match=r"1 of them Parquet files\); input_form=parquet labels"):
        _draft(tmp_path, source)
    with pytest.raises(InputError, match=r"needs one column `uri`.*input_form=parquet labels them"):
        _draft(tmp_path, source / "a.parquet")


def test_what_a_row_lacks_is_a_row(tmp_path: Path) -> None:
    """A null, no image, and one that is too large cost a row each, and no other its mask."""
    images = [picture(0), None, b"no image", picture(3) + bytes(4000), picture(4)]
    source = _put(tmp_path, a=table_of(images))
    run = start_run(tmp_path, source, input_form="parquet", max_image_bytes=3000)
    fetched = Fetch(run.storage, 3000, 2).shard(run.missing()[0])
    codes = [image["error_code"] for image in fetched["images"]]
    assert codes == [None, "corrupt", None, "too_many_bytes", None]
    assert "row 1 of image) is null" in (fetched["images"][1]["error_message"] or "")


def test_another_version_is_another_file(tmp_path: Path) -> None:
    """A table that has changed since it was planned gives rows, and is planned anew."""
    source = _put(tmp_path, a=table_of([picture(0), picture(1)]))
    run = start_run(tmp_path, source, input_form="parquet")
    _put(tmp_path, a=table_of([picture(2), picture(3), picture(4)]))
    fetched = Fetch(run.storage, 1 << 20, 2).shard(run.missing()[0])
    assert {image["error_code"] for image in fetched["images"]} == {"changed"}
    assert _draft(tmp_path, source, input_form="parquet").num_images == 3


def test_a_damaged_table_is_a_row(tmp_path: Path) -> None:
    """A file that is cut off costs one row that names it; the others are labelled."""
    whole = table_of([picture(0), picture(1)])
    source = _put(tmp_path, a=whole, b=whole[:-20], c=b"")
    run = _labelled(tmp_path, source, input_form="parquet")
    found = {row["key"]: row["error_code"] for row in _rows(run)}
    assert found == {
        "a.parquet/image/000000000": None,
        "a.parquet/image/000000001": None,
        "b.parquet": "corrupt",
        "c.parquet": "corrupt",
    }
    assert verify(run, 2).finished


def test_damage_within_a_table_costs_its_rows_alone(tmp_path: Path) -> None:
    """Bytes that were overwritten cost the images of their row group; nothing is decoded of it."""
    images = [picture(seed) for seed in range(6)]
    data = bytearray(table_of(images, compression="zstd", use_dictionary=False))
    start = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(0).column(1).data_page_offset
    data[start : start + 40] = bytes(40)
    source = _put(tmp_path, a=bytes(data))
    run = _labelled(tmp_path, source, input_form="parquet")
    codes = [row["error_code"] for row in _rows(run)]
    assert codes == ["corrupt"] * 3 + [None] * 3


def test_the_column_is_chosen_or_asked_for(tmp_path: Path) -> None:
    """Two columns that may be images are named, and image_column chooses; so is none at all."""
    both = pa.table({"left": pa.array([picture(0)]), "right": pa.array([picture(1)]), "n": [1]})
    buffer = io.BytesIO()
    pq.write_table(both, buffer)
    source = _put(tmp_path, a=buffer.getvalue())
    with pytest.raises(InputError, match=r"2 columns that may be images; image_column names one"):
        _draft(tmp_path, source, input_form="parquet")
    run = _labelled(tmp_path, source, input_form="parquet", image_column="right")
    assert _rows(run)[0]["key"] == "a.parquet/right/000000000"
    assert _rows(run)[0]["height"] == 6
    with pytest.raises(InputError, match=r"no column 'n' of images.*left \(binary\)"):
        _draft(tmp_path, source, input_form="parquet", image_column="n")
    pq.write_table(pa.table({"uri": ["x"]}), source / "a.parquet")
    with pytest.raises(InputError, match=r"has no column of images, which are binary"):
        _draft(tmp_path, source, input_form="parquet")


def test_a_row_group_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that are fetched one after the other read each row group once between them."""
    read: list[int] = []
    column = cells.ParquetObject.read_column

    def count(self: cells.ParquetObject, group: int, *how: Any) -> Iterator[Any]:
        read.append(group)
        yield from column(self, group, *how)

    monkeypatch.setattr(cells.ParquetObject, "read_column", count)
    source = _put(tmp_path, a=table_of([picture(seed) for seed in range(10)], row_group_size=4))
    run = start_run(tmp_path, source, input_form="parquet", max_shard_images=3)
    task = run.missing()[0]
    group = ShardGroup(plan_uri=task["plan_uri"], first_shard=0, row_groups=[0, 1, 2, 3])
    shards = list(Fetch(run.storage, 1 << 20, 2)(group))
    assert sum(len(shard["images"]) for shard in shards) == 10
    assert read == [0, 1, 2]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("image/000000007", "has 1 rows, not row 7"),
        ("other/000000000", "has no column 'other' of images"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, cell: str, message: str) -> None:
    """A row beyond the end and a column of another name are refused."""
    source = _put(tmp_path, a=table_of([picture(0)]))
    place = Extent.of_image({"uri": f"file://{source}/a.parquet!/{cell}"})
    with pytest.raises(StoreError, match=message):
        read_image(Storage(), place)


def test_a_column_is_read_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group of any size lies in memory in parts; any order of rows gives their images."""
    monkeypatch.setattr("pipeline.store.cells._BYTES_AT_A_TIME", 40_000)
    monkeypatch.setattr("pipeline.store.cells._BUFFER_BYTES", 300)
    # A page's header is looked for in 16 kB; writers end a page behind so many values.
    images = [random_pixels(seed, 20_000).tobytes() for seed in range(12)]
    pages = {"write_batch_size": 2, "data_page_size": 200}
    how = {"row_group_size": 8, "use_dictionary": False, **pages}
    source = _put(tmp_path, a=table_of(images, compression="none", **how))
    storage = Storage().counting()
    column = ImageColumn(open_parquet(storage, f"file://{source}/a.parquet"), "image")
    before = storage.requests["read"]
    for row in (0, 1, 3, 7, 8, 11, 2, 3, 0):
        uri = f"file://{source}/a.parquet!/image/{row:09}"
        assert column.read(Extent.of_image({"uri": uri})) == images[row]
    assert storage.requests["read"] - before > 12


def test_neighbours_in_many_threads_read_a_row_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that go through a column side by side share what is read, as an export does."""
    begun: list[int] = []
    begin = ImageColumn._begin

    def count(self: ImageColumn, group: int) -> None:
        begun.append(group)
        begin(self, group)

    monkeypatch.setattr(ImageColumn, "_begin", count)
    images = [picture(seed) for seed in range(300)]
    source = _put(tmp_path, a=table_of(images, row_group_size=150))
    columns = OpenColumns(behind=32)

    def read(row: int) -> bytes:
        uri = f"file://{source}/a.parquet!/image/{row:09}"
        return read_image(Storage(), Extent.of_image({"uri": uri}), columns=columns)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(300))) == images
    assert begun[:2] == [-1, 0]
    assert len(begun) < 60


def test_a_manifest_may_name_rows(tmp_path: Path) -> None:
    """A selection of rows is labelled as they were, also when one of them is not there."""
    source = _put(tmp_path, a=table_of([picture(seed) for seed in range(4)]))
    places = [f"{source}/a.parquet!/image/{row:09}" for row in (2, 9)]
    places.append(f"{source}/gone.parquet!/image/000000001")
    lines = "".join(json.dumps({"uri": place}) + "\n" for place in places)
    (tmp_path / "list.jsonl").write_text(lines)
    run = _labelled(tmp_path, tmp_path / "list.jsonl")
    found = {row["key"].removeprefix(str(source)[1:]): row["error_code"] for row in _rows(run)}
    assert found == {
        "/a.parquet/image/000000002": None,
        "/a.parquet/image/000000009": "corrupt",
        "/gone.parquet/image/000000001": "not_found",
    }


def test_rows_of_a_manifest_are_looked_up_by_file(tmp_path: Path) -> None:
    """However many rows of a file are named, it is looked up once; its name may be encoded."""
    (tmp_path / "my tables").mkdir()
    source = _put(tmp_path / "my tables", a=table_of([picture(seed) for seed in range(9)]))
    place = f"file://{source}/a.parquet!/image".replace(" ", "%20")
    lines = "".join(json.dumps({"uri": f"{place}/{row:09}"}) + "\n" for row in range(9))
    (tmp_path / "list.jsonl").write_text(lines)
    storage = Storage().counting()
    sources = list(Sources(storage, f"file://{tmp_path}/list.jsonl", f"file://{tmp_path}/out", 2))
    assert [one.uri for one in sources] == [
        f"file://{source}/a.parquet!/image/{row:09}" for row in range(9)
    ]
    assert all(one.version and one.num_bytes for one in sources)
    assert storage.requests["look"] <= 4


def test_rows_behind_the_end_end_no_run(tmp_path: Path) -> None:
    """A manifest of nothing but rows that are not there is rows, and not a store that fails."""
    source = _put(tmp_path, a=table_of([picture(0)]))
    lines = "".join(
        json.dumps({"uri": f"{source}/a.parquet!/image/{row:09}"}) + "\n" for row in range(5, 11)
    )
    (tmp_path / "list.jsonl").write_text(lines)
    run = _labelled(tmp_path, tmp_path / "list.jsonl", max_shard_images=2)
    assert {row["error_code"] for row in _rows(run)} == {"corrupt"}


def test_what_was_not_there_is_not_labelled(tmp_path: Path) -> None:
    """Rows of a file that was missing when they were planned are `changed`, also beside known."""
    (tmp_path / "in").mkdir()
    uri = f"file://{tmp_path}/in/a.parquet!/image/"
    listed = f"uri,etag,num_bytes\n{uri}000000000,abc,10\n{uri}000000001,,\n"
    (tmp_path / "list.csv").write_text(listed)
    settings = make_settings(tmp_path, tmp_path / "list.csv", trust_manifest=True)
    planned = draft(History(Storage(), settings.output), settings, network_record()).sample(9)
    _put(tmp_path, a=table_of([picture(0), picture(1)]))
    fetched = Fetch(Storage(), 1 << 20, 2).images(planned)
    assert [image["error_code"] for image in fetched] == ["changed", "changed"]


def test_another_column_is_another_work(tmp_path: Path) -> None:
    """A run that was begun with one column is not resumed with another."""
    both = pa.table({"left": pa.array([picture(0)]), "right": pa.array([picture(1)])})
    buffer = io.BytesIO()
    pq.write_table(both, buffer)
    source = _put(tmp_path, a=buffer.getvalue())
    begun = start_run(tmp_path, source, input_form="parquet", image_column="left")
    history = History(Storage(), begun.output)
    for column, expected in (("left", begun.run_id), ("right", None)):
        fields = {"input_form": "parquet", "image_column": column}
        found = run_to_continue(
            history, make_settings(tmp_path, source, **fields), network_record()
        )
        assert (found and found.run_id) == expected
    with pytest.raises(SettingError, match="image_column='left' is for input_form=parquet"):
        _draft(tmp_path, source, image_column="left")


def test_other_tables_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Metadata, an output's tables and what a writer sets aside cost no run; one line says so."""
    source = _put(tmp_path, a=table_of([picture(0), picture(1)]), _meta=b"", meta=b"")
    for name in ("meta", "images/run=x/part-0", "class_statistics/run=x/part-0"):
        path = source / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"key": ["x"]}), path)
    (source / "._a.parquet").write_bytes(b"of a Mac")
    caplog.set_level(logging.WARNING)
    assert _draft(tmp_path, source, input_form="parquet").num_images == 2
    assert "3 Parquet files are left out, such as this one" in caplog.text
    pq.write_table(table_of_none(), source / "a.parquet")
    with pytest.raises(InputError, match="holds no images but 1 Parquet file without rows"):
        _draft(tmp_path, source, input_form="parquet")


def table_of_none() -> pa.Table:
    return _plain([])


def test_a_manifest_whose_name_looks_like_a_pattern_is_one(tmp_path: Path) -> None:
    """What is there by that name goes first: a list[1].parquet of URIs names images."""
    (tmp_path / "a.png").write_bytes(picture(1))
    pq.write_table(pa.table({"uri": [f"{tmp_path}/a.png"]}), tmp_path / "list[1].parquet")
    assert _draft(tmp_path, tmp_path / "list[1].parquet").num_images == 1


@pytest.mark.parametrize(
    "column", ["a.b", "a/b", "a!/b", "x!", ".", "..", "a//b", "50 %", "%21", "ä", "a\nb", "a?b#c"]
)
def test_a_column_of_any_name_is_found_again(tmp_path: Path, column: str) -> None:
    """What means something in a URI is encoded; one without a name is no column of images."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({column: pa.array([picture(0)]), "": pa.array([b"x"])}), buffer)
    source = _put(tmp_path, a=buffer.getvalue())
    run = _labelled(tmp_path, source, input_form="parquet")
    [row] = _rows(run)
    assert row["error_code"] is None
    assert Extent.of_image(row).cell == (column, 0)
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": row["uri"]}) + "\n")
    assert _draft(tmp_path, tmp_path / "list.jsonl").num_images == 0


def test_columns_that_share_a_path_are_told_apart(tmp_path: Path) -> None:
    """A flat column named as a struct's field is another one; a name that is twice, none."""
    struct = _hugging_face([picture(1)])["image"]
    flat = pa.array([picture(0)], pa.binary())
    buffer = io.BytesIO()
    pq.write_table(pa.table([flat, struct], names=["image.bytes", "image"]), buffer)
    source = _put(tmp_path, a=buffer.getvalue())
    for column, seed in (("image", 1), ("image.bytes", 0)):
        place = Extent.of_image({"uri": f"file://{source}/a.parquet!/{column}/000000000"})
        assert read_image(Storage(), place) == picture(seed)
    buffer = io.BytesIO()
    pq.write_table(pa.table([flat, flat], names=["image", "image"]), buffer)
    _put(tmp_path, a=buffer.getvalue())
    with pytest.raises(InputError, match="have a name of their own"):
        _draft(tmp_path, source, input_form="parquet")


@pytest.mark.parametrize(
    "kind", [pa.binary_view(), pa.binary(len(picture(0))), pa.dictionary(pa.int32(), pa.binary())]
)
def test_bytes_of_any_kind_are_images(tmp_path: Path, kind: pa.DataType) -> None:
    """Views, fixed sizes and dictionaries hold bytes, too."""
    buffer = io.BytesIO()
    column = pa.array([picture(0)] * 3, pa.binary()).cast(kind)
    pq.write_table(pa.table({"image": column}), buffer)
    source = _put(tmp_path, a=buffer.getvalue())
    run = _labelled(tmp_path, source, input_form="parquet")
    assert [row["error_code"] for row in _rows(run)] == [None] * 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreError(ErrorCode.TIMEOUT, "no answer"), "timeout"),
        (pa.ArrowMemoryError("malloc of 1 GB failed"), "out_of_memory"),
        (pa.ArrowNotImplementedError("LZO"), "unsupported_format"),
    ],
)
def test_one_failure_costs_what_it_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    """What was read before it stands, and what comes after it is asked for again."""
    source = _put(tmp_path, a=table_of([picture(seed) for seed in range(9)]))
    run = start_run(tmp_path, source, input_form="parquet")
    read, failures = ObjectFile.readinto, [error]

    def fail_once(self: ObjectFile, buffer: Any) -> int:
        if self._position > 500 and len(buffer) < 2000 and failures:
            raise failures.pop()
        return read(self, buffer)

    monkeypatch.setattr(ObjectFile, "readinto", fail_once)
    fetched = Fetch(run.storage, 1 << 20, 2).shard(run.missing()[0])
    codes = [image["error_code"] for image in fetched["images"]]
    assert codes == [None] * 3 + [code] + [None] * 5


def test_other_columns_may_be_encrypted(tmp_path: Path) -> None:
    """A file with a footer in plain and another column that is secret is read."""
    factory = encryption.CryptoFactory(lambda _: _Keys())
    how = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["label"]}, plaintext_footer=True
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
    table = _hugging_face([picture(0)])
    source = _put(tmp_path)
    with pq.ParquetWriter(
        source / "a.parquet", table.schema, encryption_properties=properties
    ) as writer:
        writer.write_table(table)
    run = _labelled(tmp_path, source, input_form="parquet")
    assert [row["error_code"] for row in _rows(run)] == [None]


class _Keys(encryption.KmsClient):
    """Wraps keys in nothing."""

    def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped_key)


_DAMAGE_FOOTERS = """
import random, sys
from pipeline.errors import ErrorCode, InputError, SettingError, StoreError
from pipeline.inputs.open_tables import OpenTables
from pipeline.inputs.source import Source
from pipeline.store.cells import read_image
from pipeline.store.storage import Storage
path, whole = sys.argv[1], open(sys.argv[1], "rb").read()
chance, storage = random.Random(7), Storage()
rows = 0
for _ in range(1500):
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 5])):
        data[chance.randrange(len(data) - 900, len(data))] = chance.randrange(256)
    open(path, "wb").write(data)
    uri = "file://" + path
    file = Source("a.parquet", uri, storage.stat(uri).version, len(data))
    try:
        for source in list(OpenTables(storage, 1, None).opened([file]))[:12]:
            rows += 1
            if source.refusal is None:
                read_image(storage, source.place, source.version, 1 << 20)
    except (InputError, StoreError):
        pass
print("rows", rows)
"""


def test_damaged_footers_end_no_process(tmp_path: Path) -> None:
    """Bytes that are wrong in a footer give rows or an error, and never the end of the driver."""
    path = tmp_path / "a.parquet"
    path.write_bytes(table_of([picture(seed) for seed in range(5)]))
    command = [sys.executable, "-c", _DAMAGE_FOOTERS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > 1000


def test_training_reads_them_too(tmp_path: Path) -> None:
    """A row of a label's own table is a sample whose image lies in Parquet."""
    source = _put(tmp_path, a=table_of([picture(seed) for seed in range(2)]))
    run: Run = _labelled(tmp_path, source, input_form="parquet")
    rows = _rows(run)
    number = len(rows)
    chunk = Chunk(
        split="train",
        image_uris=[row["uri"] for row in rows],
        mask_uris=[row["mask_uri"] for row in rows],
        mask_offsets=[None] * number,
        mask_bytes=[None] * number,
        image_offsets=[None] * number,
        image_bytes=[None] * number,
        image_copies=[None] * number,
    )
    found = Inspect(Storage(), Coding("indices", 4), 10_000, 60.0, 2)(chunk)["findings"]
    assert [one["problem"] for one in found] == ["", ""]


def test_tables_in_a_bucket(s3: Server, tmp_path: Path) -> None:
    """A footer takes one request; images take a look at their file, its footer and row groups."""
    bucket = s3.make_bucket()
    images = [picture(seed) for seed in range(6)]
    s3.put(bucket, "in/a.parquet", table_of(images))
    fields = {"s3_endpoint_url": s3.endpoint_url, "input_form": "parquet"}
    settings = make_settings(tmp_path, f"s3://{bucket}/in", **fields)
    storage = settings.storage()
    drafted = draft(History(storage, settings.output), settings, network_record())
    assert drafted.num_header_reads == 1
    planned = drafted.sample(100)
    counting = storage.counting()
    fetched = Fetch(counting, 1 << 20, 2).images(planned)
    assert [image["data"] for image in fetched] == images
    assert counting.requests == {"look": 1, "read": 3}
    s3.put(bucket, "in/a.parquet", table_of(images[1:]))
    codes = {image["error_code"] for image in Fetch(storage, 1 << 20, 2).images(planned)}
    assert codes == {"changed"}
