"""The first numbers of a page: what came out, and how it differs from the last run."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.labelling.page.numbers import percent, signed, three, whole
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run


@dataclass(frozen=True)
class Tile:
    """A number with its name, what it is of, and its change; `mood` is `warn` or nothing."""

    name: str
    value: str
    note: str = ""
    change: str = ""
    mood: str = ""


def make_tiles(run: Run, manifest: Manifest, last: Manifest | None) -> list[Tile]:
    """Choose the numbers.

    Args:
        run: The run.
        manifest: Of it.
        last: Of the last finished run of the same input; None without one.
    """
    return list(_tiles(run, manifest, last))


def _tiles(run: Run, manifest: Manifest, last: Manifest | None) -> Iterator[Tile]:
    yield Tile(
        "Masks",
        whole(manifest.num_ok),
        f"of {whole(manifest.num_images)} images",
        signed(manifest.num_ok - last.num_ok, 0) if last else "",
    )
    yield _failed(manifest, last)
    yield Tile(
        "Mean confidence",
        three(manifest.mean_confidence),
        "over all images with a mask",
        _change(manifest.mean_confidence, last.mean_confidence if last else None, 3),
    )
    speed = _speed(manifest)
    if speed is not None:
        yield Tile(
            "Images/s",
            f"{speed:,.1f}",
            "without pauses and start-up",
            _change(speed, _speed(last) if last else None, 1),
        )
    yield from _price(run, manifest, last)
    if manifest.num_skipped:
        yield Tile("Done before", whole(manifest.num_skipped), "images that earlier runs have")


def _failed(manifest: Manifest, last: Manifest | None) -> Tile:
    share = manifest.num_failed / (manifest.num_images or 1)
    before = last.num_failed / (last.num_images or 1) if last else None
    change = "" if before is None else signed(100 * (share - before), 1)
    return Tile(
        "Failed",
        whole(manifest.num_failed),
        f"{percent(share)} of the images" if manifest.num_failed else "every image has a mask",
        f"{change} points" if change else "",
        "warn" if manifest.num_failed else "",
    )


def _price(run: Run, manifest: Manifest, last: Manifest | None) -> Iterator[Tile]:
    price = manifest.price_per_thousand_images
    if price is not None:
        rate = run.record.settings.get("price_per_node_hour")
        yield Tile(
            "Cost per thousand",
            f"{price:.4f}",
            f"at {rate:g} per node hour",
            _change(price, last.price_per_thousand_images if last else None, 4),
        )


def _speed(manifest: Manifest) -> float | None:
    work = manifest.work
    if work is None or not work.work_seconds:
        return None
    return manifest.num_images / work.work_seconds


def _change(value: float | None, before: float | None, decimals: int) -> str:
    return "" if value is None or before is None else signed(value - before, decimals)
