"""Writing images in an export's form: what is of one image alone, in threads."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from pipeline.errors import ImageError, StoreError
from pipeline.export.form import File, Form
from pipeline.export.items import is_of_one_image, read_item
from pipeline.export.newest import Row
from pipeline.store.cells import OpenColumns
from pipeline.store.probe import naming_place
from pipeline.store.storage import Storage

# An image's name in the export, and its row.
Named = tuple[str, Row]


@dataclass(frozen=True)
class Writer:
    """Writes images; travels to tasks.

    Attributes:
        form: How; only its `write` is called.
        storage: Reads and writes all of it.
        to: URI of the export's folder.
        threads: Images at a time.
    """

    form: Form
    storage: Storage
    to: str
    threads: int

    def __call__(self, named: Iterable[Named]) -> Iterator[Any]:
        """Write images; gives of each, in order, what is collected, or why it can't be read.

        Raises:
            InputError: A mask is damaged.
            SettingError: The form can't hold an image, or the folder can't be written.
            StoreError: The store does not answer, or refuses more than an image.
        """
        columns, left = OpenColumns(behind=2 * self.threads), iter(named)
        with ThreadPoolExecutor(self.threads) as pool:
            while some := list(islice(left, 2 * self.threads)):
                yield from pool.map(partial(self._write, columns), some)

    def _write(self, columns: OpenColumns, named: Named) -> Any:
        try:
            item = read_item(
                self.storage, *named, with_image=self.form.with_images, columns=columns
            )
        except (ImageError, StoreError) as error:
            if not is_of_one_image(error):
                raise
            return error
        written = self.form.write(item)
        put(self.storage, self.to, written.files)
        return written.entry


# Lets a writer write images, here or elsewhere; gives what it gives, in order.
WriteAll = Callable[[Writer, Iterator[Named]], Iterator[Any]]


def here(writer: Writer, named: Iterator[Named]) -> Iterator[Any]:
    """Implement `WriteAll` in this process."""
    return writer(named)


def put(storage: Storage, to: str, files: Iterable[File]) -> None:
    """Write files of an export.

    Args:
        storage: Enters its folder.
        to: URI of the folder.
        files: By their places in it.

    Raises:
        SettingError: The folder can't be written.
        StoreError: The store does not answer.
    """
    with naming_place("to", to):
        for place, data in files:
            storage.write(f"{to}/{place}", data)
