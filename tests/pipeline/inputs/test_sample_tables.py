"""Tables of `label` and `select` as labelled data sets."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.errors import InputError
from pipeline.images.masks import decode_mask
from pipeline.inputs.data_set import Asked, open_data_set
from pipeline.inputs.layouts import find_labelled
from pipeline.inputs.samples import Sample
from pipeline.store.storage import Storage
from tests.disk_runs import NUM_CLASSES
from tests.pipeline.export.labelled_output import on_disk, truth, two_nights


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with in/ and out/, of two nights."""
    folder = tmp_path_factory.mktemp("nights")
    two_nights(on_disk(folder), Storage())
    return folder


def test_a_selection_is_a_data_set(place: Path, tmp_path: Path):
    """It has an image's newest mask, the run's classes, and no split."""
    table = tmp_path / "look.parquet"
    assert main(["select", str(place / "out"), "--to", str(table)]) == 0
    rows = pq.read_table(table).to_pylist()

    found = find_labelled(Storage(), f"file://{table}")

    assert found.layout == "table"
    assert {one.image_uri: one.mask_uri for one in found.split("val")} == {
        row["uri"]: row["mask_uri"] for row in rows
    }
    data_set = open_data_set(Storage(), Asked(f"file://{table}", "train"))
    assert len(data_set.classes) == NUM_CLASSES
    assert data_set.coding.kind == "indices"
    with pytest.raises(InputError, match=r"no split 'val'; it has default"):
        found.named("val")


@pytest.mark.parametrize("whole", [True, False])
def test_a_table_of_a_run_is_a_data_set(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, whole: bool
):
    """The folder or a file of it; failed rows are left out, copied outputs found where they lie."""
    caplog.set_level(logging.INFO)
    shutil.copytree(place / "out", tmp_path / "copy")
    folder = tmp_path / "copy/images/run=night-1"
    [file] = folder.iterdir()

    found = find_labelled(Storage(), f"file://{folder if whole else file}")

    samples = found.split("train")
    assert len(samples) == 9
    for sample in samples:
        assert sample.mask_uri.startswith(f"file://{tmp_path}/copy/masks/run=night-1/")
        assert Path(sample.mask_uri.removeprefix("file://")).is_file()
    assert "1 of 10 images" in caplog.text
    assert found.classes_uri == f"file://{tmp_path}/copy/runs/night-1/run.json"


def test_a_table_keeps_the_splits_that_it_is_given(place: Path, tmp_path: Path):
    """A column `split` that was added divides it."""
    [file] = (place / "out/images/run=night-1").iterdir()
    table = pq.read_table(file)
    split = pa.array(["val" if index < 4 else "train" for index in range(table.num_rows)])
    pq.write_table(table.append_column("split", split), tmp_path / "set.parquet")

    splits = find_labelled(Storage(), f"file://{tmp_path}/set.parquet").splits

    assert sum(map(len, splits.values())) == 9
    assert splits.keys() == {"train", "val"}


def test_what_is_no_finished_table_is_named(place: Path, tmp_path: Path):
    """An output, an unfinished run, rows without masks, and two networks' classes are refused."""

    def refused(path: Path, words: str) -> None:
        with pytest.raises(InputError, match=words):
            find_labelled(Storage(), f"file://{path}")

    refused(place / "out", r"is an output of label: name one run of it, .*/out/images/run=RUN")
    shutil.copytree(place / "out", tmp_path / "out")
    (tmp_path / "out/runs/night-1/manifest.json").unlink()
    refused(tmp_path / "out/images/run=night-1", "no finished run; label finishes it")
    [file] = (place / "out/images/run=night-1").iterdir()
    table = pq.read_table(file)
    failed = table.filter(pa.compute.is_null(table["mask_uri"]))
    pq.write_table(failed, tmp_path / "failed.parquet")
    refused(tmp_path / "failed.parquet", "has 1 images, and none of them has a mask")
    record = tmp_path / "out/runs/night-2/run.json"
    record.write_text(record.read_text().replace("class_1", "river"))
    ok = [row for row in table.to_pylist() if row["mask_uri"]]
    rows = [
        {**ok[0], "mask_uri": f"file://{tmp_path}/out/masks/run=night-1/a.png"},
        {**ok[1], "mask_uri": f"file://{tmp_path}/out/masks/run=night-2/a.png", "fingerprint": "b"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "two.parquet")
    refused(tmp_path / "two.parquet", "different classes, as .*night-1/run.json and .*night-2")


def test_a_manifest_may_name_parts_of_objects(tmp_path: Path):
    """Offsets come as numbers, as text, or as floats with NaN for none; others are refused."""
    uris = [f"file://{tmp_path}/{name}" for name in ("a.jpg", "b.jpg")]
    places = {"mask_offset": [512, None], "mask_bytes": [90, None]}
    table = pa.table({"image_uri": uris, "mask_uri": uris, **places})
    floats = table.cast(
        pa.schema([*list(table.schema)[:2], *(pa.field(name, pa.float64()) for name in places)])
    )
    pq.write_table(table, tmp_path / "numbers.parquet")
    pq.write_table(
        floats.set_column(2, "mask_offset", [[512.0, float("nan")]]), tmp_path / "floats.parquet"
    )
    pacsv.write_csv(table, tmp_path / "text.csv")
    expected = [Sample(uris[0], uris[0], 512, 90), Sample(uris[1], uris[1])]
    for name in ("numbers.parquet", "floats.parquet", "text.csv"):
        assert find_labelled(Storage(), f"file://{tmp_path}/{name}").split("train") == expected

    (tmp_path / "bad.csv").write_text(f"image_uri,mask_uri,mask_offset\n{uris[0]},{uris[0]},-1\n")
    with pytest.raises(InputError, match="mask_offset is '-1', not a number of bytes"):
        find_labelled(Storage(), f"file://{tmp_path}/bad.csv")


def test_a_selection_of_masks_in_tars_is_a_data_set(tmp_path: Path):
    """Each of its samples is read where the row says; so are those of the table of a copied run."""
    two_nights(on_disk(tmp_path), Storage(), masks="tar")
    expected = {
        f"file://{tmp_path}/in/{key}": mask
        for key, mask in truth(on_disk(tmp_path), Storage()).items()
    }
    assert main(["select", str(tmp_path / "out"), "--to", str(tmp_path / "look.parquet")]) == 0
    found = find_labelled(Storage(), f"file://{tmp_path}/look.parquet").split("train")
    assert {one.image_uri for one in found} == set(expected)
    for one in found:
        assert one.mask_uri.endswith(".tar")
        np.testing.assert_array_equal(
            decode_mask(Storage().read_extent(one.mask)), expected[one.image_uri]
        )
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    shutil.rmtree(tmp_path / "out")
    for one in find_labelled(Storage(), f"file://{tmp_path}/copy/images/run=night-2").split("val"):
        mask = decode_mask(Storage().read_extent(one.mask))
        np.testing.assert_array_equal(mask, expected[one.image_uri])
