"""Segment: a replica without Ray and without a network; what makes a network the same."""

import dataclasses
import struct
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import pipeline.images.by_pillow
import pipeline.images.colour
from fcn.inference import DeviceError
from fcn.weights import CheckpointError
from fcn.weights.classes import numbered_classes
from jobs.demo.scenes import huge_png
from pipeline.errors import ErrorCode, ImageError, SettingError
from pipeline.images.masks import decode_mask
from pipeline.labelling import quarantine, segment
from pipeline.labelling.records import ClassRecord
from pipeline.labelling.schema import ImageRow, ShardRow
from pipeline.labelling.segment import LoadPredictor, Placement, Segmenter
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage
from tests.disk_runs import (
    NUM_CLASSES,
    FakePrediction,
    RedPredictor,
    encode,
    predict_red,
    random_pixels,
)

_STORAGE = Storage()
_CLASSES = [
    ClassRecord(id=index, name=label.name, color=label.color)
    for index, label in enumerate(numbered_classes(NUM_CLASSES))
]


def _segmenter(load: LoadPredictor, **fields: Any) -> Segmenter:
    settings = LabelSettings(input="in", output="out", weights="random:0", **fields)
    return Segmenter(load, _CLASSES, settings, Placement(use_gpu=False, threads=2, batch_size=8))


def _replica(predictor: Any = None, **fields: Any) -> Segmenter:
    return _segmenter(lambda _: predictor or RedPredictor(), **fields)


def _row(key: str, data: bytes | None, code: str | None = None) -> ImageRow:
    return ImageRow(
        image_id=f"id of {key}",
        key=key,
        uri=f"file:///in/{key}",
        etag="1",
        num_bytes=len(data or b""),
        mask_key=f"{key}.png",
        data=data,
        error_code=code,
        error_message=code and f"message of {code}",
    )


def _png(seed: int, height: int, width: int) -> bytes:
    return encode(Image.fromarray(random_pixels(seed, height, width, 3)), "PNG")


def _shard(*data: bytes) -> ShardRow:
    return ShardRow(shard=7, images=[_row(str(index), one) for index, one in enumerate(data)])


# One shard


def test_an_image_gets_its_mask_and_its_counts() -> None:
    """The mask file, the sizes and the statistics of an image are those of its prediction."""
    pixels = random_pixels(0, 5, 9, 3) % 3
    predicted = predict_red(pixels)
    labelled = _replica()(_shard(encode(Image.fromarray(pixels), "PNG")))
    assert labelled["shard"] == 7
    [image] = labelled["images"]
    assert decode_mask(image["png"]).tolist() == predicted.mask.tolist()
    assert (image["height"], image["width"], image["mean_confidence"]) == (5, 9, 0.5)
    assert image["classes"] == [
        {"class_id": 0, "pixel_count": predicted.class_pixels[0], "mean_confidence": 0.125},
        {"class_id": 1, "pixel_count": predicted.class_pixels[1], "mean_confidence": 0.25},
        {"class_id": 2, "pixel_count": predicted.class_pixels[2], "mean_confidence": 0.375},
    ]
    assert (image["error_code"], image["error_message"]) == (None, None)
    assert "data" not in image


def test_the_mask_has_the_colours_of_the_classes() -> None:
    """The palette of a mask file holds the classes' colours."""
    [image] = _replica()(_shard(encode(Image.new("RGB", (2, 2), (1, 0, 0)), "PNG")))["images"]
    assert image["png"][image["png"].index(b"PLTE") + 4 :][:6] == bytes([0, 0, 0, 128, 0, 0])


def test_images_come_back_in_their_order() -> None:
    """Good and bad images keep their places, and what the plan says of them."""
    rows = [
        _row("a", _png(0, 4, 4)),
        _row("b", None, "not_found"),
        _row("c", b"<html>"),
        _row("d", _png(1, 3, 5)),
    ]
    labelled = _replica()(ShardRow(shard=0, images=rows))["images"]
    planned = ("image_id", "key", "uri", "etag", "num_bytes", "mask_key")
    assert [[image[name] for name in planned] for image in labelled] == [
        [row[name] for name in planned] for row in rows
    ]
    assert [image["error_code"] for image in labelled] == [
        *(None, "not_found", "unsupported_format", None),
    ]


@pytest.mark.parametrize("code", ["not_found", "forbidden", "changed", "too_many_bytes"])
def test_errors_of_fetch_pass_through(code: str) -> None:
    """An image that could not be fetched keeps its code and message, and gets no mask."""
    [image] = _replica()(ShardRow(shard=0, images=[_row("a", None, code)]))["images"]
    assert (image["error_code"], image["error_message"]) == (code, f"message of {code}")
    assert (image["png"], image["classes"], image["height"]) == (None, [], None)


@pytest.mark.parametrize(
    ("data", "code", "size"),
    [
        (b"", "truncated", (None, None)),
        (_png(0, 30, 40)[:400], "truncated", (30, 40)),
        (encode(Image.new("F", (4, 3)), "TIFF"), "unsupported_mode", (3, 4)),
        (huge_png(30_000, 20_000), "too_many_pixels", (30_000, 20_000)),
    ],
    ids=["empty", "cut off", "float", "huge"],
)
def test_bad_images_are_rows(data: bytes, code: str, size: tuple[int | None, int | None]) -> None:
    """An image that can't be decoded is a row with the code, and the size if it is known."""
    good = _png(1, 4, 4)
    before, image, after = _replica()(_shard(good, data, good))["images"]
    assert (image["error_code"], image["png"], image["classes"]) == (code, None, [])
    assert (image["height"], image["width"]) == size
    assert image["error_message"]
    assert before["png"] == after["png"] is not None


def test_the_limit_on_pixels_is_the_setting() -> None:
    """`max_image_pixels` decides, and the message says so."""
    [image] = _replica(max_image_pixels=15)(_shard(_png(0, 4, 4)))["images"]
    assert image["error_code"] == ErrorCode.TOO_MANY_PIXELS
    assert "the limit is 15" in image["error_message"]
    [image] = _replica(max_image_pixels=16)(_shard(_png(0, 4, 4)))["images"]
    assert image["error_code"] is None


def test_sizes_are_those_of_the_upright_picture() -> None:
    """The height and width of a turned photograph are those that people see, as its mask's."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    [image] = _replica()(_shard(data))["images"]
    assert (image["height"], image["width"]) == (30, 20)
    assert decode_mask(image["png"]).shape == (30, 20)


class _SmallPredictor(RedPredictor):
    """Has no memory for pictures of more than 20 pixels."""

    num_backoffs = 0
    device_seconds = 0.0

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        found = super().predict(images)
        return [one if one and one.mask.size <= 20 else None for one in found]


def test_an_image_that_the_device_can_not_hold_is_a_row() -> None:
    """Out of memory is the error of that image alone, with its size."""
    shard = _shard(_png(0, 4, 5), _png(1, 5, 5), _png(2, 4, 5))
    labelled = _replica(_SmallPredictor())(shard)["images"]
    assert [image["error_code"] for image in labelled] == [None, "out_of_memory", None]
    assert "5 x 5 pixels" in labelled[1]["error_message"]
    assert labelled[1]["png"] is None


class _ForgetfulPredictor(RedPredictor):
    """Counts one pixel too few."""

    num_backoffs = 0
    device_seconds = 0.0

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        found = [predict_red(image) for image in images]
        return [
            dataclasses.replace(one, class_pixels=one.class_pixels - [1, 0, 0, 0]) for one in found
        ]


def test_counts_that_miss_a_pixel_are_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """Statistics that do not sum to the picture are never written: the image `failed`."""
    [image] = _replica(_ForgetfulPredictor())(_shard(_png(0, 4, 4)))["images"]
    assert (image["error_code"], image["png"], image["classes"]) == ("failed", None, [])
    assert image["error_message"] == "AssertionError: counted 15 of 16 pixels"
    assert "Traceback" in caplog.text


def test_an_absurd_size_is_a_row() -> None:
    """A width that no column can hold leaves the size out, and is named in the message."""
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 250, 0, 0, 54, 40, -127, 8, 1, 24, *[0] * 6)
    [image] = _replica()(_shard(header.ljust(250, b"\0")))["images"]
    assert (image["error_code"], image["height"], image["width"]) == ("too_many_pixels", None, None)
    assert "8 x 4294967169 = " in image["error_message"]


# Where the steps on one image are called from.
_HOMES = {"read_size": quarantine, "decode_image": quarantine, "encode_mask": segment}


@pytest.mark.parametrize("step", _HOMES)
@pytest.mark.parametrize("error", [LookupError("un\udcfflucky"), OverflowError("x"), Exception()])
def test_a_bug_over_one_image_costs_that_image(
    step: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is raised over images, they `failed`; the others get masks, the log one entry."""
    real = getattr(_HOMES[step], step)

    def unlucky(first: Any, *rest: Any) -> Any:
        found = first if isinstance(first, bytes) else first.tobytes()
        if found == marked:
            raise error
        return real(first, *rest)

    pixels = np.zeros((3, 3, 3), np.uint8)
    bad = encode(Image.fromarray(pixels), "PNG")
    marked = predict_red(pixels).mask.tobytes() if step == "encode_mask" else bad
    monkeypatch.setattr(_HOMES[step], step, unlucky)
    images = _replica()(_shard(_png(1, 4, 4), bad, bad, _png(2, 4, 4)))["images"]
    assert [image["error_code"] for image in images] == [None, "failed", "failed", None]
    assert images[1]["error_message"].startswith(f"{type(error).__name__}: ")
    assert images[1]["error_message"].encode()
    assert (images[1]["png"], images[1]["classes"]) == (None, [])
    assert caplog.text.count("Traceback") == 1


def test_a_bug_that_meets_every_image_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all of many new images fail, the replica raises; seven, or a good one, do not do it."""

    def unlucky(data: bytes, _: int) -> NDArray[np.uint8]:
        if data == good:
            return np.zeros((4, 4, 3), np.uint8)
        raise LookupError("a bug")

    good, bad = _png(0, 4, 4), _png(1, 4, 4)
    monkeypatch.setattr(quarantine, "decode_image", unlucky)
    replica = _replica()
    with pytest.raises(RuntimeError, match="shard 7: all 8 images that could be read failed"):
        replica(_shard(*[bad] * 8, b"<html>"))
    for data in ([bad] * 7, [*[bad] * 20, good]):
        codes = [image["error_code"] for image in replica(_shard(*data))["images"]]
        assert codes.count("failed") == data.count(bad)
    again = _shard(*[bad] * 20)
    again["images"] = [{**image, "attempts": 2} for image in again["images"]]
    # Rows of earlier nights: together in a shard they would end every night from now on.
    assert {image["error_code"] for image in replica(again)["images"]} == {"failed"}


def test_no_memory_for_a_picture_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A MemoryError amid decoding is `out_of_memory`, and never the fault of the bytes."""

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    monkeypatch.setattr(Image, "alpha_composite", full)
    [image] = _replica()(_shard(encode(Image.new("RGBA", (3, 3)), "PNG")))["images"]
    assert image["error_code"] == ErrorCode.OUT_OF_MEMORY
    assert "no memory to decode it" in image["error_message"]


def test_a_refused_picture_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once an image is refused, nothing holds its pixels any more: no error, no traceback."""
    pictures: list[weakref.ref[Any]] = []
    real = pipeline.images.colour.to_rgb

    def remembered(image: Image.Image) -> Image.Image:
        pictures.append(weakref.ref(image))
        real(image)
        raise OSError("damaged, after all")

    monkeypatch.setattr(pipeline.images.by_pillow, "to_rgb", remembered)
    replica = _replica()
    with replica._ward.treat(None) as treatment:
        row = replica._decode(treatment, _row("a", _png(0, 4, 4)))
    assert isinstance(row, ImageError)
    assert row.code == ErrorCode.CORRUPT
    assert row.__traceback__ is row.__cause__ is row.__context__ is None
    assert [picture() for picture in pictures] == [None]


def test_a_bug_in_the_network_is_not_a_bad_image() -> None:
    """What the predictor raises is raised."""

    class Broken:
        num_backoffs = 0
        device_seconds = 0.0

        def predict(self, _: object) -> None:
            raise RuntimeError("a kernel failed")

    with pytest.raises(RuntimeError, match="a kernel failed"):
        _replica(Broken())(_shard(_png(0, 4, 4)))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (CheckpointError("the weights do not fit: missing: a"), "^weights: .*missing: a"),
        (DeviceError("cuda is full"), "device: cuda is full"),
    ],
)
def test_what_can_not_be_loaded_ends_the_run_as_a_setting(error: Exception, message: str) -> None:
    """A checkpoint or a device that can't be used is reported by the first shard, as a setting."""

    def load(_: Placement) -> Any:
        raise error

    replica = _segmenter(load)
    with pytest.raises(SettingError, match=message):
        replica(_shard(_png(0, 4, 4)))


def test_an_empty_shard_is_nothing() -> None:
    """A shard without images is labelled without asking the network."""
    predictor = RedPredictor()
    labelled = _replica(predictor)(ShardRow(shard=3, images=[]))
    assert (labelled["shard"], labelled["images"]) == (3, [])
    assert predictor.calls == []


# Chunks


def _calls(shard: ShardRow) -> list[list[tuple[int, ...]]]:
    predictor = RedPredictor()
    _replica(predictor)(shard)
    return predictor.calls


def test_chunks_respect_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are decoded some at a time: as many in a row as the budget of pixels holds."""
    monkeypatch.setattr("pipeline.labelling.segment._CHUNK_PIXELS", 40)
    heights = (2, 2, 1, 5, 1, 9, 1, 3)
    shard = _shard(*(_png(index, height, 8) for index, height in enumerate(heights)))
    assert [[shape[0] for shape in call] for call in _calls(shard)] == [
        *([2, 2, 1], [5], [1], [9], [1, 3]),
    ]


def test_bad_images_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is not decoded does not count for the budget."""
    monkeypatch.setattr("pipeline.labelling.segment._CHUNK_PIXELS", 40)
    huge = huge_png(30_000, 30_000)
    assert _calls(_shard(_png(0, 2, 8), huge, b"", _png(1, 3, 8))) == [[(2, 8, 3), (3, 8, 3)]]


def test_a_gpu_gets_larger_chunks() -> None:
    """What four chunks hold without a GPU is one with it; the masks are their pictures' alone."""
    shard = _shard(*(_png(index, 3000, 2000) for index in range(4)))
    settings = LabelSettings(input="in", output="out", weights="random:0")
    calls, masks = [], []
    for use_gpu in (False, True):
        predictor = RedPredictor()
        load: Any = lambda _, one=predictor: one  # noqa: E731 - as it is called
        replica = Segmenter(load, _CLASSES, settings, Placement(use_gpu, threads=2, batch_size=8))
        again = {**shard, "images": [{**image} for image in shard["images"]]}
        masks.append([image["png"] for image in replica(ShardRow(**again))["images"]])
        calls.append([len(call) for call in predictor.calls])
    assert calls == [[2, 2], [4]]
    assert masks[0] == masks[1]


def test_chunks_depend_on_the_shard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network sees the same groups whatever the replica did before, with any threads."""
    monkeypatch.setattr("pipeline.labelling.segment._CHUNK_PIXELS", 100)
    shard = _shard(*(_png(index, 1 + index % 5, 8) for index in range(20)))
    predictor = RedPredictor()
    replica = _replica(predictor)
    replica(_shard(_png(99, 4, 4)))
    replica(shard)
    replica(shard)
    alone = _calls(shard)
    assert len(alone) > 3
    assert predictor.calls == [[(4, 4, 3)], *alone, *alone]


# Several calls at a time


class _OneAtATime(RedPredictor):
    """Notices when two calls overlap."""

    def __init__(self) -> None:
        super().__init__()
        self._inside = threading.Lock()
        self.overlapped = False

    num_backoffs = 0
    device_seconds = 0.0

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        self.overlapped |= not self._inside.acquire(blocking=False)
        time.sleep(0.002)
        found = super().predict(images)
        if self._inside.locked():
            self._inside.release()
        return found


def test_calls_at_the_same_time_share_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads get what one gets, and never two of them are on the device at once."""
    monkeypatch.setattr("pipeline.labelling.segment._CHUNK_PIXELS", 100)
    shards = [
        _shard(*(_png(10 * number + index, 4, 8) for index in range(8))) for number in range(9)
    ]
    alone = [_replica()(shard) for shard in shards]
    predictor = _OneAtATime()
    replica = _replica(predictor)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(replica, shards))
    assert [one["images"] for one in together] == [one["images"] for one in alone]
    assert len(predictor.calls) == 27
    assert not predictor.overlapped


class _OfOneThread(RedPredictor):
    """Notes which threads have called it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = {threading.get_ident()}

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        self.threads.add(threading.get_ident())
        return super().predict(images)


def test_one_thread_loads_the_network_and_runs_it() -> None:
    """PyTorch's CPU threads have one caller: with a second one they would sleep between calls."""
    made: list[_OfOneThread] = []

    def load(_: Placement) -> Any:
        made.append(_OfOneThread())
        return made[0]

    replica = _segmenter(load)
    for number in range(3):
        replica(_shard(_png(number, 4, 8)))
    [predictor] = made
    assert len(predictor.calls) == 3
    assert len(predictor.threads) == 1
    assert threading.get_ident() not in predictor.threads
