"""Galleries: photographs beside their masks, the doubtful first, and no near-duplicates."""

import base64
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.images.likeness import is_near
from pipeline.images.overlay import as_webp, lay_over, light_up
from pipeline.labelling.page.candidates import Candidates, Row, find_candidates
from pipeline.labelling.page.comparison import Night
from pipeline.labelling.page.earlier_masks import EarlierMasks, colours_of
from pipeline.labelling.page.pictures import Picture, Pictures
from pipeline.labelling.page.reads import Deadline
from pipeline.labelling.records import ClassTotal, Manifest
from pipeline.labelling.runs import Run
from pipeline.redact import redacted
from pipeline.store.extent import Extent
from pipeline.store.uri import local_path
from pipeline.wording import count

_log = logging.getLogger(__name__)

_PER_GALLERY, _PER_CLASS = 12, 4
_MAX_NOTES = 10
# Of the time for candidates and pictures: what is chosen has to be read, too.
_TO_CHOOSE = 0.6
# Of near-duplicates one is shown: so many times as many pictures are read at most.
_MORE = 2
# As wide as two beside each other are shown, on a fine screen or, of many pictures, on another.
_SIDE, _SIDE_OF_MANY, _MANY = 288, 144, 120
# All pictures of a page, before base64 makes four bytes of three.
_MAX_BYTES = 1_650_000


@dataclass(frozen=True)
class Card:
    """One image on the page: photograph and overlay as `data:` addresses, and what is said of it.

    `change` is how much surer this network is than the last run's, where that is shown, and
    `overlay_before` the last run's mask, empty where that can't be read. `address` is what a
    browser opens the photograph by, empty where it can't. `share` and `class_confidence` are of
    the class whose gallery it is in.
    """

    key: str
    uri: str
    address: str
    photograph: str
    overlay: str
    mean_confidence: float | None
    overlay_before: str = ""
    share: float | None = None
    class_confidence: float | None = None
    change: float | None = None


@dataclass
class Galleries:
    """What a page shows of the images.

    Attributes:
        least_confident: The most doubtful image first.
        less_sure: Of which the network of the run before was surer, the greatest loss first.
        random: Others, at random.
        of_class: For each class some images that have it, at random.
        num_looked_at: Images with a mask among which was chosen.
        num_near: Near-duplicates that were passed over.
        num_unread: Pictures that could not be read.
        notes: Why, of the first ten, and what else could not be read.
        only_before: Classes in the masks of the run before that are shown, and of no name that
            this run has.
        num_for_classes: Images that a page must be allowed for as many of each class as can be
            shown; 0 where they are.
    """

    least_confident: list[Card] = field(default_factory=list)
    less_sure: list[Card] = field(default_factory=list)
    random: list[Card] = field(default_factory=list)
    of_class: list[tuple[ClassTotal, list[Card]]] = field(default_factory=list)
    num_looked_at: int = 0
    num_near: int = 0
    num_unread: int = 0
    notes: list[str] = field(default_factory=list)
    only_before: list[ClassTotal] = field(default_factory=list)
    num_for_classes: int = 0

    def __bool__(self) -> bool:
        """Return whether there is a picture."""
        return bool(self.least_confident or self.less_sure or self.random or self.of_class)


def make_galleries(
    run: Run, manifest: Manifest, number: int, deadline: Deadline, before: Night | None = None
) -> Galleries:
    """Read and draw the pictures of a page. Raises nothing: what can't be read is a note.

    Args:
        run: A published run.
        manifest: Of it.
        number: Images on the page, at most; 0 reads none.
        deadline: After which nothing more is waited for.
        before: The run before, if another network made it.
    """
    if not number or not manifest.num_ok:
        return Galleries()
    try:
        return _hung(run, manifest, number, deadline, before)
    except PipelineError as error:
        return Galleries(notes=[str(error)])
    except Exception as error:  # noqa: BLE001 - whatever it is, the page stands without them
        _log.warning("the report has no pictures", exc_info=True)
        return Galleries(notes=[redacted(f"{type(error).__name__}: {error}")])


def _hung(
    run: Run, manifest: Manifest, number: int, deadline: Deadline, before: Night | None
) -> Galleries:
    soon = deadline.within(_TO_CHOOSE * deadline.left)
    candidates = find_candidates(run, manifest, _MORE * number, soon, before)
    turns = _turns(manifest.classes, candidates)
    # What a page has no use for would be taken from the bytes of the others.
    number = min(number, _num_of_all(candidates) + len(turns))
    side = _SIDE if number <= _MANY else _SIDE_OF_MANY
    with Pictures(run, side, deadline) as pictures:
        earlier = EarlierMasks(manifest.classes, before.manifest.classes if before else ())
        hall = _Hall(pictures, manifest.classes, earlier, turns, number)
        found = hall.hang(candidates)
        found.num_near, found.num_unread = hall.num_near, len(pictures.unread)
        found.only_before = earlier.only_there
        notes = [*candidates.notes, *_no_masks_before(pictures), *pictures.unread.values()]
        found.notes = notes[:_MAX_NOTES]
    return found


def _no_masks_before(pictures: Pictures) -> Iterator[str]:
    """Say of all masks of the run before at once why they are not shown."""
    if unread := pictures.no_mask_before:
        yield f"{count(len(unread), 'mask')} of the run before, from that of {unread[0]}"


class _Hall:
    """Hangs pictures, each image once as long as there are others."""

    def __init__(
        self,
        pictures: Pictures,
        classes: Sequence[ClassTotal],
        earlier: EarlierMasks,
        turns: Sequence[int],
        number: int,
    ) -> None:
        self._pictures = pictures
        self._classes = classes
        self._earlier = earlier
        self._turns = turns
        self._number = number
        # Beside each photograph its mask, and beside some the mask of the run before.
        self._max_bytes = _MAX_BYTES // (2 * number + (_PER_GALLERY if earlier else 0))
        self._shown: dict[str, Picture] = {}
        self._near: dict[str, Picture] = {}

    @property
    def num_near(self) -> int:
        """Return how many images were passed over for one that looks like them."""
        return len(self._near)

    def hang(self, candidates: Candidates) -> Galleries:
        """Fill all galleries."""
        of_all = _num_of_all(candidates)
        each = min(_PER_GALLERY, -(-self._number * _PER_GALLERY // of_all))
        least = self._fill(candidates.least_confident, each)
        less_sure = self._fill(candidates.less_sure, each)
        left = self._number - len(least) - len(less_sure)
        random = self._fill(candidates.random, min(each, left))
        left -= len(random)
        of_class = list(self._by_class(candidates, self._turns[:left]))
        # The last to be waited for: without them each picture has the mask of this run.
        masks = self._pictures.read_before(less_sure)
        return Galleries(
            least_confident=[self._card(picture) for picture in least],
            less_sure=[
                self._beside(picture, mask) for picture, mask in zip(less_sure, masks, strict=True)
            ],
            random=[self._card(picture) for picture in random],
            of_class=[
                (label, [self._card(picture, label) for picture in chosen])
                for label, chosen in of_class
            ],
            num_looked_at=candidates.num_images,
            num_for_classes=0 if left >= len(self._turns) else of_all + len(self._turns),
        )

    def _by_class(
        self, candidates: Candidates, turns: Sequence[int]
    ) -> Iterator[tuple[ClassTotal, list[Picture]]]:
        """Fill the gallery of each class with as many images as it has turns."""
        for label in self._classes:
            number = turns.count(label.id)
            rows = candidates.of_class[label.id] if number else []
            chosen = self._fill(rows, number)
            # Of a small run everything is shown already.
            chosen += self._again(rows, chosen, number)
            if chosen:
                yield label, chosen

    def _again(self, rows: Sequence[Row], beside: Sequence[Picture], number: int) -> list[Picture]:
        """Take what others show, or have passed over, until with those beside there are so many."""
        chosen = list(beside)
        for known in (self._shown, dict(self._near)):
            for row in rows:
                picture = known.get(row["image_id"])
                if picture is None or len(chosen) >= number or _is_like_one(picture, chosen):
                    continue
                chosen.append(replace(picture, row=row))
                self._show(picture)
        return chosen[len(beside) :]

    def _fill(self, rows: Sequence[Row], number: int) -> list[Picture]:
        """Take so many of some rows, the first ones that are new and unlike all that is shown."""
        known = self._shown.keys() | self._near.keys()
        rows = [row for row in rows if row["image_id"] not in known][: _MORE * number]
        chosen: list[Picture] = []
        while rows and len(chosen) < number:
            missing = number - len(chosen)
            some, rows = rows[:missing], rows[missing:]
            for picture in self._pictures.read(some):
                if _is_like_one(picture, self._shown.values()):
                    self._near[picture.row["image_id"]] = picture
                    continue
                chosen.append(picture)
                self._show(picture)
        return chosen

    def _show(self, picture: Picture) -> None:
        image_id = picture.row["image_id"]
        self._shown[image_id] = picture
        self._near.pop(image_id, None)

    def _beside(self, picture: Picture, before: NDArray[np.uint8] | None) -> Card:
        card = self._card(picture)
        if before is None:
            return card
        return replace(card, overlay_before=self._as_data(self._earlier.drawn(picture, before)))

    def _as_data(self, pixels: NDArray[np.uint8]) -> str:
        encoded = base64.b64encode(as_webp(pixels, self._max_bytes)).decode()
        return f"data:image/webp;base64,{encoded}"

    def _card(self, picture: Picture, label: ClassTotal | None = None) -> Card:
        row = picture.row
        if label is None:
            overlay = lay_over(picture.pixels, picture.mask, colours_of(self._classes))
        else:
            overlay = light_up(picture.pixels, picture.mask, label.id, label.color)
        return Card(
            key=row["key"],
            uri=row["uri"],
            address=_address(row),
            photograph=self._as_data(picture.pixels),
            overlay=self._as_data(overlay),
            mean_confidence=row["mean_confidence"],
            share=row.get("share"),
            class_confidence=row.get("class_confidence"),
            change=row.get("change"),
        )


def _address(row: Row) -> str:
    """Return what a browser finds a photograph by: on a disk, and not within another file."""
    uri: str = row["uri"]
    if not uri.startswith("file://") or not Extent.of_image(row).is_whole:
        return ""
    # A URI here is not percent-encoded, and a browser's is.
    return "file://" + quote(local_path(uri))


def _num_of_all(candidates: Candidates) -> int:
    """Return how many images the galleries show that are not of one class."""
    return (3 if candidates.less_sure else 2) * _PER_GALLERY


def _is_like_one(picture: Picture, others: Iterable[Picture]) -> bool:
    return any(is_near(picture.likeness, other.likeness) for other in others)


def _turns(classes: Sequence[ClassTotal], candidates: Candidates) -> list[int]:
    """Let classes choose in turn: the rarest one first, one each, then a second, and so on."""
    num_rows = {class_id: len(rows) for class_id, rows in candidates.of_class.items()}
    rarest_first = sorted(classes, key=lambda label: (label.num_pixels, label.id))
    return [
        label.id
        for turn in range(_PER_CLASS)
        for label in rarest_first
        if num_rows.get(label.id, 0) > turn
    ]
