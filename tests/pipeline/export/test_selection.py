"""`select`: which images are chosen, in which order, and that `label` takes what it writes."""

import dataclasses
import hashlib
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.__main__ import main
from jobs.demo.scenes import draw_scene
from pipeline.export.best import Best, folder_of
from pipeline.images.likeness import is_near, perceptual_hash
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import SELECTION
from tests.disk_runs import (
    NUM_CLASSES,
    RedPredictor,
    label_run,
    predict_red,
    random_pixels,
    start_run,
)

_SIZE = (6, 8)


class _Doubting(RedPredictor):
    """Is the surer of a picture, the more green there is in it."""

    def predict(self, images):
        return [
            dataclasses.replace(
                predict_red(image), mean_confidence=float(image[..., 1].mean()) / 255
            )
            for image in images
        ]


def _draw(path: Path, red: int, green: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*_SIZE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = red, green
    pixels[:3, :, 0] = 0
    pixels[..., 2] = random_pixels(green, *_SIZE)
    Image.fromarray(pixels).save(path)


def _label(folder: Path, run_id: str) -> Run:
    run = start_run(folder, folder / "in", run_id=run_id, max_shard_images=3)
    label_run(run, _Doubting())
    publish(run, lambda manifest: "")
    return run


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output of two nights: ten pictures in three folders, one broken, one changed."""
    for index in range(9):
        _draw(
            tmp_path / "in" / "abc"[index % 3] / f"{index} x.png", index % NUM_CLASSES, 10 * index
        )
    (tmp_path / "in" / "b" / "broken.png").write_bytes(b"<html>")
    _label(tmp_path, "night-1")
    _draw(tmp_path / "in" / "a" / "0 x.png", 1, 250)
    _draw(tmp_path / "in" / "new.png", 1, 5)
    _label(tmp_path, "night-2")
    return tmp_path / "out"


def _select(output: Path, *flags: str, code: int = 0) -> list[dict]:
    to = output.parent / "chosen.parquet"
    to.unlink(missing_ok=True)
    place = () if "--to" in flags else ("--to", str(to))
    assert main(["select", str(output), *place, *flags]) == code
    if code:
        assert not to.exists()
        return []
    assert pq.read_schema(to).remove_metadata() == SELECTION
    return pq.read_table(to).to_pylist()


def _names(rows: list[dict]) -> list[str]:
    return [row["key"] for row in rows]


def test_the_least_confident_come_first(output: Path) -> None:
    """They are the newest answers of both runs, in order of their confidence."""
    rows = _select(output, "--least-confident", "3")
    assert _names(rows) == ["new.png", "b/1 x.png", "c/2 x.png"]
    assert [row["run_id"] for row in rows] == ["night-2", "night-1", "night-1"]
    assert {row["reason"] for row in rows} == {"least_confident"}
    last = _select(output, "--least-confident", "100")[-1]
    # It was the least confident one before it changed.
    assert (last["key"], last["run_id"]) == ("a/0 x.png", "night-2")
    assert Path(last["mask_uri"].removeprefix("file://")).exists()


def test_without_a_number_all_that_match_are_taken(output: Path) -> None:
    """They are in order of their names, each once; failed images are another question."""
    rows = _select(output)
    assert _names(rows) == sorted(_names(rows))
    assert len(rows) == len({row["uri"] for row in rows}) == 10
    assert _names(_select(output, "--failed")) == ["b/broken.png"]


def test_one_run_can_be_asked_for(output: Path) -> None:
    """With run_id only the answers of that run are looked at."""
    assert _names(_select(output, "--run-id", "night-2")) == ["a/0 x.png", "new.png"]


def test_a_class_may_be_asked_for(output: Path) -> None:
    """Only images that have it, or have enough of it, are taken: the upper halves are class 0."""
    rows = _select(output, "--class", "class_3")
    assert _names(rows) == ["a/3 x.png", "b/7 x.png"]
    assert _select(output, "--class-share", "class_3", "0.4..0.6") == [
        {**row, "reason": "matching"} for row in rows
    ]
    assert _select(output, "--class-share", "class_3", "0.51..", code=3) == []
    whole = _select(output, "--class-share", "class_0", "0.9..")
    assert _names(whole) == ["b/4 x.png", "c/8 x.png"]


class _Ignoring(_Doubting):
    """Leaves the last row of a picture open."""

    def predict(self, images):
        for one in super().predict(images):
            number = one.mask.shape[1]
            pixels = one.class_pixels - np.bincount(one.mask[-1], minlength=len(one.class_pixels))
            one.mask[-1] = 255
            yield dataclasses.replace(
                one, class_pixels=pixels, ignored_pixels=number, ignored_confidence=0.2
            )


def test_what_the_network_left_open_may_be_asked_for(output: Path, caplog) -> None:
    """It is a class called ignore, where a run has counted it."""
    assert _select(output, "--class", "ignore", code=2) == []
    _draw(output.parent / "in" / "open.png", 1, 7)
    run = start_run(output.parent, output.parent / "in", run_id="night-3", max_shard_images=3)
    label_run(run, _Ignoring())
    publish(run, lambda manifest: "")
    assert _names(_select(output, "--class", "ignore")) == ["open.png"]
    assert _names(_select(output, "--class-share", "ignore", "0.1..0.2")) == ["open.png"]
    assert _select(output, "--class-share", "ignore", "0.2..", code=3) == []


def test_chance_can_be_repeated(output: Path) -> None:
    """The same seed gives the same images, and the same file; what is chosen before stays out."""
    first = _select(output, "--random", "4", "--least-confident", "2")
    data = (output.parent / "chosen.parquet").read_bytes()
    assert _select(output, "--random", "4", "--least-confident", "2") == first
    assert (output.parent / "chosen.parquet").read_bytes() == data
    assert len({row["uri"] for row in first}) == 6
    ids = [row["image_id"] for row in first[2:]]
    assert ids == sorted(ids, key=lambda one: hashlib.sha256(f"0\0{one}".encode()).hexdigest())
    assert _names(_select(output, "--random", "6", "--seed", "1")) != _names(
        _select(output, "--random", "6")
    )


def test_a_folder_gives_no_more_than_its_limit(output: Path) -> None:
    """The limit holds over both reasons, and the number is reached from other folders."""
    rows = _select(output, "--least-confident", "4", "--random", "2", "--max-per-folder", "2")
    assert len(rows) == 6
    folders = [folder_of(row) for row in rows]
    assert max(map(folders.count, folders)) == 2
    assert len(_select(output, "--max-per-folder", "1")) == 4


def test_near_duplicates_are_left_out(output: Path) -> None:
    """Of the same picture in other sizes and qualities one is taken; others take their places."""
    folder = output.parent / "in"
    with Image.open(folder / "b" / "1 x.png") as one:
        for index in range(3):
            one.resize((80 + index, 60)).save(folder / f"again {index}.jpg", quality=70 + index)
    _label(output.parent, "night-3")
    apart = _select(output, "--least-confident", "4", "--not-near-duplicates")
    assert len(apart) == 4
    assert sum("again" in name or name == "b/1 x.png" for name in _names(apart)) == 1


def test_pictures_that_are_gone_are_left_out(output: Path, caplog) -> None:
    """A picture that can't be compared any more is named and not taken."""
    (output.parent / "in" / "new.png").unlink()
    rows = _select(output, "--least-confident", "1", "--not-near-duplicates")
    assert _names(rows) == ["b/1 x.png"]
    assert "new.png" in caplog.text


def test_what_is_selected_is_an_input_of_label(output: Path) -> None:
    """A plan of the table has its images, found again by the version of each."""
    chosen = _select(output, "--random", "5")
    folder = output.parent / "again"
    folder.mkdir()
    run = start_run(folder, output.parent / "chosen.parquet")
    planned = [row for table in run.plan() for row in table.to_pylist()]
    assert {row["uri"]: row["etag"] for row in planned} == {
        row["uri"]: row["etag"] for row in chosen
    }


def test_an_output_may_have_moved(output: Path) -> None:
    """Masks are named where the output lies now."""
    moved = output.rename(output.parent / "moved")
    rows = _select(moved)
    assert all(row["mask_uri"].startswith(f"file://{moved}/masks/run=") for row in rows)
    assert all(Path(row["mask_uri"].removeprefix("file://")).exists() for row in rows)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--class", "sky"], 2, "there is no class 'sky'; there are: class_0, class_1"),
        (["--class-share", "sky", "much"], 2, "as in sky 0.1..0.5"),
        (["--class-share", "sky", "10..50"], 2, "from 0 to 1: did you mean 0.1..0.5?"),
        (["--class-share", "sky", "5.."], 2, "from 0 to 1: did you mean 0.05..?"),
        (["--class-share", "sky", "0.1..500"], 2, "shares are from 0 to 1"),
        (["--class-share", "sky", "0.5..0.1"], 2, "the lower share comes first: 0.1..0.5"),
        (["--failed", "--least-confident", "1"], 2, "failed images have no mask"),
        (["--not-near-duplicates"], 2, "say how many are wanted"),
        (["--to", "chosen.csv"], 2, "a file NAME.parquet is wanted"),
        (["--run-id", "night-9"], 3, "no run 'night-9'"),
    ],
)
def test_what_can_not_be_selected(output: Path, flags: list[str], code: int, words: str, caplog):
    """It is refused with the reason, and no file is written."""
    _select(output, *flags, code=code)
    assert words in caplog.text


def test_the_best_are_those_of_a_sort(tmp_path: Path) -> None:
    """In any order of arrival the rows are those that sorting all and taking the first gives."""
    lots = random.Random(0)
    rows = [{"uri": f"file:///{lots.randrange(6)}/{index}"} for index in range(200)]
    scores = {row["uri"]: lots.randrange(40) / 40 for row in rows}
    for number, limit in ((10, 2), (12, 2), (30, 7), (500, 3), (5, None)):
        expected, folders = [], []
        for row in sorted(rows, key=lambda row: (scores[row["uri"]], row["uri"])):
            if len(expected) < number and (not limit or folders.count(folder_of(row)) < limit):
                expected.append(row)
                folders.append(folder_of(row))
        best = Best(number, limit)
        for row in lots.sample(rows, len(rows)):
            best.add(scores[row["uri"]], row)
        assert best.rows() == expected


def test_a_hash_outlives_size_and_quality(tmp_path: Path) -> None:
    """A photograph's hash is near after scaling and JPEG, and far from another scene's."""
    scenes = [draw_scene(seed, 120, 160)[0] for seed in range(12)]
    hashes = [perceptual_hash(scene) for scene in scenes]
    for scene, known in zip(scenes, hashes, strict=True):
        Image.fromarray(scene).resize((80, 60)).save(tmp_path / "small.jpg", quality=60)
        with Image.open(tmp_path / "small.jpg") as small:
            assert is_near(perceptual_hash(np.asarray(small)), known)
    assert not any(is_near(one, other) for one, other in combinations(hashes, 2))
