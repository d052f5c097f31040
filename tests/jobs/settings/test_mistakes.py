"""What people mistype ends with 2 (or 3, where the input is at fault) and one helpful sentence."""

import os
from pathlib import Path

import pytest

from fcn.weights.published import published
from jobs.__main__ import main
from pipeline.settings.label import TORCHVISION_FAMILIES

_OUT = ("--output", "out", "--weights", "random:0")
_HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FCN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/b.jpg", "old/masks/run=1/a.png", "old/images/run=1/part.parquet",
                 "cvat.zip", "cvat.RAR"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked into")
    for name in ("phone/a.HEIC", "phone/b.heif", "named/a.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(_HEIC)
    (tmp_path / "named" / "b.heic").write_bytes(b"\xff\xd8\xff\xe0 a JPEG by its content")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lable"], "there is no command 'lable'; did you mean label?"),
        (["import_weights"], "did you mean import-weights?"),
        (["xyz"], "there is no command 'xyz'; there are: label, plan"),
        (["label", "--inptu", "in", *_OUT], "fcn label has no flag --inptu; did you mean --input?"),
        (["label", "--max_error_rate=1", *_OUT], "did you mean --max-error-rate?"),
        (["label", "--zzz", *_OUT], "has no flag --zzz; fcn label --help lists those there are"),
        (["label", "--input"], "argument --input: expected one argument; fcn label --help"),
        (["label", "--input", "in/a.jpg", "in/b.jpg", *_OUT], "quote a pattern, as in --input 'ph"),
        (["label", "in", *_OUT], "'in': behind no flag"),
        (["label", "elsewhere", *_OUT], "'elsewhere' belongs to no flag"),
        (["label", "--input", "s3:/bucket/x", *_OUT], "lacks a slash; write s3://bucket/x"),
        (["label", "--input", "s3a:bucket/x", *_OUT], "lacks a slash; write s3://bucket/x"),
        (["label", "--input", "gcs:/bucket/x", *_OUT], "lacks a slash; write gs://bucket/x"),
        (["label", "--input", "S3://bucket/X", *_OUT], "write s3://bucket/X"),
        (["label", "--input", "Gs://bucket/x", *_OUT], "write gs://bucket/x"),
        (["verify", "AZ://box/x"], "write az://box/x"),
        (["verify", "s3://bucket /x"], "a bucket's name, 'bucket ', has no space in it"),
        (["label", "--input", "az:box/x", *_OUT], "lacks a slash; write az://box/x"),
        (
            ["label", "--input", "abfss://box@one.dfs.core.windows.net/in/x", *_OUT],
            "write az://box/in/x, and az_account=one beside it",
        ),
        (["label", "--input", r"C:\photos", *_OUT], "is a path of Windows; give it as Linux sees"),
        (["label", "--input", "C:/photos", *_OUT], "is a path of Windows"),
        (["label", "--input", "in ", *_OUT], "input='in ' begins or ends with a space"),
        (["verify", " out"], "output=' out' begins or ends with a space"),
        (["verify"], "output: is missing; give the output, as in `fcn verify OUTPUT`"),
        (["report"], "give the output, as in `fcn report OUTPUT`"),
        (["runs"], "give the output, as in `fcn runs OUTPUT`"),
        (
            ["verify", "--output", "old"],
            "--output is not a flag: give OUTPUT as it is, as in `fcn ver",
        ),
        (["verify", "old", "new"], "'new': more than `fcn verify OUTPUT` takes"),
        (["verify", "old", "--no-dry-run"], "--no-dry-run is for --repair"),
        (["submit", "label", "--input", "in"], "`--` is missing before the command: fcn submit --"),
        (["submit", "--address", "http://h", "train"], "fcn submit --address http://h -- train"),
        (["submit", "--", "lable"], "'lable' can't be submitted; did you mean label?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_answered_in_one_sentence(
    arguments: list[str], sentence: str, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The exit code is 2, the message holds the remedy, and no usage is printed."""
    assert main(arguments) == 2
    assert sentence in caplog.text
    shown = capsys.readouterr()
    assert "usage:" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("random:0 ", "weights='random:0 ' begins or ends with a space; leave it out"),
        ("random", "weights='random' lacks its seed; write random:SEED, as in random:0"),
        (
            "torchvision:FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
            "COCO_WITH_VOC_LABELS_V1 --network fcn_resnet50 --output net.safetensors, then give",
        ),
        ("torchvision:fcn_resnet50", "--source torchvision:FCN_ResNet50_Weights.DEFAULT --network"),
        ("torchvision:FCN_ResNet101", "ResNet101_Weights.DEFAULT --network fcn_resnet101 --output"),
        ("torchvision:FCN_ResNet50_Weights", "torchvision:FCN_ResNet50_Weights.DEFAULT --network"),
        ("https://host/fcn8s.pth", "--source https://host/fcn8s.pth --network NETWORK"),
        ("voc.pth", "fcn import-weights --source voc.pth"),
    ],
)
def test_weights_that_are_no_checkpoint_yet(
    weights: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Published weights are answered with the command that makes a checkpoint of them."""
    assert main(["label", "--input", "in", "--output", "out", "--weights", weights]) == 2
    assert sentence in caplog.text


@pytest.mark.parametrize("family", TORCHVISION_FAMILIES.values())
def test_the_weights_that_are_proposed_can_be_imported(family: str) -> None:
    """What `import-weights` knows has the name that the proposal gives it."""
    assert published(f"{family}.DEFAULT").url.endswith(".pth")


@pytest.mark.parametrize("value", ["5", "5 %", "5%"])
def test_a_percentage_is_no_share(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Who gives a percentage for a share of 0 to 1 is asked for the share."""
    assert main(["label", "--input", "in", *_OUT, "--max-error-rate", value]) == 2
    assert "it is a share of 0 to 1: did you mean 0.05?" in caplog.text


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("old", "holds no images but masks that `label` has written (1)"),
        ("old/masks", "holds no images but masks that `label` has written (1)"),
        ("old/masks/run=1", "name the folder of the photographs"),
        ("cvat.zip", "input='file://{}/cvat.zip' is a zip: unpack it and name the folder"),
        ("cvat.RAR", "is a rar: unpack it and name the folder"),
        ("phone", "holds nothing but HEIC (2 files), which is not read here; make JPEGs of them"),
    ],
)
def test_an_input_without_a_picture_that_is_read_here(
    source: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Masks alone and HEIC alone end with 3 before any work, and the message says what to do."""
    assert main(["plan", "--input", source, *_OUT]) == 3
    assert sentence.format(Path.cwd()) in caplog.text


def test_files_that_are_named_heic_may_be_jpegs(capfd: pytest.CaptureFixture[str]) -> None:
    """Names alone refuse nothing: with one JPEG among the first files the input is planned."""
    assert main(["plan", "--input", "named", *_OUT]) == 0
    assert "2" in capfd.readouterr().out


def test_some_heic_among_others_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """They are counted and planned; where one of the first is a JPEG, nothing is said."""
    Path("phone/c.jpg").write_bytes(b"not looked into")
    assert main(["plan", "--input", "phone", *_OUT]) == 0
    assert "2 files are named .heic, .heif or the like and get rows without a mask" in caplog.text
    caplog.clear()
    assert main(["plan", "--input", "in", *_OUT]) == 0
    assert main(["plan", "--input", "named", *_OUT]) == 0
    assert "heic" not in caplog.text
