"""`label` and `evaluate` on a real Ray, of images in tars in a bucket."""

import json
from pathlib import Path

import pytest

from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network, save
from fcn.weights.record import Checkpoint
from jobs.__main__ import main
from tests.product import draw_photographs, mask_hashes, snapshot, the_run
from tests.servers import Server
from tests.tar_writer import tar_of

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("ray_session")]


def _checkpoint(folder: Path) -> Path:
    record = Checkpoint("fcn_all_skips", numbered_classes(5), width=4)
    record, tensors = save(record, random_network(record, 1))
    (folder / "model.safetensors").write_bytes(tensors)
    (folder / "model.json").write_text(record.to_json())
    return folder / "model.safetensors"


def test_images_in_tars_are_labelled_as_files_are(s3: Server, tmp_path: Path):
    """Masks, verdict, a rerun and an evaluation are those of files; a damaged tar is one row."""
    photographs = sorted(draw_photographs(tmp_path / "files", 12).iterdir())
    bucket = s3.make_bucket()
    for name, some in (("a", photographs[:6]), ("b", photographs[6:])):
        s3.put(bucket, f"in/{name}.tar", tar_of((one.name, one.read_bytes()) for one in some))
    s3.put(bucket, "in/c.tar", tar_of([(photographs[0].name, bytes(5_000))])[:3_000])
    weights, output = _checkpoint(tmp_path), tmp_path / "out"
    flags = ["--output", str(output), "--weights", str(weights)]
    assert main(["label", "--input", str(tmp_path / "files"), *flags]) == 0
    files = mask_hashes(the_run(f"file://{output}"))

    flags += ["--s3-endpoint-url", s3.endpoint_url, "--max-shard-images", "5"]
    tars = ["--input", f"s3://{bucket}/in", "--input-form", "tar", "--max-error-rate", "0.1"]
    assert main(["label", *tars, *flags]) == 0

    run = the_run(f"file://{output}")
    masks = mask_hashes(run)
    assert sorted(masks.values()) == sorted(files.values())
    assert {Path(name).name for name in masks} == {Path(name).name for name in files}
    manifest = run.manifest()
    assert manifest is not None
    assert (manifest.num_ok, manifest.errors) == (12, {"corrupt": 1})
    assert main(["verify", str(output)]) == 0
    before = snapshot(output)
    assert main(["label", *tars, *flags]) == 0
    assert snapshot(output) == before
    assert main(["evaluate", "--data", f"{output}/images/run={run.run_id}", *flags]) == 0
    [found] = output.glob("evaluations/val-*/metrics.json")
    assert json.loads(found.read_text())["mean_iu"] == 1.0
