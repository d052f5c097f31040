"""`train` on a real Ray: workers that agree, deaths that cost little, errors that help."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fcn
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network, save
from fcn.weights.record import Checkpoint
from jobs.__main__ import main
from pipeline.training.state_file import from_bytes
from tests.fault_proxy import Fault, fault_proxy
from tests.jobs.test_kill import kill_everything
from tests.jobs.training_product import (
    PLAIN,
    lines,
    scenes,
    scenes_in_bucket,
    train,
    train_flags,
    workers,
)
from tests.product import REPOSITORY, start, wait_for
from tests.servers import Server

# 18 steps of 8 of 12 images: epochs end after 1.5 steps, and every step is saved.
_STEPS = (*PLAIN, "--batch-size", 8, "--epochs", 12, "--checkpoint-interval-s", 1e-6)
_NUM_STEPS = 18
# An evaluation after each step with which an epoch ends.
_EVALUATED = [-(-3 * epoch // 2) for epoch in range(1, 13)]


def _at_rate(rate: float) -> tuple[object, ...]:
    place = _STEPS.index("--learning-rate") + 1
    return (*_STEPS[:place], rate, *_STEPS[place + 1 :])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("scenes"), 12, 3)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: str) -> Path:
    """Return the folder of a run of one worker that nobody has disturbed."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert train(data, output, "run", *_STEPS) == 0
    return output / "run"


def losses(found: list[dict]) -> list[float]:
    return [line["loss"] for line in found]


def step_losses(folder: Path) -> list[float]:
    """Read the loss of every step."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


def position(data: bytes):
    """Read how far a checkpoint is; it has to be whole and finite."""
    where, tensors = from_bytes(data, "the checkpoint")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    return where


@pytest.mark.runs
def test_two_workers_take_the_steps_of_one(data: Path, undisturbed: Path, tmp_path: Path):
    """Two workers with 4 images each have, step by step, the losses of one with 8."""
    assert train(data, tmp_path, "two", *_STEPS, "--num-workers", 2) == 0

    one, two = step_losses(undisturbed), step_losses(tmp_path / "two")
    assert len(two) == _NUM_STEPS
    assert two == pytest.approx(one, abs=1e-4)
    assert losses(lines(tmp_path / "two")) == pytest.approx(losses(lines(undisturbed)), abs=1e-4)
    assert one[-1] < 0.9 * one[0]


@pytest.mark.faults
def test_a_killed_worker_costs_at_most_a_checkpoint(data: Path, undisturbed: Path, tmp_path: Path):
    """SIGKILL to one of two workers: the run goes on and ends with all steps and the same loss."""
    log = tmp_path / "log"
    process = start(train_flags(data, tmp_path, "run", *_STEPS, "--num-workers", 2), log)
    metrics = tmp_path / "run/metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(lines(tmp_path / "run")) >= 4, process, log)
    workers(psutil.Process(process.pid))[0].kill()

    assert process.wait(200) == 0, log.read_text()

    assert "resuming after step" in log.read_text()
    found = lines(tmp_path / "run")
    assert [line["step"] for line in found] == _EVALUATED
    assert losses(found) == pytest.approx(losses(lines(undisturbed)), abs=1e-4)


@pytest.mark.runs
def test_a_killed_run_is_resumed_from_a_bucket(undisturbed: Path, s3: Server, tmp_path: Path):
    """SIGKILL to everything: the same command resumes, and ends as if nothing had happened.

    Data, checkpoints and results go through the bucket; the home of the killed run stays empty.
    """
    bucket, uri = scenes_in_bucket(s3, 12, 3)
    (tmp_path / "home").mkdir()
    flags = (*_STEPS, "--lock-lease-s", 2, "--s3-endpoint-url", s3.endpoint_url)
    places = (uri, f"s3://{bucket}/out", "run")
    log = tmp_path / "log"
    process = start(train_flags(*places, *flags), log, HOME=str(tmp_path / "home"))

    def has_steps() -> bool:
        if not s3.objects(bucket, "out/run/checkpoints/last"):
            return False
        return position(read(s3, bucket, "checkpoints/last.safetensors")).step >= 3

    wait_for(has_steps, process, log)
    kill_everything(process)
    stopped_at = position(read(s3, bucket, "checkpoints/last.safetensors")).step
    assert stopped_at < _NUM_STEPS

    assert train(*places, *flags) == 0

    found = [json.loads(line) for line in read(s3, bucket, "metrics.jsonl").splitlines()]
    assert [line["step"] for line in found] == _EVALUATED
    assert losses(found) == pytest.approx(losses(lines(undisturbed)), abs=1e-4)
    assert list((tmp_path / "home").iterdir()) == []
    names = {key.removeprefix("out/run/").partition("/")[0] for key in s3.objects(bucket, "out")}
    assert names == {
        *("run.json", "inspection.json", "metrics.jsonl", "model.json", "model.safetensors"),
        *("checkpoints", "tensorboard", "locks"),
    }


def read(s3: Server, bucket: str, name: str) -> bytes:
    body: bytes = s3.client().get_object(Bucket=bucket, Key=f"out/run/{name}")["Body"].read()
    return body


@pytest.mark.faults
def test_a_bucket_that_refuses_a_checkpoint_ends_the_run_in_order(
    undisturbed: Path, s3: Server, caplog: pytest.LogCaptureFixture
):
    """A refused checkpoint is exit code 5 with the reason; the last one stands and is resumed."""
    bucket, uri = scenes_in_bucket(s3, 12, 3)
    with fault_proxy(s3.endpoint_url) as proxy:
        places = (uri, f"s3://{bucket}/out", "run")
        flags = (*_STEPS, "--lock-lease-s", 2, "--s3-endpoint-url", proxy.endpoint_url)
        puts = r"/checkpoints/last"
        fault = Fault("PUT", puts, "before", lambda: 403, times=10**6)

        def refuse_from_the_third_on() -> None:
            while sum(puts in path and verb == "PUT" for verb, path in proxy.requests) < 3:
                time.sleep(0.01)
            proxy.faults.append(fault)

        threading.Thread(target=refuse_from_the_third_on, daemon=True).start()
        assert train(*places, *flags) == 5
        said = caplog.text
        assert "checkpoints/last.safetensors: the store refuses" in said
        assert "run the same command again to resume" in said
        assert 3 <= position(read(s3, bucket, "checkpoints/last.safetensors")).step < _NUM_STEPS

        proxy.faults.clear()
        assert train(*places, *flags) == 0
    found = [json.loads(line) for line in read(s3, bucket, "metrics.jsonl").splitlines()]
    assert losses(found) == pytest.approx(losses(lines(undisturbed)), abs=1e-4)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.faults
def test_a_full_disk_ends_the_run_in_order(
    data: Path, small_disk: Path, ray_session: str, caplog: pytest.LogCaptureFixture
):
    """No space left is exit code 5; the last checkpoint is whole, and with space the run ends."""
    last = small_disk / "run/checkpoints/last.safetensors"

    def fill() -> None:
        while not last.exists():
            time.sleep(0.01)
        with (small_disk / "filler").open("wb") as file:
            file.write(bytes(shutil.disk_usage(small_disk).free))

    threading.Thread(target=fill, daemon=True).start()
    assert train(data, small_disk, "run", *_STEPS, "--lock-lease-s", 2) == 5
    assert "No space left on device" in caplog.text
    assert 1 <= position(last.read_bytes()).step < _NUM_STEPS

    (small_disk / "filler").unlink()
    assert train(data, small_disk, "run", *_STEPS, "--lock-lease-s", 2) == 0
    assert lines(small_disk / "run")[-1]["step"] == _NUM_STEPS


@pytest.mark.faults
def test_a_loss_that_is_no_number_ends_the_run(
    data: Path, tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
):
    """A training that diverges ends with 2 and says at which rate; no checkpoint holds NaN."""
    # A momentum without end: each step adds to the one before.
    assert train(data, tmp_path, "run", *_at_rate(100)) == 2

    said = caplog.text
    assert "at a learning rate of 100" in said
    assert "the training has diverged" in said
    assert not (tmp_path / "run/model.json").exists()
    last = tmp_path / "run/checkpoints/last.safetensors"
    assert not last.exists() or position(last.read_bytes()).step < _NUM_STEPS


def test_an_image_too_small_for_its_batch_norms_is_said(
    data: Path, tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
):
    """Alone at stride 64 a crop of 64 pixels is one value of a channel, which has no variance."""
    flags = ("--network", "fcn_pyramid", "--width", 4, "--crop", "[64,64]", "--batch-size", 1)
    assert train(data, tmp_path, "run", *flags) == 2
    assert "passes through fcn_pyramid alone is so small" in caplog.text
    assert "crop=(64, 64), batch_size=1 and micro_batch_size=None" in caplog.text


def test_a_trained_network_labels_as_it_is(data: Path, undisturbed: Path, tmp_path: Path):
    """`label` takes model.safetensors; its record says where the weights come from."""
    weights = undisturbed / "model.safetensors"

    places = ["--input", str(data / "val/images"), "--output", str(tmp_path)]
    assert main(["label", *places, "--weights", str(weights)]) == 0
    assert main(["verify", str(tmp_path)]) == 0

    record = json.loads((undisturbed / "model.json").read_text())
    assert [label["name"] for label in record["classes"]][:3] == ["sky", "ground", "road"]
    provenance = record["provenance"]
    best = max(lines(undisturbed), key=lambda line: line["mean_iu"])
    assert provenance["metrics"]["mean_iu"] == best["mean_iu"]
    assert provenance["recipe"]["name"] == "paper"
    assert provenance["recipe"]["momentum"] == pytest.approx(0.9 ** (8 / 20))
    assert provenance["data"] == f"file://{data}"
    assert provenance["commit"]


def test_a_finished_run_has_nothing_to_do(
    data: Path,
    undisturbed: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    """The same command again changes nothing and shows the result; another one is refused."""
    before = (undisturbed / "model.safetensors").stat().st_mtime_ns
    places = (data, undisturbed.parent, "run")

    assert train(*places, *_STEPS) == 0
    assert "Nothing to do" in capfd.readouterr().out
    assert train(*places, *_STEPS, "--seed", 5) == 6
    assert "seed was 0, is 5" in caplog.text

    assert (undisturbed / "model.safetensors").stat().st_mtime_ns == before


def test_tensorboard_shows_what_is_measured(undisturbed: Path):
    """Losses, rates, norms, the metrics, IU per class, confusions, and strips of three images."""
    events = EventAccumulator(str(undisturbed / "tensorboard"))
    events.Reload()

    tags = set(events.Tags()["scalars"])
    four = {"pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"}
    assert {f"val/{name}" for name in four} < tags
    assert {"train/loss", "train/learning_rate", "train/gradient_norm"} < tags
    assert {"train/images_per_s", "val/loss"} < tags
    assert {f"val_class_iu/{name}" for name in ("sky", "ground")} < tags
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, _NUM_STEPS + 1))
    strip = events.Images("val/2")[-1]
    assert (strip.height, strip.width) == (32, 3 * 48)
    confusion = events.Images("val/confusion_matrix")[-1]
    assert (confusion.step, confusion.height, confusion.width) == (_EVALUATED[-1], 510, 510)


@pytest.mark.runs
def test_a_training_that_gets_no_better_ends_early(
    data: Path,
    tmp_path: Path,
    ray_session: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    """After so many evaluations in a row without a better mean IU; MLflow shows them all."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    flags = ("--tracker", "mlflow", "--early-stopping-evaluations", 2)

    assert train(data, tmp_path, "run", *_at_rate(1e-30), *flags) == 0

    assert [line["best"] for line in lines(tmp_path / "run")] == [True, False, False]
    assert "stopped early" in caplog.text
    assert (tmp_path / "run/model.safetensors").exists()
    client = MlflowClient(f"file://{tmp_path}/mlruns")
    [run] = client.search_runs([one.experiment_id for one in client.search_experiments()])
    history = client.get_metric_history(run.info.run_id, "mean_iu")
    assert [one.step for one in history] == _EVALUATED[:3]


@pytest.mark.runs
def test_staged_trains_three_networks_one_after_the_other(
    data: Path, tmp_path: Path, ray_session: str
):
    """From VGG16's weights by way of FCN-32s and 16s to FCN-8s, in one command, resumable."""
    record = Checkpoint(
        "fcn32s_vgg16",
        numbered_classes(4),
        width=2,
        channel_order="BGR",
        untrained_layers=("score_fr",),
    )
    record, weights = save(record, random_network(record, 0))
    (tmp_path / "vgg.safetensors").write_bytes(weights)
    (tmp_path / "vgg.json").write_text(record.to_json())
    flags = ("--network", "fcn8s_vgg16", "--recipe", "staged", "--epochs", 1)
    start_weights = ("--weights", tmp_path / "vgg.safetensors")

    assert train(data, tmp_path, "run", *flags, *start_weights) == 0

    found = lines(tmp_path / "run")
    assert [(line["network"], line["step"], line["total_steps"]) for line in found] == [
        *(("fcn32s_vgg16", 12, 12), ("fcn16s_vgg16", 12, 24), ("fcn8s_vgg16", 12, 36)),
    ]
    assert [line["learning_rate"] for line in found] == pytest.approx([1e-10, 1e-12, 1e-14])
    network, made = fcn.load(str(tmp_path / "run/model.safetensors"))
    assert (made.network, made.channel_order, made.num_classes) == ("fcn8s_vgg16", "BGR", 6)
    # At these rates next to nothing changes: the trunk is still the one that was given.
    given = random_network(Checkpoint("fcn32s_vgg16", numbered_classes(4), width=2), 0)
    difference = network.conv5_3.weight - given.conv5_3.weight
    assert difference.abs().max() < 1e-5


@pytest.mark.runs
@pytest.mark.usefixtures("ray_session")
def test_rates_are_tried_and_nothing_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The command says which rate to take; its folder has the steps, and no network."""
    command = train_flags(data, tmp_path, "rates", *PLAIN, "--batch-size", 4, "--find-rate")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r"rates tried, from 2e-05 to ", shown)
    assert f"file://{tmp_path}/rates/rates.csv" in shown
    rows = (tmp_path / "rates/rates.csv").read_text().splitlines()
    assert rows[0] == "learning_rate,loss,smoothed_loss"
    assert 10 < len(rows) <= 101
    assert not (tmp_path / "rates/model.safetensors").exists()


@pytest.mark.faults
def test_a_time_limit_ends_the_training(data: Path, tmp_path: Path, ray_session: str):
    """With max_train_minutes the schedule ends then: the last step has next to no rate.

    The workers are elastic: from one to as many as there is room for, up to two.
    """
    flags = ("--width", 4, "--crop", "[32,32]", "--max-train-minutes", 0.1, "--image-scale", 0.5)
    assert train(data, tmp_path, "run", *flags, "--max-workers", 2) == 0

    found = lines(tmp_path / "run")
    assert found[-1]["seconds"] >= 6
    assert 0 < found[-1]["learning_rate"] < 0.2 * max(line["learning_rate"] for line in found)
    assert json.loads((tmp_path / "run/model.json").read_text())["image_scale"] == 0.5


@pytest.mark.runs
@pytest.mark.parametrize("number", [1, 2])
def test_a_text_log_is_lines_of_ours(data: Path, tmp_path: Path, number: int):
    """Nothing of Ray's or PyTorch's is among them, and stdout is the result alone."""
    flags = (*PLAIN, "--epochs", 1, "--num-workers", number)
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *train_flags(data, tmp_path, "run", *flags)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    ours = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) ")
    assert [line for line in ended.stderr.splitlines() if not ours.match(line)] == []
    assert ended.stdout.startswith("fcn32s_vgg16, 6 classes: ")
    assert ended.stdout.splitlines()[-1].startswith("label images with --weights ")


def test_wrong_settings_end_before_any_work(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Each is an error with what is wrong and what to do; nothing is written."""
    wrong = {
        ("--network", "fcn9s"): "network='fcn9s' is unknown",
        ("--recipe", "staged"): "recipe=staged is for fcn32s_vgg16",
        ("--gpus-per-worker", 2): "gpus_per_worker=2: a worker uses one GPU at most",
        ("--batch-size", 1, "--num-workers", 2): "leaves some of 2 workers without an image",
        ("--batch-size", 9, "--num-workers", 2, "--no-augment"): "can't be shared out evenly to 2",
        ("--encoder-rate", 0.1): "encoder_rate=0.1 is for networks with an encoder",
        ("--auxiliary-loss", 0.4, "--network", "fcn8s_vgg16"): "place for such a head",
        ("--auxiliary-loss", 0.4, "--encoder-rate", 0, "--network", "fcn_pyramid"): "that learns",
        ("--region-loss-from", 0.5): "region_loss_from goes with region_loss=dice or lovasz",
        ("--region-loss", "dice", "--recipe", "heavy"): "region_loss=dice is for a loss that is a",
        ("--momentum", 0.5): "momentum=0.5 is SGD's; recipe=modern trains with adamw",
        ("--val-fold", "9"): "a fold is K/N",
        ("--val-fold", "0/5", "--val-match", "a"): "val_match and val_fold each say what val is",
        ("--val-group", "a"): "val_group goes with val_fold or val_share",
        ("--weights", "random:0"): "must end in .safetensors",
        ("--val-split", "test"): "no split 'test'; it has train (12), val (3)",
        ("--val-split", "train"): "val_split='train' is the training split itself",
        ("--val-share", 0.5): "leave one of them out",
        ("--classes", tmp_path / "none.json"): "does not exist",
        ("--network", "fcn_resnet50", "--width", 32): "width=32 does not apply",
    }
    for flags, words in wrong.items():
        assert train(data, tmp_path / "out", "run", *flags) in (2, 3)
        assert words in caplog.text
    assert not (tmp_path / "out").exists()


@pytest.mark.runs
def test_data_that_does_not_fit_its_classes_ends_with_3(
    data: Path, tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
):
    """A truth with a value outside of the classes is named before the training starts.

    Nothing was trained, so that mended data goes under the same run_name.
    """
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    Image.fromarray(np.full((32, 48), 77, np.uint8)).save(copied / "train/masks/003.png")

    assert train(copied, tmp_path, "run", *_STEPS) == 3

    said = caplog.text
    assert "1 of 15 samples can't be used" in said
    assert "train/masks/003.png: values outside of 0 to 5" in said
    assert "77 in 1,536 pixels" in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["locks"]

    classes = json.loads((copied / "classes.json").read_text())["classes"]
    classes += [{"id": at, "name": f"c{at}", "color": [at] * 3} for at in range(len(classes), 78)]
    (copied / "classes.json").write_text(json.dumps({"classes": classes}))
    assert train(copied, tmp_path, "run", *PLAIN, "--batch-size", 8, "--epochs", 1) == 0


@pytest.mark.runs
def test_several_seeds_are_several_runs(
    ray_session: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has its checkpoint, of other weights; mean and spread are said, also the next time."""
    scenes(tmp_path / "data", 6, 2)
    flags = ("--width", 4, "--batch-size", 4, "--epochs", 1, "--num-seeds", 2, "--seed", 3)

    assert train(tmp_path / "data", tmp_path / "models", "try", *flags) == 0

    said = capsys.readouterr().out
    assert "2 seeds, on val" in said
    hashes = set()
    for seed in (3, 4):
        record = json.loads((tmp_path / f"models/try-{seed}/model.json").read_text())
        hashes.add(record["weights_sha256"])
    assert len(hashes) == 2
    assert train(tmp_path / "data", tmp_path / "models", "try", *flags) == 0
    again = capsys.readouterr().out
    assert again.count("Nothing to do") == 2
    assert again[again.index("2 seeds") :] == said[said.index("2 seeds") :]
