"""Galleries: photographs beside their masks, the doubtful first, and no near-duplicates."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.errors import PipelineError
from pipeline.images.likeness import is_near
from pipeline.images.masks import IGNORE_INDEX
from pipeline.images.overlay import as_webp, lay_over, light_up
from pipeline.labelling.page.candidates import Candidates, Row, find_candidates
from pipeline.labelling.page.pictures import Picture, Pictures
from pipeline.labelling.records import ClassTotal, Manifest
from pipeline.labelling.runs import Run

_PER_GALLERY, _PER_CLASS = 12, 4
_MAX_NOTES = 10
_SECONDS = 10.0
# Of near-duplicates one is shown: so many times as many pictures are read at most.
_MORE = 2
# All pictures of a page, before base64 makes four bytes of three.
_MAX_BYTES = 1_650_000


@dataclass(frozen=True)
class Card:
    """One image on the page: photograph and overlay as `data:` addresses, and what is said of it.

    `share` and `class_confidence` are of the class whose gallery it is in.
    """

    key: str
    photograph: str
    overlay: str
    mean_confidence: float | None
    share: float | None = None
    class_confidence: float | None = None


@dataclass
class Galleries:
    """What a page shows of the images.

    Attributes:
        least_confident: The most doubtful image first.
        random: Others, at random.
        of_class: For each class some images that have it, at random.
        num_looked_at: Images with a mask among which was chosen.
        num_near: Near-duplicates that were passed over.
        num_unread: Pictures that could not be read.
        notes: Why, of the first ten.
    """

    least_confident: list[Card] = field(default_factory=list)
    random: list[Card] = field(default_factory=list)
    of_class: list[tuple[ClassTotal, list[Card]]] = field(default_factory=list)
    num_looked_at: int = 0
    num_near: int = 0
    num_unread: int = 0
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is a picture."""
        return bool(self.least_confident or self.random or self.of_class)


def make_galleries(run: Run, manifest: Manifest, number: int) -> Galleries:
    """Read and draw the pictures of a page. Raises nothing: what can't be read is a note.

    Args:
        run: A published run.
        manifest: Of it.
        number: Images on the page, at most; 0 reads none.
    """
    if not number or not manifest.num_ok:
        return Galleries()
    try:
        candidates = find_candidates(run, manifest, _MORE * number)
    except PipelineError as error:
        return Galleries(notes=[str(error)])
    with Pictures(run, _SECONDS) as pictures:
        hall = _Hall(pictures, manifest, number)
        found = hall.hang(candidates)
        found.num_near, found.num_unread = hall.num_near, len(pictures.unread)
        found.notes = list(pictures.unread.values())[:_MAX_NOTES]
    return found


class _Hall:
    """Hangs pictures, each image once as long as there are others."""

    def __init__(self, pictures: Pictures, manifest: Manifest, number: int) -> None:
        self._pictures = pictures
        self._classes = manifest.classes
        self._number = number
        self._max_bytes = _MAX_BYTES // number // 2
        self._shown: dict[str, Picture] = {}
        self._near: set[str] = set()

    @property
    def num_near(self) -> int:
        """Return how many images were passed over for another one, in one gallery or more."""
        return len(self._near)

    def hang(self, candidates: Candidates) -> Galleries:
        """Fill all galleries."""
        each = min(_PER_GALLERY, -(-self._number // 2))
        least = self._fill(candidates.least_confident, each)
        random = self._fill(candidates.random, min(each, self._number - len(least)))
        of_class = self._by_class(candidates, self._number - len(least) - len(random))
        return Galleries(
            least_confident=[self._card(picture) for picture in least],
            random=[self._card(picture) for picture in random],
            of_class=[
                (label, [self._card(picture, label) for picture in chosen])
                for label, chosen in of_class
            ],
            num_looked_at=candidates.num_images,
        )

    def _by_class(
        self, candidates: Candidates, left: int
    ) -> Iterator[tuple[ClassTotal, list[Picture]]]:
        """Share what is left out: the rarest class first, one to each, then a second, and so on."""
        present = [label for label in self._classes if candidates.of_class.get(label.id)]
        rarest_first = sorted(present, key=lambda label: (label.num_pixels, label.id))
        turns = [label.id for _ in range(_PER_CLASS) for label in rarest_first][:left]
        for label in present:
            rows, number = candidates.of_class[label.id], turns.count(label.id)
            chosen = self._fill(rows, number)
            # Of a small run everything is shown already.
            chosen += self._again(rows, chosen)[: number - len(chosen)]
            if chosen:
                yield label, chosen

    def _again(self, rows: Sequence[Row], chosen: Sequence[Picture]) -> list[Picture]:
        without = {picture.row["image_id"] for picture in chosen}
        return [
            replace(self._shown[row["image_id"]], row=row)
            for row in rows
            if row["image_id"] in self._shown and row["image_id"] not in without
        ]

    def _fill(self, rows: Sequence[Row], number: int) -> list[Picture]:
        """Take so many of some rows, the first ones that are new and unlike each other."""
        rows = [row for row in rows if row["image_id"] not in self._shown][: _MORE * number]
        chosen: list[Picture] = []
        while rows and len(chosen) < number:
            missing = number - len(chosen)
            some, rows = rows[:missing], rows[missing:]
            for picture in self._pictures.read(some):
                if any(is_near(picture.likeness, other.likeness) for other in chosen):
                    self._near.add(picture.row["image_id"])
                    continue
                chosen.append(picture)
                self._shown[picture.row["image_id"]] = picture
        return chosen

    def _card(self, picture: Picture, label: ClassTotal | None = None) -> Card:
        row = picture.row
        if label is None:
            colours = [one.color for one in self._classes if one.id != IGNORE_INDEX]
            overlay = lay_over(picture.pixels, picture.mask, colours)
        else:
            overlay = light_up(picture.pixels, picture.mask, label.id, label.color)
        photograph, drawn = (
            "data:image/webp;base64," + base64.b64encode(as_webp(one, self._max_bytes)).decode()
            for one in (picture.pixels, overlay)
        )
        return Card(
            key=row["key"],
            photograph=photograph,
            overlay=drawn,
            mean_confidence=row["mean_confidence"],
            share=row.get("share"),
            class_confidence=row.get("class_confidence"),
        )
