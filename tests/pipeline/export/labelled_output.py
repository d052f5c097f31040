"""An output as exports meet it: mixed endings, nested names, two runs, failures, masks with 255."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.masks import decode_mask
from pipeline.labelling.draft import draft
from pipeline.labelling.history import History
from pipeline.labelling.plan import start_run as write_plan
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.settings.label import LabelSettings
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage
from tests.disk_runs import (
    RedPredictor,
    encode,
    label_run,
    network_record,
    predict_red,
    random_pixels,
)

# The names in an export, by the keys: a tif of night-1 has its name from e.png's neighbour.
NAMES = {
    "a.jpg": "a", "deep/er/b c.JPEG": "deep/er/b c", "deep/d.png": "deep/d", "e.png": "e",
    "e.tif": "e.tif", "f.g.webp": "f.g", "#h.bmp": "%23h", "ünì/i.png": "ünì/i",
    "turned.jpg": "turned", "new one.png": "new one",
}  # fmt: skip
# Exif 2.32, tag 274: the stored picture lies on its side.
_ORIENTATION, _ON_ITS_SIDE = 274, 6


class _Unsure(RedPredictor):
    """Has no class for the first pixels of every image."""

    def predict(self, images):
        found = [predict_red(image) for image in images]
        for prediction in found:
            prediction.mask[0, :2] = 255
        return [
            dataclasses.replace(one, mean_confidence=0.1 * (1 + at % 9))
            for at, one in enumerate(found)
        ]


def pictures(seed: int) -> dict[str, bytes]:
    """Draw files of all kinds, by their names."""
    drawn = {}
    kinds = {
        "a.jpg": ("JPEG", {}), "deep/er/b c.JPEG": ("JPEG", {}), "deep/d.png": ("PNG", {}),
        "e.tif": ("TIFF", {}), "f.g.webp": ("WEBP", {"lossless": True}), "#h.bmp": ("BMP", {}),
        "ünì/i.png": ("PNG", {}),
    }  # fmt: skip
    for index, (name, (kind, options)) in enumerate(kinds.items()):
        pixels = random_pixels(seed + index, 9 + index, 14, 3)
        drawn[name] = encode(Image.fromarray(pixels), kind, **options)
    exif = Image.Exif()
    exif[_ORIENTATION] = _ON_ITS_SIDE
    turned = Image.fromarray(random_pixels(seed + 50, 8, 20, 3))
    drawn["turned.jpg"] = encode(turned, "JPEG", exif=exif)
    return drawn


def label(
    place: str, source: str, run_id: str, endpoint: str | None = None, masks: str = "files"
) -> Run:
    """Label an input into `place`/out, and publish the run."""
    settings = LabelSettings(
        input=source, output=f"{place}/out", weights="random:0", run_id=run_id,
        max_shard_images=4, s3_endpoint_url=endpoint, masks=masks,
    )  # fmt: skip
    network, history = network_record(), History(settings.storage(), settings.output)
    drafted = draft(history, settings, network)
    run = write_plan(settings.storage(), settings, network, drafted)
    label_run(run, _Unsure())
    publish(run, lambda manifest: "")
    return run


def two_nights(
    place: str, storage: Storage, endpoint: str | None = None, masks: str = "files"
) -> None:
    """Label twice: then one image has changed, one is new, and another has another ending."""
    source = f"{place}/in"
    first = {**pictures(0), "broken.jpg": b"<html>", "later/broken.png": pictures(7)["deep/d.png"]}
    for name, data in first.items():
        storage.write(f"{source}/{name}", data)
    label(place, source, "night-1", endpoint, masks)
    storage.write(f"{source}/a.jpg", pictures(100)["a.jpg"])
    storage.write(f"{source}/new one.png", pictures(200)["deep/d.png"])
    storage.write(f"{source}/later/broken.png", b"<html>, and longer")
    storage.write(f"{source}/e.png", pictures(300)["deep/d.png"])
    with _away(f"{source}/e.tif", f"{place}/e.tif", storage):
        label(place, source, "night-2", endpoint, masks)


@contextmanager
def _away(uri: str, elsewhere: str, storage: Storage) -> Iterator[None]:
    """Keep an object elsewhere for a while; it comes back as the version that it was."""
    if uri.startswith("file://"):
        path, other = (Path(one.removeprefix("file://")) for one in (uri, elsewhere))
        path.rename(other)
        yield
        other.rename(path)
        return
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client, data = boto3.client("s3", endpoint_url=storage.s3_endpoint_url), storage.read(uri)
    client.delete_object(Bucket=bucket, Key=key)
    yield
    storage.write(uri, data)


def truth(place: str, storage: Storage) -> dict[str, NDArray[np.uint8]]:
    """Read the newest mask of every image that has one, by its key."""
    newest: dict[str, Any] = {}
    for run in History(storage, f"{place}/out").runs():
        for table in run.commits():
            newest |= {row["key"]: row for row in table.to_pylist()}
    return {
        key: decode_mask(storage.read_extent(Extent.of_mask(row)))
        for key, row in newest.items()
        if row["status"] == "ok"
    }


def on_disk(folder: Path) -> str:
    """Return the URI of a folder."""
    return f"file://{folder}"
