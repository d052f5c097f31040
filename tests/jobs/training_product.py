"""Use `train` and `evaluate` as their users do, on small drawn scenes."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from jobs.__main__ import main
from jobs.demo.scenes import CLASSES, draw_scene
from tests.servers import Server

SIZE = (32, 48)
_CLASSES_JSON = json.dumps(
    {
        "classes": [
            {"id": index, "name": name, "color": colour}
            for index, (name, colour) in enumerate(CLASSES)
        ]
    }
)
# A network without batch norm and small enough for a test; its dropout is the paper's.
PLAIN = (
    *("--network", "fcn32s_vgg16", "--width", "2", "--padding", "tight"),
    *("--recipe", "paper", "--micro-batch-size", "8", "--learning-rate", "0.02"),
)


def scenes(folder: Path, num_train: int, num_val: int, size: tuple[int, int] = SIZE) -> Path:
    """Write a labelled data set of drawn scenes with the splits train and val."""
    write_scenes(lambda key, data: _write(folder / key, data), num_train, num_val, size)
    return folder


def scenes_in_bucket(s3: Server, num_train: int, num_val: int) -> tuple[str, str]:
    """Put a labelled data set into a new bucket; give the bucket and the set's URI."""
    bucket = s3.make_bucket()
    write_scenes(lambda key, data: s3.put(bucket, f"data/{key}", data), num_train, num_val, SIZE)
    return bucket, f"s3://{bucket}/data"


def write_scenes(
    write: Callable[[str, bytes], None], num_train: int, num_val: int, size: tuple[int, int]
) -> None:
    for split, number, first in (("train", num_train, 0), ("val", num_val, 5000)):
        for index in range(number):
            image, truth = draw_scene(first + index, *size)
            write(f"{split}/images/{index:03d}.png", _png(image))
            write(f"{split}/masks/{index:03d}.png", _png(truth))
    write("classes.json", _CLASSES_JSON.encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def train_flags(data: object, output: object, name: str, *flags: object) -> list[str]:
    places = ["--data", data, "--output", output, "--run-name", name]
    return ["train", *map(str, places), *map(str, flags)]


def train(data: object, output: object, name: str, *flags: object) -> int:
    """Run `train` in this process; give its exit code."""
    return main(train_flags(data, output, name, *flags))


def lines(folder: Path) -> list[dict]:
    """Read metrics.jsonl of a run on the disk."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def workers(process: psutil.Process) -> list[psutil.Process]:
    """Find the workers that train among what descends from a process."""
    found = []
    for one in process.children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(one.cmdline()):
                found.append(one)
        except psutil.NoSuchProcess:
            continue
    return found
