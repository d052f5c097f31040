"""Corrections: ground truth by people that takes the place of a large set's own, image by image.

A correction is of the image whose URI it names. Where an export has copied and renamed the images,
it is of the one whose path ends in its name: `deep/a` is s3://bucket/photos/deep/a.jpg.
"""

import os
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from pipeline.errors import InputError
from pipeline.inputs.samples import Labelled, Sample
from pipeline.store.extent import place_of

_MAX_SHOWN = 5
# What stands before the name of a truth, by layout.
_TRUTHS = {"voc": "/SegmentationClass/", "folders": "/masks/"}
_OWN_MASKS = "/masks/run="
# Its images are rows, named by what they are from.
_ROWS = "parquet"


def named(found: Labelled) -> list[tuple[str, Sample]]:
    """Return the samples of all splits of a set of corrections, each with its name.

    Args:
        found: The corrections. A name has folders and no ending; it is empty where the layout has
            none but the image's URI.
    """
    return [(_name(found, one), one) for some in found.splits.values() for one in some]


def _name(found: Labelled, sample: Sample) -> str:
    if found.names:
        name = found.names[sample.image_uri]
        return name if "://" in name else _stem(name)
    return _stem(sample.mask_uri.partition(_TRUTHS.get(found.layout, "\0"))[2])


def matched(data: Labelled, corrections: Sequence[tuple[str, Sample]]) -> dict[str, Sample]:
    """Find the image of each correction.

    Args:
        data: The large set.
        corrections: With their names.

    Returns:
        The corrections, by the URI of the image in the large set.

    Raises:
        InputError: A correction is of no image, of several, or not the only one of its image.
    """
    images = _Images(data)
    candidates = [images.of(name, sample) for name, sample in corrections]
    lonely = [
        name or sample.image_uri
        for (name, sample), places in zip(corrections, candidates, strict=True)
        if not places
    ]
    _check(lonely, len(corrections), images)
    found: dict[str, Sample] = {}
    # Those of one image first: what they take, others with more to choose from are not of.
    order = sorted(range(len(candidates)), key=lambda index: len(candidates[index]) > 1)
    for index in order:
        _take(corrections[index][1], candidates[index], found)
    return found


def _take(sample: Sample, places: Sequence[str], found: dict[str, Sample]) -> None:
    """Give a correction the one image that it can be of. Raises InputError."""
    free = [place for place in places if place not in found]
    if len(free) > 1:
        raise InputError(
            f"the correction {sample.mask} may be of {free[0]} or of {free[1]}; name the "
            "images with the folders that tell them apart"
        )
    if not free:
        raise InputError(
            f"{found[places[0]].mask} and {sample.mask} both correct {places[0]}; remove one"
        )
    found[free[0]] = sample


def _check(lonely: Sequence[str], number: int, images: "_Images") -> None:
    if lonely:
        more = f" and {len(lonely) - _MAX_SHOWN} more" if len(lonely) > _MAX_SHOWN else ""
        raise InputError(
            f"{len(lonely)} of {number} corrections are of no image of data: "
            f"{', '.join(lonely[:_MAX_SHOWN])}{more}; its images are such as {images.first}. "
            "Remove them from the corrections, or take data that has their images"
        )


class _Images:
    """The images of a data set by their URIs, and by the last part of their names."""

    def __init__(self, data: Labelled) -> None:
        self._by_last: dict[str, list[tuple[str, str]]] = {}
        self._by_uri: dict[str, set[str]] = {}
        for some in data.splits.values():
            for sample in some:
                uri = sample.image_uri
                origin = data.names.get(uri) if data.layout == _ROWS else None
                for one in filter(None, (uri, origin)):
                    self._by_uri.setdefault(one, set()).add(uri)
                for name in _names(sample, origin or ""):
                    last = name.rpartition("/")[2]
                    self._by_last.setdefault(last, []).append((name, uri))
        self.first = min(self._by_uri)

    def of(self, name: str, sample: Sample) -> list[str]:
        """Return the images that a correction may be of, one at best."""
        for uri in filter(None, (sample.image_uri, name)):
            if uri in self._by_uri:
                return sorted(self._by_uri[uri])
        names = dict.fromkeys((name, unquote(name)))
        places = {place: None for one in names if one for place in self._ending_in(one)}
        return list(places)

    def _ending_in(self, name: str) -> Iterator[str]:
        pairs = self._by_last.get(name.rpartition("/")[2], ())
        yield from (place for other, place in pairs if f"/{other}".endswith(f"/{name}"))


def _names(sample: Sample, origin: str) -> set[str]:
    """Return what an export may have made of an image's name, in a copy of its folders."""
    path = place_of({"uri": sample.image_uri, "image_offset": sample.image_offset})
    in_tar = sample.mask.span is not None  # whose name is no image's
    own = "" if in_tar else sample.mask_uri.partition(_OWN_MASKS)[2].partition("/")[2]
    return {path, _stem(path), _stem(own), origin, _stem(origin)} - {""}


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]
