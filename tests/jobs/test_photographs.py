"""The CamVid photographs: 468 real pictures, from disk and through an S3 server."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.store.storage import Storage
from pipeline.store.uri import local_path
from tests.product import label, label_flags, mask_hashes, snapshot, start, tables, the_run
from tests.servers import Server

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("ray_session")]

_NUM_PHOTOGRAPHS = 468


@pytest.fixture(scope="module")
def photographs(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with links to all photographs, train and val together."""
    folder = tmp_path_factory.mktemp("camvid")
    for path in sorted(camvid.glob("*/images/*.jpg")):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def labelled(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("labelled")
    assert label(photographs, output) == 0
    return output


def test_every_photograph_has_its_mask(labelled: Path):
    """468 rows are ok, every mask is 360 x 480, and its histogram is its class statistics."""
    images, statistics = tables(the_run(f"file://{labelled}"))
    counted: dict[str, dict[int, int]] = {}
    for row in statistics:
        counted.setdefault(row["key"], {})[row["class_id"]] = row["pixel_count"]

    assert [row["status"] for row in images] == ["ok"] * _NUM_PHOTOGRAPHS
    run = the_run(f"file://{labelled}")
    for row in images:
        path = f"{local_path(run.masks_folder)}/{row['key'].replace('.jpg', '.png')}"
        mask = np.asarray(Image.open(path))
        indices, counts = np.unique(mask, return_counts=True)
        assert mask.shape == (360, 480)
        assert dict(zip(indices.tolist(), counts.tolist(), strict=True)) == counted[row["key"]]


def test_the_photographs_verify(labelled: Path):
    """`verify` finds the output of the photographs whole."""
    assert main(["verify", str(labelled)]) == 0


def test_again_starts_no_replica(labelled: Path, photographs: Path, tmp_path: Path):
    """The same command changes nothing, and ends without asking for Ray."""
    before = snapshot(labelled)
    # A Ray that isn't there: whoever asks for it ends with 2.
    process = start(label_flags(photographs, labelled, "--ray-address", "127.0.0.1:1"),
                    tmp_path / "log")  # fmt: skip

    assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert snapshot(labelled) == before


def test_a_bucket_gives_the_same_masks(labelled: Path, photographs: Path, s3: Server):
    """Through the S3 server the 468 masks are those of the disk, and verify finds them whole."""
    bucket = s3.make_bucket()
    for path in photographs.iterdir():
        s3.put(bucket, f"in/{path.name}", path.read_bytes())
    place, flags = f"s3://{bucket}/out", ("--s3-endpoint-url", s3.endpoint_url)

    assert label(f"s3://{bucket}/in", place, *flags) == 0

    run = the_run(place, Storage(s3.endpoint_url))
    assert mask_hashes(run) == mask_hashes(the_run(f"file://{labelled}"))
    assert main(["verify", place, *flags]) == 0
