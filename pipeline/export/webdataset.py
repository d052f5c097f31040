"""WebDataset: tar files of samples: the image, its mask in grey, and what is known of them.

A sample's key ends at its first dot, so dots in names become %2E, and a %2E becomes %252E. The
masks are grey (mode L), since decode("pil") makes colours of a palette; their values are the class
indices. The library itself is not used: importing it loads torch, and a shard is a plain tar file.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping

from pipeline.export.form import About, File, Written
from pipeline.export.items import Item
from pipeline.export.parts import Parts
from pipeline.export.upright import as_png
from pipeline.export.voc import classes_json
from pipeline.images.masks import decode_mask

_SAMPLES_PER_FILE = 10_000
_BYTES_PER_FILE = 128 << 20
_KNOWN = ("uri", "key", "image_id", "mean_confidence", "height", "width", "run_id", "fingerprint")

# What already looks like a dot, or like that in turn.
_DOT = re.compile(r"%(?=(?:25)*2E)")

# The key, and its files by ending.
_Sample = tuple[str, Mapping[str, bytes]]


class WebDataset:
    """Writes shard-000000.tar and so on, and classes.json."""

    with_images = True

    def __init__(self, about: About) -> None:
        """Begin."""
        self._classes = about.classes
        self._parts: Parts[_Sample] = Parts(
            lambda number: f"shard-{number:06d}.tar", _tar, _SAMPLES_PER_FILE, _BYTES_PER_FILE
        )

    def write(self, item: Item) -> Written:
        """Make a sample of an image and its mask."""
        assert item.image is not None, "a sample has its image"
        known = json.dumps({name: item.row[name] for name in _KNOWN})
        files = {
            item.ending: item.image,
            "mask.png": as_png(decode_mask(item.mask)),
            "json": known.encode(),
        }
        return Written((), (_key(item.name), files))

    def collect(self, entry: _Sample) -> Iterable[File]:
        """Take up a sample."""
        return self._parts.add(entry, sum(map(len, entry[1].values())))

    def finish(self) -> Iterator[File]:
        """Write the last samples, and the classes."""
        yield from self._parts.close()
        yield "classes.json", classes_json(self._classes)


def _key(name: str) -> str:
    """Write a name without dots, so that no two names have one key."""
    return _DOT.sub("%25", name).replace(".", "%2E")


def _tar(samples: Iterable[_Sample]) -> bytes:
    """Lay samples out as a tar file; members have no time and no owner, so that it is repeatable.

    PAX takes names of any length and alphabet, which webdataset's own writer (USTAR) does not.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, files in samples:
            for ending, data in files.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
