"""Bad and odd images through the whole job: each is its own row, with its code or its mask."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.__main__ import main
from jobs.demo.scenes import draw_scene, huge_png
from pipeline.labelling.schema import PLAN
from tests.product import REPOSITORY, label, tables, the_run
from tests.tiff_writer import Layout, write_tiff

_PICTURE = Image.fromarray(draw_scene(3, 48, 64)[0])


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(_PICTURE, "JPEG", exif=exif)


def animated(format_name: str) -> bytes:
    second = Image.fromarray(draw_scene(4, 48, 64)[0])
    return encode(_PICTURE, format_name, save_all=True, append_images=[second], duration=100)


def absurd_bmp() -> bytes:
    """A width of -127, which is 4,294,967,169, in 250 bytes."""
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 250, 0, 0, 54, 40, -127, 8, 1, 24, *[0] * 6)
    return header.ljust(250, b"\0")


def many_scans() -> bytes:
    data = encode(_PICTURE, "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 120 + data[-2:]


_SAMPLES = np.arange(48 * 64).reshape(48, 64, 1) % 256
_GREY_16 = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
_PALETTE = _PICTURE.quantize(16)

# Name -> file, then its error code, or the size of its mask.
CASES: dict[str, tuple[bytes, str | tuple[int, int]]] = {
    "truncated.jpg": (encode(_PICTURE, "JPEG")[:700], "truncated"),
    "empty.jpg": (b"", "truncated"),
    "page.jpg": (b"<html><body>403 Forbidden</body></html>", "unsupported_format"),
    "bomb.png": (huge_png(30_000, 30_000), "too_many_pixels"),
    "large.bmp": (encode(_PICTURE.resize((400, 400)), "BMP"), "too_many_bytes"),
    "animated.gif": (animated("GIF"), "unsupported_format"),
    "animated.webp": (animated("WEBP"), (48, 64)),
    "cmyk.jpg": (encode(_PICTURE.convert("CMYK"), "JPEG"), (48, 64)),
    "grey16.png": (encode(_GREY_16, "PNG"), (48, 64)),
    "palette.png": (encode(_PALETTE, "PNG", transparency=0), (48, 64)),
    "float.tif": (encode(_PICTURE.convert("F"), "TIFF"), "unsupported_mode"),
    "damaged.png": (encode(_PICTURE, "PNG").replace(b"IDAT", b"IDAX"), "corrupt"),
    "absurd.bmp": (absurd_bmp(), "too_many_pixels"),
    "scans.jpg": (many_scans(), "too_slow"),
    "signed.tif": (write_tiff(_SAMPLES, Layout(8, 1, tags={339: [2]})), "unsupported_mode"),
    "planes.tif": (write_tiff(_SAMPLES.repeat(3, 2), Layout(16, 2, planar=True)), (48, 64)),
    "one_pixel.png": (encode(_PICTURE.resize((1, 1)), "PNG"), (1, 1)),
    "wide.png": (encode(_PICTURE.resize((5000, 30)), "PNG"), (30, 5000)),
    **{f"turned_{one}.jpg": (oriented(one), (48, 64) if one < 5 else (64, 48))
       for one in range(1, 9)},
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(ray_session: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder, output = tmp_path_factory.mktemp("bad"), tmp_path_factory.mktemp("labelled")
    for name, (data, _) in CASES.items():
        (folder / name).write_bytes(data)
    flags = ("--max-image-bytes", 300_000, "--mask-name", "full")
    assert label(folder, output, *flags, "--max-error-rate", 0.5) == 0
    assert label(folder, output, *flags, "--max-error-rate", 0.1) == 4
    assert main(["verify", str(output)]) == 0
    images, _ = tables(the_run(f"file://{output}"))
    return {row["key"]: {**row, "output": str(output)} for row in images}


@pytest.mark.parametrize("name", CASES)
def test_each_is_its_own_row(rows: dict[str, dict], name: str):
    """An image ends with its error code and a reason, or with a mask of its size."""
    expected = CASES[name][1]

    row = rows[name]

    if isinstance(expected, str):
        assert (row["status"], row["error_code"]) == ("error", expected)
        assert row["error_message"]
    else:
        assert (row["status"], row["height"], row["width"]) == ("ok", *expected)


def test_all_orientations_give_their_turned_mask(rows: dict[str, dict]):
    """What is stored turned is labelled upright: the masks of sizes and counts prove it."""
    assert len(rows) == len(CASES)
    sizes = {name: (row["height"], row["width"]) for name, row in rows.items() if "turned" in name}
    assert sizes == {name: CASES[name][1] for name in sizes}


_UNREADABLE = """
import os, sys
from pipeline.labelling.fetch import Fetch
from pipeline.store.storage import Storage
Storage().exists(sys.argv[1])  # loads what is loaded at first use
os.setuid(65534)
shard = Fetch(Storage(), 10**6, 2).shard({"shard": 0, "plan_uri": sys.argv[1], "row_group": 0})
print(*(image["error_code"] for image in shard["images"]))
"""


def test_an_unreadable_file_is_forbidden(tmp_path: Path):
    """A file without read permission is a row with `forbidden`, and its neighbour is fetched."""
    paths = [tmp_path / "open.jpg", tmp_path / "closed.jpg"]
    for path in paths:
        path.write_bytes(encode(_PICTURE, "JPEG"))
    paths[1].chmod(0)
    rows = [
        {"shard": 0, "image_id": path.name, "key": path.name, "uri": f"file://{path}",
         "etag": f"{path.stat().st_mtime_ns}-{path.stat().st_size}", "num_bytes": 1,
         "mask_key": path.name}
        for path in paths
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, PLAN), tmp_path / "plan.parquet")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)

    program = _UNREADABLE if os.getuid() == 0 else _UNREADABLE.replace("os.setuid(65534)", "")
    found = subprocess.run(
        [sys.executable, "-c", program, f"file://{tmp_path}/plan.parquet"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert found.stdout.split() == ["None", "forbidden"], found.stderr
