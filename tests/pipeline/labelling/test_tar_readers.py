"""Whoever reads an image by its row reads it out of a tar, too."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.images.decode import decode_image
from pipeline.images.ground_truth import Coding
from pipeline.inputs.corrections import matched, named
from pipeline.inputs.data_set import as_table
from pipeline.inputs.inspect import Chunk, Inspect
from pipeline.inputs.layouts import find_labelled
from pipeline.inputs.listing import Reading, Sources
from pipeline.inputs.samples import Labelled, Sample
from pipeline.labelling.finding import Level
from pipeline.labelling.page.candidates import Row
from pipeline.labelling.page.pictures import Pictures
from pipeline.labelling.page.reads import Deadline
from pipeline.labelling.places import DRIVER, Places, look, look_for_images
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.store.storage import Storage
from pipeline.training.ingest import Reader
from tests.disk_runs import label_run, make_settings, start_run
from tests.pipeline.labelling.test_tar_inputs import picture, samples
from tests.tar_writer import tar_of

# Names by which the order of keys and that of URIs differ: `-` is less than `/`, and more than `!`.
_TARS = {"a": range(3), "a.tar-b": range(3, 6)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run over two tars and a damaged one."""
    folder = tmp_path_factory.mktemp("tars")
    (folder / "in").mkdir()
    for name, seeds in _TARS.items():
        (folder / "in" / f"{name}.tar").write_bytes(tar_of(samples(seeds)))
    (folder / "in" / "torn.tar").write_bytes(b"torn")
    run = start_run(folder, folder / "in", input_form="tar", run_id="night")
    label_run(run)
    publish(run, str)
    Storage().write(run.success_uri, b"")
    return run


def _place(run: Run) -> Path:
    return Path(run.output.removeprefix("file://"))


def _rows(run: Run) -> list[Row]:
    rows = [row for table in run.commits() for row in table.to_pylist()]
    return [row for row in rows if row["status"] == "ok"]


def _export(run: Run, to: Path, form: str, *flags: str) -> int:
    return main(["export", run.output, "--format", form, "--to", str(to), *flags])


def test_exports_hold_the_images_of_the_tars(run: Run, tmp_path: Path) -> None:
    """VOC, COCO, WebDataset and Hugging Face's form have every image and mask, byte for byte."""
    expected = {seed: picture(seed) for seeds in _TARS.values() for seed in seeds}
    for form in ("voc", "coco", "webdataset", "hf"):
        assert _export(run, tmp_path / form, form) == 0
    for folder in ("voc/JPEGImages", "coco/images"):
        found = {int(path.stem): path.read_bytes() for path in (tmp_path / folder).rglob("*.png")}
        assert found == expected
    table = pq.read_table(tmp_path / "hf/data/train-00000.parquet")
    found = {int(one["path"][-13:-4]): one["bytes"] for one in table["image"].to_pylist()}
    assert found == expected
    with tarfile.open(tmp_path / "webdataset/shard-000000.tar") as tar:
        images = [one for one in tar if one.name.endswith(".png") and "mask" not in one.name]
        assert len(images) == len(expected)


@pytest.mark.parametrize(
    ("form", "flags", "said"),
    [
        ("label-studio", (), "from which Label Studio loads no image; take the images"),
        ("coco", ("--no-copy-images",), "where readers of COCO find no image"),
    ],
)
def test_what_would_name_an_image_in_a_tar_is_refused(
    form: str, flags: tuple[str, ...], said: str, run: Run, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """An address that nobody can load is a wrong setting, and says what to do."""
    assert _export(run, tmp_path, form, *flags) == 2
    assert said in caplog.text
    assert not list(tmp_path.iterdir())


def test_what_is_selected_is_an_input(run: Run, tmp_path: Path) -> None:
    """A selection of images in tars is a manifest, looked up or trusted, and data for training."""
    place = tmp_path / "least.parquet"
    flags = ["--least-confident", "4", "--not-near-duplicates"]
    assert main(["select", run.output, *flags, "--to", str(place)]) == 0
    chosen = pq.read_table(place).to_pylist()
    known = {row["uri"]: row for row in _rows(run)}
    for trust in (False, True):
        reading = Reading(trust_manifest=trust)
        found = list(Sources(Storage(), f"file://{place}", "file:///out", 2, reading))
        assert len(found) == len(chosen) > 0
        for one in found:
            row = known[one.uri]
            assert (one.version, one.num_bytes, one.offset) == (
                *(row["etag"], row["num_bytes"], row["image_offset"]),
            )
            assert f"/{one.key}".endswith(f"/in/{row['key']}")
    assert find_labelled(Storage(), f"file://{place}").split("train")


def test_training_and_evaluation_read_the_images(run: Run) -> None:
    """The samples of a run's table are the pictures, also where they are inspected and loaded."""
    found = find_labelled(Storage(), f"{run.output}/images/run=night").split("train")
    read = Reader(Storage(), Coding("indices", 4), 10_000, 2)
    table = as_table(found)
    for sample, row in zip(found, table.to_pylist(), strict=True):
        seed = int(sample.image_uri[-13:-4])
        assert (read(Sample(**row))[0] == decode_image(picture(seed), 10_000)).all()
    columns = table.to_pydict()
    names = {f"{name}s": name for name in ("image_uri", "mask_uri", "mask_offset", "image_offset")}
    chunk = {plural: columns[name] for plural, name in names.items()}
    sizes = {name: columns[name] for name in ("mask_bytes", "image_bytes")}
    sizes["image_copies"] = columns["image_copy"]
    inspected = Inspect(Storage(), Coding("indices", 4), 10_000, 60.0, 2)(
        Chunk(split="train", **chunk, **sizes)  # type: ignore[typeddict-item]  # by their names
    )
    assert [one["problem"] for one in inspected["findings"]] == [""] * 6


def test_a_manifest_may_name_members(run: Run, tmp_path: Path) -> None:
    """Names alone are looked up in each tar; what is not there, or behind a damage, is a row."""
    folder = run.record.input
    names = ["a.tar!/000000001.png", "a.tar!/none.png", "torn.tar!/x.png", "gone.tar!/y.png"]
    lines = "".join(json.dumps({"uri": f"{folder}/{name}"}) + "\n" for name in names)
    (tmp_path / "list.jsonl").write_text(lines)
    fields = {"run_id": "named"}
    own = start_run(tmp_path, tmp_path / "list.jsonl", **fields)
    label_run(own)
    rows = {row["uri"].rpartition("/in/")[2]: row for t in own.commits() for row in t.to_pylist()}
    assert {name: rows[name]["error_code"] for name in names} == {
        names[0]: None, names[1]: "not_found", names[2]: "corrupt", names[3]: "not_found",
    }  # fmt: skip
    [theirs] = [row for row in _rows(run) if row["uri"] == rows[names[0]]["uri"]]
    same = ("image_id", "etag", "num_bytes", "image_offset", "mask_sha256")
    assert [rows[names[0]][name] for name in same] == [theirs[name] for name in same]


@pytest.mark.parametrize("trusted", [False, True])
def test_a_manifest_may_name_tars(trusted: bool, run: Run, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    """Tars that a manifest names are opened where the form says so, else they are no images."""
    tar = f"{run.record.input}/a.tar"
    entry = Storage().stat(tar)
    lines = f"uri,etag,num_bytes\n{tar},{entry.version},{entry.num_bytes}\n"
    (tmp_path / "list.csv").write_text(lines)
    place = (f"file://{tmp_path}/list.csv", "file:///out", 2)
    opened = list(Sources(Storage(), *place, Reading(trusted, form="tar")))
    assert [one.uri for one in opened] == [f"{tar}!/{seed:09d}.png" for seed in range(3)]
    assert [one.uri for one in Sources(Storage(), *place, Reading(trusted))] == [tar]


def test_pictures_of_the_report_are_read(run: Run) -> None:
    """The page shows photographs out of tars beside their masks."""
    with Pictures(run, 288, Deadline.after(60.0)) as pictures:
        assert len(list(pictures.read(_rows(run)))) == 6
        assert pictures.unread == {}


def test_corrections_find_their_images(run: Run) -> None:
    """A correction that an export has named after an image in a tar is of that image."""
    data = find_labelled(Storage(), f"{run.output}/images/run=night")
    truth = Sample("file:///e/JPEGImages/x.png", "file:///e/SegmentationClass/a.tar/000000002.png")
    corrections = Labelled("voc", {"default": [truth]})
    [place] = matched(data, named(corrections))
    assert place == f"{run.record.input}/a.tar!/000000002.png"


def test_plan_looks_at_members(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan` counts what is in the tars, and the first image is one of them."""
    flags = ["--input", run.record.input, "--output", str(tmp_path / "out"), "--weights"]
    assert main(["plan", *flags, "random:0", "--input-form", "tar"]) == 0
    shown = capsys.readouterr().out
    assert "images to do     7" in shown
    assert "a.tar-b.tar!/000000003.png" in shown
    assert not list(tmp_path.iterdir())


def test_doctor_reads_a_member(run: Run, tmp_path: Path) -> None:
    """The image that shows that the input may be read is one in a tar, and no damaged tar."""
    settings = make_settings(tmp_path, run.record.input, input_form="tar")
    image, finding = look_for_images(Places.of(settings), 2)
    assert (finding.level, image and image.offset is not None) == (Level.OK, True)
    [of_input, _] = look(replace(Places.of(settings), image=image), DRIVER)
    assert (of_input.level, "!/00000000" in of_input.found) == (Level.OK, True)
