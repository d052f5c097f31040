"""The inspection before a training: what is an error, what a warning, and what is counted."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.errors import InputError
from pipeline.images.ground_truth import Coding
from pipeline.inputs.inspect import Chunk, Finding, Inspect, Inspection, check_truths, summarise
from pipeline.store.storage import Storage
from tests.disk_runs import random_pixels

# A folder that makes some pictures deadly in processes that have it on their path.
POISON = Path(__file__).parents[2] / "poison"
_NAMES = ["sky", "road", "sun"]


def sample(folder: Path, name: str, truth: np.ndarray, seed: int | None = None) -> Path:
    """Write an image of noise and a truth."""
    number = zlib.crc32(name.encode()) if seed is None else seed
    Image.fromarray(random_pixels(number, *truth.shape, 3)).save(folder / f"{name}.png")
    Image.fromarray(truth.astype(np.uint8)).save(folder / f"{name}_truth.png")
    return folder


def inspect(folder: Path, **splits: list[str]) -> Inspection:
    return summarise(find(folder, splits), _NAMES)


def find(
    folder: Path,
    splits: dict[str, list[str]],
    *,
    judge_images: bool = True,
    max_image_s: float = 60.0,
) -> list[Finding]:
    look = Inspect(Storage(), Coding("indices", 3), 10**6, max_image_s, 2, judge_images)
    findings = []
    for split, names in splits.items():
        chunk = Chunk(
            split=split,
            image_uris=[f"file://{folder}/{name}.png" for name in names],
            mask_uris=[f"file://{folder}/{name}_truth.png" for name in names],
            mask_offsets=[None] * len(names),
            mask_bytes=[None] * len(names),
            image_offsets=[None] * len(names),
            image_bytes=[None] * len(names),
            image_copies=[None] * len(names),
        )
        findings += look(chunk)["findings"]
    return findings


def test_what_kills_or_hangs_its_decoder_is_a_bad_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is named with what it did, the others are counted, and the process lives."""
    monkeypatch.syspath_prepend(str(POISON))
    truth = np.array([[0, 1, 2]])
    for name, seed in (("good", 1), ("kill", 2), ("lock", 3), ("also good", 4)):
        sample(tmp_path, name, truth, seed)
    for way in ("kill", "lock"):
        image = Image.open(tmp_path / f"{way}.png")
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", f"poison:{way}")
        image.save(tmp_path / f"{way}.png", pnginfo=text)

    names = ["good", "kill", "lock", "also good"]
    findings = find(tmp_path, {"train": names}, max_image_s=2)

    good, killed, hung, also_good = (finding["problem"] for finding in findings)
    assert (good, also_good) == ("", "")
    assert f"{tmp_path}/kill.png: its decoder died of SIGKILL" in killed
    assert f"{tmp_path}/lock.png: its decoder took longer than 2 s (max_image_s)" in hung


def test_pixels_are_counted_per_class_and_split(tmp_path: Path):
    """Counts are those of the truths; the last one is of pixels without a class."""
    sample(tmp_path, "a", np.array([[0, 1, 1], [2, 255, 255]]), 1)
    sample(tmp_path, "b", np.array([[0, 0], [1, 2]]), 2)

    found = inspect(tmp_path, train=["a"], val=["b"])

    assert found.pixels == {"train": [1, 2, 1, 2], "val": [2, 1, 1, 0]}
    assert found.num_images == {"train": 1, "val": 1}
    assert found.warnings == []


def test_a_class_without_pixels_is_a_warning_with_the_histogram(tmp_path: Path):
    """Where a class never occurs, the warning names it and says what the others have."""
    sample(tmp_path, "a", np.array([[0, 1]]))

    [warning] = inspect(tmp_path, train=["a"]).warnings

    assert "no pixel of sun in train" in warning
    assert "sky 1, road 1, sun 0, no class 0" in warning


def test_values_outside_of_the_classes_are_an_error_with_names(tmp_path: Path):
    """Every such file counts; the message has names, values and pixels."""
    for index in range(7):
        sample(tmp_path, f"bad_{index}", np.array([[0, 7]]))
    sample(tmp_path, "good", np.array([[0, 1, 2]]))

    with pytest.raises(InputError) as raised:
        inspect(tmp_path, train=["good", *(f"bad_{index}" for index in range(7))])

    text = str(raised.value)
    assert "7 of 8 samples can't be used" in text
    assert "bad_0_truth.png: values outside of 0 to 2 (and 255, no class): 7 in 1 pixels" in text
    assert "and 2 more" in text
    assert "classes.json says which classes there are" in text


def test_sizes_that_do_not_match_are_an_error(tmp_path: Path):
    """A truth of another size than its upright image is named with both sizes."""
    sample(tmp_path, "a", np.array([[0, 1]]))
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")

    with pytest.raises(InputError, match=r"is \(1, 2\), its image is \(4, 5\)"):
        inspect(tmp_path, train=["a"])


def test_an_image_that_lies_on_its_side_is_explained(tmp_path: Path):
    """Where EXIF turns the image and not its truth, the message says so, and nothing of classes."""
    sample(tmp_path, "a", np.zeros((4, 6)))
    picture = Image.open(tmp_path / "a.png")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)

    for judge_images in (True, False):
        with pytest.raises(InputError) as raised:
            summarise(find(tmp_path, {"train": ["a"]}, judge_images=judge_images), _NAMES)
        assert (
            "is (4, 6), its image is (6, 4) (height, width): it has EXIF orientation 6, and a "
            "truth must have the size of the upright image"
        ) in str(raised.value)
        assert "classes.json" not in str(raised.value)


def test_before_an_evaluation_truths_alone_are_judged(tmp_path: Path):
    """Images that are bad or gone are passed over; every bad truth is named."""
    for name in ("bad", "gone", "good", "other"):
        sample(tmp_path, name, np.array([[0, 1]]))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "gone.png").unlink()
    names = ["bad", "gone", "good", "other"]
    check_truths(find(tmp_path, {"test": names}, judge_images=False), 3)

    Image.new("L", (7, 7)).save(tmp_path / "other_truth.png")
    (tmp_path / "good_truth.png").unlink()
    with pytest.raises(InputError, match=r"(?s)2 of 4 .*good_truth.png does .*other_truth.png is"):
        check_truths(find(tmp_path, {"test": names}, judge_images=False), 3)


def test_images_that_can_not_be_read_are_an_error(tmp_path: Path):
    """Damaged images and missing truths are found before the training."""
    sample(tmp_path, "a", np.array([[0, 1]]))
    (tmp_path / "a.png").write_bytes(b"no picture")
    sample(tmp_path, "b", np.array([[0, 1]]))
    (tmp_path / "b_truth.png").unlink()

    with pytest.raises(InputError, match=r"(?s)2 of 2 .*a.png: starts with .*b_truth.png does not"):
        inspect(tmp_path, train=["a", "b"])


def test_masks_of_0_and_255_are_an_error_with_the_remedy(tmp_path: Path):
    """What is meant as two classes would have one; the message says how to name them."""
    sample(tmp_path, "a", np.array([[0, 255]]))

    with pytest.raises(InputError, match=r"holds 0 and 255 only .*truth_coding=colors"):
        inspect(tmp_path, train=["a"])


def test_a_single_class_is_a_warning(tmp_path: Path):
    """It trains without an error to a mean IU of 1, which says nothing; two classes are none."""
    sample(tmp_path, "a", np.array([[0, 255], [0, 0]]))
    found = find(tmp_path, {"train": ["a"]})
    only_sky = [{**one, "pixels": [3, 1]} for one in found]
    [warning] = summarise(only_sky, ["sky"]).warnings
    assert "sky is the only class, so that every pixel gets it" in warning
    two = [{**one, "pixels": [3, 1, 0]} for one in found]
    assert summarise(two, ["sky", "road"]).warnings == []


def test_one_split_may_have_the_first_class_alone(tmp_path: Path):
    """Patients of val who have nothing to find are no mistake where train shows what there is."""
    sample(tmp_path, "a", np.array([[0, 1, 255]]))
    sample(tmp_path, "b", np.array([[0, 0, 255]]))

    found = inspect(tmp_path, train=["a"], val=["b"])

    assert found.pixels["val"][:2] == [2, 0]
    assert any(text.startswith("no pixel of") for text in found.warnings)


def test_truths_without_any_class_are_an_error(tmp_path: Path):
    """All 255 is nothing to learn."""
    sample(tmp_path, "a", np.array([[255, 255]]))

    with pytest.raises(InputError, match="no truth has a pixel of any class"):
        inspect(tmp_path, train=["a"])


def test_one_image_in_both_splits_is_an_error_unless_it_is_meant(tmp_path: Path):
    """The same bytes under two names are one image; metrics on it would be too good."""
    truth = np.array([[0, 1, 2]])
    sample(tmp_path, "a", truth, 5)
    sample(tmp_path, "copy", truth, 5)

    with pytest.raises(InputError, match=r"1 images are in train and in val.*a.png = .*copy.png"):
        inspect(tmp_path, train=["a"], val=["copy"])

    look = Inspect(Storage(), Coding("indices", 3), 10**6, 60.0, 1)
    uris = {
        "image_uris": [f"file://{tmp_path}/a.png"],
        "mask_uris": [f"file://{tmp_path}/a_truth.png"],
        "mask_offsets": [None],
        "mask_bytes": [None],
        "image_offsets": [None],
        "image_bytes": [None],
        "image_copies": [None],
    }
    findings = [
        *look(Chunk(split="train", **uris))["findings"],
        *look(Chunk(split="val", **uris))["findings"],
    ]
    [warning] = summarise(findings, _NAMES, allow_overlap=True).warnings
    assert "1 images are in train and in val" in warning


def test_the_next_frame_of_a_film_is_a_warning(tmp_path: Path):
    """An image of val that looks like one of train, in another size and quality, is named."""
    smooth = np.asarray(Image.fromarray(random_pixels(3, 6, 8, 3)).resize((96, 72)))
    for name, pixels in (("a", smooth), ("b", smooth[1:, 2:]), ("c", smooth[::-1, ::-1])):
        sample(tmp_path, name, np.arange(pixels[..., 0].size).reshape(pixels.shape[:2]) % 3)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    [warning] = inspect(tmp_path, train=["a"], val=["b", "c"]).warnings

    assert "1 of 2 images of val look like one of train, such as file://" in warning
    assert "/b.png" in warning
