"""Reads: which images of a shard one request brings.

Images that lie close to each other in a tar come together: a request costs more time, and money,
than the bytes between them. Those of a column of a Parquet file come one after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from pipeline.labelling.schema import ImageRow
from pipeline.store.extent import Extent

# Bytes between two images that are read for nothing rather than asked around.
_MAX_GAP = 256 << 10
# A larger read would be lost whole where it is cut off, and fewer would be under way.
MAX_READ = 8 << 20


@dataclass(frozen=True)
class Read:
    """Bytes that are read at once, and the images in them.

    Attributes:
        place: The bytes.
        version: Of the object; None where the plan knows none.
        images: In order of their places; a single one where it is an object of its own. Of a
            Parquet file, the place is that of the first one.
    """

    place: Extent
    version: str | None
    images: tuple[ImageRow, ...]

    def apart(self) -> Iterator["Read"]:
        """Take its images one by one."""
        for image in self.images:
            yield _alone(image)


def _alone(image: ImageRow) -> Read:
    return Read(Extent.of_image(image), image["etag"], (image,))


def reads_of(planned: Sequence[ImageRow], max_image_bytes: int) -> Iterator[Read]:
    """Decide what is read at once: images of one tar, or each by itself.

    Args:
        planned: The images; what is not to be read, or may not be as large, is by itself.
        max_image_bytes: Larger images are not read.
    """
    inside, cells = [], []
    for image in planned:
        read = _alone(image)
        if image.get("error_code") is not None or read.place.is_whole:
            yield read
        elif read.place.cell is not None and read.version is not None:
            cells.append(((read.place.uri, read.version, *read.place.cell), image))
        elif read.place.cell is not None or (image["num_bytes"] or 0) > max_image_bytes:
            yield read
        else:
            inside.append(read)
    inside.sort(key=lambda read: (read.place.uri, read.version, read.place.offset))
    yield from _joined(inside)
    cells.sort(key=itemgetter(0))
    for (_, version, _), column in groupby(cells, key=lambda cell: cell[0][:3]):
        images = tuple(image for _, image in column)
        yield Read(Extent.of_image(images[0]), version, images)


def _joined(reads: Sequence[Read]) -> Iterator[Read]:
    begun: Read | None = None
    for read in reads:
        both = begun and _both(begun, read)
        if begun and not both:
            yield begun
        begun = both or read
    if begun:
        yield begun


def _both(first: Read, second: Read) -> Read | None:
    """Join two reads, the second of which begins behind the first; None where that is too much."""
    before, after = first.place.span, second.place.span
    assert before is not None, "a part of a tar"
    assert after is not None, "a part of a tar"
    end = max(before.stop, after.stop)
    near = after.start - before.stop <= _MAX_GAP and end - before.start <= MAX_READ
    if (first.place.uri, first.version) != (second.place.uri, second.version) or not near:
        return None
    place = Extent(first.place.uri, before.start, end - before.start)
    return Read(place, first.version, first.images + second.images)
