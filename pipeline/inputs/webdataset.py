"""WebDataset: tars of samples, each an image and its mask beside it, told by their names.

A sample's key is a name up to its first dot; what stands behind tells its files apart: `a/b.jpg`
and `a/b.mask.png` are an image and its mask, as `fcn export --format webdataset` writes them.
They are read where they lie, at their offsets.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.inputs.samples import Labelled, Sample, check_divided, split_of
from pipeline.inputs.source import IMAGE_ENDINGS, is_image, readable_name
from pipeline.inputs.tars import DamagedTarError, Member, read_members
from pipeline.store.entry import Entry
from pipeline.store.extent import member_name, uri_inside
from pipeline.store.storage import Storage

# What stands behind the key of a mask; lossless, so that values are class indices.
MASKS = tuple(f".{kind}.png" for kind in ("mask", "seg", "segmentation", "label"))
_IMAGES = frozenset((*IMAGE_ENDINGS, *(f".image{one}" for one in IMAGE_ENDINGS)))
_THREADS = 8


class _Named(NamedTuple):
    """A sample and its key."""

    sample: Sample
    key: str


def read_webdataset(
    storage: Storage, uri: str, tars: Sequence[Entry], classes_uri: str | None
) -> Labelled:
    """Read which images and masks lie in tars.

    Args:
        storage: Where they are.
        uri: Of the data set: the folder, or the only tar.
        tars: All of them.
        classes_uri: Of the classes file, if there is one.

    Raises:
        InputError: A tar is damaged, or an image has no mask.
        StoreError: The store does not answer.
    """
    splits: dict[str, list[Sample]] = {}
    keys = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for tar, named in zip(tars, pool.map(partial(_samples, storage), tars), strict=True):
            split = splits.setdefault(split_of(tar.uri.removeprefix(uri).lstrip("/")), [])
            split += [one.sample for one in named]
            keys.update({one.sample.image_uri: one.key for one in named})
    for some in splits.values():
        some.sort(key=lambda sample: sample.image_uri)
    check_divided(splits, uri)
    return Labelled("webdataset", splits, classes_uri, names=keys)


def _samples(storage: Storage, tar: Entry) -> list[_Named]:
    try:
        members = [one for one in read_members(storage, tar) if one.is_whole]
    except DamagedTarError as error:
        raise InputError(f"{tar.uri} is damaged: {error}") from error
    names = [(one.name, readable_name(one.name)) for one in members]
    if lost := [readable for name, readable in names if name != readable]:
        raise InputError(f"{tar.uri} has a name that is no UTF-8: {lost[0]}; write the tar anew")
    return [
        sample
        for key, some in groupby(members, key=lambda member: _apart(member.name)[0])
        for sample in _sample(tar, key, list(some))
    ]


def _sample(tar: Entry, key: str, members: Sequence[Member]) -> Iterator[_Named]:
    """Pair an image and its mask; what has neither is none of ours."""
    images = [one for one in members if _apart(one.name)[1] in _IMAGES]
    masks = [one for one in members if _apart(one.name)[1] in MASKS]
    if not any(is_image(one.name) for one in members):
        return
    if len(images) != 1 or len(masks) != 1:
        raise InputError(
            f"{tar.uri}: {key} has {', '.join(_apart(one.name)[1] for one in members)}; a sample "
            "is one image (.jpg, .png) and one mask beside it, whose name is the same up to the "
            f"first dot, and ends in {' or '.join(MASKS)}"
        )
    [image], [mask] = images, masks
    places = (mask.offset, mask.num_bytes, image.offset, image.num_bytes)
    yield _Named(Sample(uri_inside(tar.uri, member_name(image.name)), tar.uri, *places), key)


def _apart(name: str) -> tuple[str, str]:
    """Split a name into the sample's key and what tells its files apart, in small letters."""
    folder, last = os.path.split(name)
    key, dot, ending = last.partition(".")
    return os.path.join(folder, key), dot + ending.lower()
