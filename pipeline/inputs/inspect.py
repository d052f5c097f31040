"""Inspect: a labelled data set before a network is trained on it, or judged by it.

Every image is decoded and every truth counted once, in chunks that travel to where there are
CPUs, by a child process for each chunk: a picture that kills or hangs its decoder is a bad
picture like others, and not the end of Ray's worker, again and again. What would train nonsense
is an error with the names of the files; what may be meant is a warning. Before an evaluation only
ground truth is judged: a bad image is a row of the labelling.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pipeline.errors import ImageError, InputError, StoreError
from pipeline.images.examine import Examined, count_classes, examine_header, examine_image
from pipeline.images.ground_truth import Coding, NoClassError, TruthError
from pipeline.images.isolated import IsolatedDecoder
from pipeline.images.likeness import NEAR
from pipeline.inputs.samples import TRAIN, VAL, Sample
from pipeline.store.cells import OpenColumns, read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage, sha256_hex

_MAX_SHOWN = 5
# Images of val, evenly chosen, each of which is compared with all of train.
_MAX_COMPARED = 1000
_OF_CLASSES = "classes.json says which classes there are, truth_coding how files name them"


class Chunk(TypedDict):
    """Samples to inspect: their split and their places, side by side, as in `Sample`."""

    split: str
    image_uris: list[str]
    mask_uris: list[str]
    mask_offsets: list[int | None]
    mask_bytes: list[int | None]
    image_offsets: list[int | None]
    image_bytes: list[int | None]
    image_copies: list[str | None]


class Finding(TypedDict):
    """What is found of one sample; `pixels` is per class, those without a class last.

    `likeness` is the image's perceptual hash in hexadecimal digits, empty where images are not
    judged. `of_classes` is whether its problem are values or colours that are no class's.
    """

    split: str
    image_uri: str
    sha256: str
    likeness: str
    pixels: list[int]
    problem: str
    of_classes: bool


class Inspection(BaseModel):
    """What a whole data set holds; stands in the run's folder, so that it is done once.

    Attributes:
        num_images: By split.
        pixels: By split, per class; pixels without a class last.
        warnings: For a person.
    """

    model_config = ConfigDict(frozen=True)

    num_images: dict[str, int]
    pixels: dict[str, list[int]]
    warnings: list[str]


@dataclass(frozen=True)
class Inspect:
    """Inspects chunks; travels to workers.

    Attributes:
        storage: Where the samples are.
        coding: The coding of the ground truth.
        max_image_pixels: The limit on height * width.
        max_image_s: Seconds that one image may take in its decoder.
        threads: Samples that are read at a time; one at a time is decoded.
        judge_images: Whether a bad image is a problem; else it is passed over, and of the others
            no more is read than their size.
    """

    storage: Storage
    coding: Coding
    max_image_pixels: int
    max_image_s: float
    threads: int
    judge_images: bool = True

    def __call__(self, chunk: Chunk) -> dict[str, list[Finding]]:
        """Inspect the samples of a chunk.

        Raises:
            StoreError: The store does not answer; a file that is not there is a finding.
        """
        samples = map(
            Sample,
            *(chunk["image_uris"], chunk["mask_uris"]),
            *(chunk["mask_offsets"], chunk["mask_bytes"]),
            *(chunk["image_offsets"], chunk["image_bytes"], chunk["image_copies"]),
        )
        split = chunk["split"]
        with IsolatedDecoder(self.max_image_s) as child, ThreadPoolExecutor(self.threads) as pool:
            columns = OpenColumns(behind=2 * self.threads)
            look = partial(self._inspect, child, columns, split)
            return {"findings": list(pool.map(look, samples))}

    def _inspect(
        self, child: IsolatedDecoder, columns: OpenColumns, split: str, sample: Sample
    ) -> Finding:
        finding = _nothing_found(split, sample.image_uri)
        place = sample.image_uri
        try:
            finding["sha256"], image = self._look_at(child, columns, sample.image)
            finding["likeness"] = image.likeness
            place = str(sample.mask)
            truth = self.storage.read_extent(sample.mask)
            size, pixels = child.call(count_classes, truth, self.coding)
        except StoreError as error:
            if error.lasting:
                return {**finding, "problem": error.message}
            raise
        except (ImageError, TruthError) as error:
            of_classes = isinstance(error, NoClassError)
            return {**finding, "problem": f"{place}: {error}", "of_classes": of_classes}
        if image.size not in (None, size):
            return {**finding, "problem": f"{place} is {size}, its image is {image}"}
        return {**finding, "pixels": pixels}

    def _look_at(
        self, child: IsolatedDecoder, columns: OpenColumns, place: Extent
    ) -> tuple[str, Examined]:
        """Return the hash of an image's bytes, and what is known of its pixels."""
        examine = examine_image if self.judge_images else examine_header
        try:
            data = read_image(self.storage, place, columns=columns)
            return sha256_hex(data), child.call(examine, data, self.max_image_pixels)
        except (ImageError, StoreError):
            if self.judge_images:
                raise
            return "", Examined()


def _nothing_found(split: str, image_uri: str) -> Finding:
    return Finding(
        split=split,
        image_uri=image_uri,
        sha256="",
        likeness="",
        pixels=[],
        problem="",
        of_classes=False,
    )


@dataclass
class _Sums:
    num_images: Counter[str] = field(default_factory=Counter)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    num_problems: int = 0
    of_classes: bool = False
    splits_of: dict[str, dict[str, str]] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    likenesses: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        split = finding["split"]
        self.num_images[split] += 1
        self.first.setdefault(split, finding["image_uri"])
        if finding["problem"]:
            self.num_problems += 1
            self.of_classes |= finding["of_classes"]
            if len(self.problems) < _MAX_SHOWN:
                self.problems.append(finding["problem"])
            return
        self.splits_of.setdefault(finding["sha256"], {})[split] = finding["image_uri"]
        if finding["likeness"]:
            likeness = int(finding["likeness"], 16)
            self.likenesses.setdefault(split, {})[finding["image_uri"]] = likeness
        counts = np.array(finding["pixels"], np.int64)
        self.pixels[split] = self.pixels.get(split, np.zeros_like(counts)) + counts


def summarise(
    findings: Iterable[Finding], names: Sequence[str], *, allow_overlap: bool = False
) -> Inspection:
    """Judge a data set by what was found of its samples.

    Args:
        findings: The findings of all samples of `train` and perhaps `val`.
        names: The names of the classes, in order of the class index.
        allow_overlap: Whether an image may be in both splits, with a warning.

    Raises:
        InputError: Files can't be read or do not fit the classes, an image is in both splits, or
            no truth has a class.
    """
    sums = _sum(findings)
    warnings = [*_overlap(sums, allow_overlap=allow_overlap), *_near_duplicates(sums)]
    _check_labelled(sums, len(names))
    _check_binary(sums, len(names))
    if len(names) == 1:
        warnings.append(
            f"{names[0]} is the only class, so that every pixel gets it and nothing is learned; "
            "pixels of 255 are no class: where they are the rest of the picture, give them one"
        )
    for split, counts in sums.pixels.items():
        missing = [name for name, count in zip(names, counts, strict=False) if not count]
        if missing:
            effect = "it will never be predicted well" if split == TRAIN else "it is not judged"
            warnings.append(
                f"no pixel of {', '.join(missing)} in {split}: {effect}; pixels per class: "
                f"{_histogram(counts, names)}"
            )
    pixels = {split: counts.tolist() for split, counts in sums.pixels.items()}
    return Inspection(num_images=dict(sums.num_images), pixels=pixels, warnings=warnings)


def check_truths(findings: Iterable[Finding], num_classes: int) -> None:
    """Refuse ground truth that nothing can be scored with.

    Args:
        findings: The findings of all samples of a split.
        num_classes: Number of classes of the data set.

    Raises:
        InputError: Truths can't be read or do not fit their images or the classes, or none has a
            class.
    """
    _check_labelled(_sum(findings), num_classes)


def _sum(findings: Iterable[Finding]) -> _Sums:
    sums = _Sums()
    for finding in findings:
        sums.add(finding)
    if sums.num_problems:
        more = sums.num_problems - len(sums.problems)
        raise InputError(
            f"{sums.num_problems} of {sums.num_images.total()} samples can't be used:\n  "
            + "\n  ".join(sums.problems)
            + (f"\n  and {more} more" if more else "")
            + (f"\n{_OF_CLASSES}" if sums.of_classes else "")
        )
    return sums


def _overlap(sums: _Sums, *, allow_overlap: bool) -> Iterable[str]:
    both = [
        f"{places[TRAIN]} = {places[VAL]}"
        for places in sums.splits_of.values()
        if TRAIN in places and VAL in places
    ]
    if not both:
        return
    text = (
        f"{len(both)} images are in {TRAIN} and in {VAL}, so that the metrics would be too good: "
        f"{', '.join(sorted(both)[:_MAX_SHOWN])}"
    )
    if not allow_overlap:
        raise InputError(f"{text}; remove them from one, or allow_overlap if they are meant")
    yield text


def _near_duplicates(sums: _Sums) -> Iterable[str]:
    """Warn of images of val that look like one of train, as the next frame of a film does."""
    same = {places[VAL] for places in sums.splits_of.values() if places.keys() >= {TRAIN, VAL}}
    train, val = (sums.likenesses.get(split, {}) for split in (TRAIN, VAL))
    others = [(uri, likeness) for uri, likeness in val.items() if uri not in same]
    looked_at = others[:: max(1, -(-len(others) // _MAX_COMPARED))]
    known = np.array(list(train.values()), np.uint64)
    near = [uri for uri, likeness in looked_at if _differing_bits(known, likeness) <= NEAR]
    if near:
        yield (
            f"{len(near)} of {len(looked_at)} images of {VAL} look like one of {TRAIN}, such as "
            f"{near[0]}: judged by them, a network seems better than it is on new places; "
            "val_match, or val_group with val_fold, holds out whole drives, patients or places"
        )


def _differing_bits(known: NDArray[np.uint64], likeness: int) -> int:
    """Return by how many bits the nearest of some hashes differs from another one."""
    return int(np.bitwise_count(known ^ np.uint64(likeness)).min(initial=64))


def _check_labelled(sums: _Sums, num_classes: int) -> None:
    for split, total in sums.pixels.items():
        if not total[:num_classes].any():
            raise InputError(
                f"{_all_of(split, sums)} are 255, no class: no truth has a pixel of any class"
            )


def _check_binary(sums: _Sums, num_classes: int) -> None:
    # Of all splits: that val has the first class alone may be so.
    total = np.sum(list(sums.pixels.values()), axis=0)
    if total[0] and total[-1] and not total[1:-1].any() and num_classes > 1:
        raise InputError(
            f"all ground truth, as that of {sums.first[TRAIN]}, holds 0 and 255 only "
            f"({total[0]:,} and {total[-1]:,} pixels), and 255 means no class, so that there is "
            "nothing to tell apart. Where 255 is a class: give it the color [255, 255, 255] in "
            "classes.json, class 0 [0, 0, 0], and set truth_coding=colors"
        )


def _all_of(split: str, sums: _Sums) -> str:
    return f"all ground truth of {split}, as that of {sums.first[split]},"


def _histogram(counts: np.ndarray, names: Sequence[str]) -> str:
    named = zip([*names, "no class"], counts, strict=True)
    return ", ".join(f"{name} {count:,}" for name, count in named)
