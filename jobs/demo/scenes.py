"""Drawn street scenes with their truth, for the demo and the tests: sky, road, houses, trees."""

import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASSES = (
    ("sky", (128, 178, 230)),
    ("ground", (110, 130, 80)),
    ("road", (128, 64, 128)),
    ("building", (160, 60, 50)),
    ("tree", (30, 110, 40)),
    ("sun", (250, 220, 90)),
)
_CAR = len(CLASSES)
DEMO_CLASSES = (*CLASSES, ("car", (0, 0, 142)))

_NOISE = 12.0
# (height, width) of the scenes, in turn.
_SIZES = ((120, 160), (135, 240), (200, 150))
_BOMB_SIDE = 30_000
_FOG = 215.0


@dataclass(frozen=True)
class Conditions:
    """How a scene is seen, and what is in it besides.

    Attributes:
        light: Factor of all brightness, 0 to 1.
        fog: How much of it fog hides at the horizon, 0 to 1.
        blur: Radius of a blur, in pixels.
        num_cars: Cars on the road, each of a colour of its own.
    """

    light: float = 1.0
    fog: float = 0.0
    blur: float = 0.0
    num_cars: int = 0


_PLAIN, _DUSK = Conditions(), Conditions(light=0.45)
_FOGGY, _RAINY = Conditions(fog=0.75), Conditions(light=0.8, blur=1.6)
_CARS = Conditions(num_cars=2)
# The demo's scenes in turn, and those that its network was trained on: hardly a car, no fog.
_OF_DEMO = (_PLAIN, _CARS, _PLAIN, _FOGGY, _PLAIN, _PLAIN, _DUSK, _PLAIN, _CARS, _RAINY, _PLAIN)
_OF_TRAINING = (_CARS, *(_PLAIN,) * 39)


def draw_scene(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a scene; the same arguments draw the same one.

    Args:
        seed: Decides all that is random in it.
        height: In pixels.
        width: In pixels.

    Returns:
        RGB, uint8 of shape (H, W, 3), and the class indices, uint8 of shape (H, W).
    """
    random = np.random.default_rng(seed)
    truth = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(truth)
    horizon = int(height * random.uniform(0.4, 0.65))
    draw.ellipse(_box(random, width, horizon, 0.1), fill=5)
    draw.rectangle((0, horizon, width, height), fill=1)
    middle, reach = width * random.uniform(0.3, 0.7), width * random.uniform(0.1, 0.3)
    draw.polygon([(middle, horizon), (middle - reach, height), (middle + reach, height)], fill=2)
    for _ in range(random.integers(2, 6)):
        left, wide = random.uniform(0, width), width * random.uniform(0.08, 0.2)
        top = horizon * random.uniform(0.3, 0.8)
        draw.rectangle((left, top, left + wide, horizon + 0.05 * height), fill=3)
    for _ in range(random.integers(2, 6)):
        x, radius = random.uniform(0, width), height * random.uniform(0.05, 0.12)
        draw.ellipse((x - radius, horizon - radius, x + radius, horizon + radius), fill=4)
    mask = np.asarray(truth)
    colours = np.array([colour for _, colour in CLASSES], np.float64)
    light = random.uniform(0.7, 1.2) * (1 + random.normal(0, 0.08, colours.shape))
    picture = (colours * light)[mask] + random.normal(0, _NOISE, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8), mask


def draw_seen_scene(
    seed: int, height: int, width: int, conditions: Conditions
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the scene of `draw_scene` under some conditions.

    Args:
        seed: Decides all that is random in it.
        height: In pixels.
        width: In pixels.
        conditions: Plain ones leave the scene as it is.

    Returns:
        As `draw_scene`; cars are one class more.
    """
    pixels, mask = draw_scene(seed, height, width)
    random = np.random.default_rng((seed, 1))
    picture, truth = Image.fromarray(pixels), Image.fromarray(mask)
    for _ in range(conditions.num_cars):
        _park_car(random, picture, truth)
    if conditions.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(conditions.blur))
    seen = np.asarray(picture, np.float64)
    grain = random.normal(0, _NOISE, (height, width, 3))
    seen = (seen + (np.asarray(truth) == _CAR)[..., None] * grain) * conditions.light
    if conditions.fog:
        rows = np.arange(height)[:, None, None] / height
        hidden = conditions.fog * np.exp(-(((rows - 0.45) / 0.35) ** 2))
        seen = (1 - hidden) * seen + hidden * _FOG * conditions.light
    return seen.clip(0, 255).astype(np.uint8), np.asarray(truth)


def _park_car(random: np.random.Generator, picture: Image.Image, truth: Image.Image) -> None:
    """Draw a car on the lower part of a scene: its body, cabin and wheels."""
    width, height = picture.size
    long = width * random.uniform(0.14, 0.24)
    left, bottom = random.uniform(0.05, 0.75) * width, random.uniform(0.78, 0.95) * height
    tall = 0.28 * long
    paint = tuple(int(value) for value in random.integers(20, 236, 3))
    for image, fill, tyre in ((picture, paint, (25, 25, 28)), (truth, _CAR, _CAR)):
        draw = ImageDraw.Draw(image)
        draw.rectangle((left, bottom - tall, left + long, bottom), fill=fill)
        cabin = (left + 0.22 * long, bottom - 1.8 * tall, left + 0.78 * long, bottom - tall)
        draw.rectangle(cabin, fill=fill)
        for share in (0.22, 0.78):
            x, radius = left + share * long, 0.11 * long
            draw.ellipse((x - radius, bottom - radius, x + radius, bottom + radius), fill=tyre)


def write_demo_images(folder: Path, num_scenes: int) -> int:
    """Draw scenes of mixed sizes and formats, and files that are broken on purpose.

    Args:
        folder: Where to; what is there already is kept.
        num_scenes: Of whole pictures.

    Returns:
        The number of image files in the folder.
    """
    for index in range(num_scenes):
        ending = ("jpg", "png", "webp", "tif", "bmp")[index % 5]
        path = folder / f"scenes/scene_{index:03d}.{ending}"
        _save_scene(path, index, index, _of_demo(index), part=0)
    broken = _broken_files()
    for name, data in broken.items():
        path = folder / "broken" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return num_scenes + len(broken)


def write_demo_truths(folder: Path, images: Path, num_scenes: int) -> Path:
    """Draw the ground truth of the demo's scenes, and a manifest of both.

    Args:
        folder: Where to; what is there already is kept.
        images: Where `write_demo_images` has drawn.
        num_scenes: As there.

    Returns:
        The manifest, for `evaluate --data`; classes.json lies beside.
    """
    lines = ["image_uri,mask_uri,split"]
    for image in sorted((images / "scenes").iterdir())[:num_scenes]:
        index = int(image.stem.rpartition("_")[2])
        path = folder / f"truths/{image.stem}.png"
        _save_scene(path, index, index, _of_demo(index), part=1)
        # Halves to train and to judge with; the demo's own checkpoint has seen neither.
        lines.append(f"{image},{path},{'train' if index % 2 else 'val'}")
    manifest = folder / "labelled.csv"
    manifest.write_text("\n".join(lines) + "\n")
    write_classes(folder)
    return manifest


def write_labelled_scenes(folder: Path, first: int, number: int) -> None:
    """Draw scenes of mixed sizes with their ground truth: images/, masks/ and classes.json.

    Args:
        folder: Where to.
        first: Seed of the first scene; the others follow.
        number: How many.
    """
    for index in range(number):
        for part, name in enumerate(("images", "masks")):
            path = folder / name / f"{index:05d}.png"
            conditions = _OF_TRAINING[index % len(_OF_TRAINING)]
            _save_scene(path, first + index, index, conditions, part=part)
    write_classes(folder)


def write_classes(folder: Path) -> Path:
    """Write classes.json of the demo's scenes, and return its path."""
    entries = [
        {"id": index, "name": name, "color": colour}
        for index, (name, colour) in enumerate(DEMO_CLASSES)
    ]
    path = folder / "classes.json"
    path.write_text(json.dumps({"classes": entries}))
    return path


def _of_demo(index: int) -> Conditions:
    return _OF_DEMO[index % len(_OF_DEMO)]


def _save_scene(path: Path, seed: int, index: int, conditions: Conditions, *, part: int) -> None:
    """Save a picture (part 0) or its truth (part 1), unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _SIZES[index % len(_SIZES)]
        Image.fromarray(draw_seen_scene(seed, *size, conditions)[part]).save(path)


def _box(random: np.random.Generator, width: int, height: int, size: float) -> tuple[float, ...]:
    x, y = random.uniform(0, width), random.uniform(0, height * 0.6)
    return (x, y, x + size * width, y + size * width)


def _broken_files() -> dict[str, bytes]:
    picture = Image.fromarray(draw_scene(1000, 120, 160)[0])
    whole = _encode(picture, "JPEG")
    return {
        "cut_in_half.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "error_page.jpg": b"<!doctype html><title>404 Not Found</title>",
        "bomb.png": huge_png(_BOMB_SIDE, _BOMB_SIDE),
        "animation.gif": _encode(picture, "GIF"),
    }


def huge_png(height: int, width: int) -> bytes:
    """Make a small PNG whose header promises a huge picture.

    Args:
        height: Promised, in pixels.
        width: Promised, in pixels.
    """
    small = _encode(Image.new("L", (64, 64)), "PNG")
    # PNG specification, 11.2.2: width and height are the first fields of IHDR, big-endian, and
    # the chunk's CRC covers them.
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + small[24:29]
    return small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]


def _encode(image: Image.Image, format_name: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_name)
    return buffer.getvalue()
