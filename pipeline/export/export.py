"""Export: the newest masks and their images, in another program's form.

Streams: some images are read, brought into the form and written at a time, in order of their URIs.
The same output gives the same files.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pipeline.errors import ErrorCode, ImageError, InputError, StoreError
from pipeline.export.form import About, Form
from pipeline.export.newest import Answers
from pipeline.export.place import refuse_folder
from pipeline.export.unique_names import Names
from pipeline.export.writer import Named, WriteAll, Writer, here, put
from pipeline.inputs.manifests import manifest_uris
from pipeline.labelling.schema import OK
from pipeline.settings.export import ExportSettings
from pipeline.store.object_file import open_object
from pipeline.store.storage import Storage
from pipeline.store.uri import normalise_uri
from pipeline.wording import count, there_are

_log = logging.getLogger(__name__)

# A format's module is imported by its name, since each has a library of its own.
_FORMS = {
    "voc": ("pipeline.export.voc", "Voc"),
    "coco": ("pipeline.export.coco", "Coco"),
    "label-studio": ("pipeline.export.label_studio", "LabelStudio"),
    "webdataset": ("pipeline.export.webdataset", "WebDataset"),
    "hf": ("pipeline.export.hf", "HuggingFace"),
}


@dataclass
class Exported:
    """What an export has done.

    Attributes:
        num_images: Written.
        num_left_out: Images that have changed, or can't be read for another reason.
        num_gone: Images that are not there any more.
        num_unknown: Of the selection, images that have no mask in the output.
    """

    num_images: int = 0
    num_left_out: int = 0
    num_gone: int = 0
    num_unknown: int = 0


def export(
    answers: Answers, settings: ExportSettings, storage: Storage, write_all: WriteAll = here
) -> Exported:
    """Write images and masks in another program's form.

    Args:
        answers: What is exported.
        settings: In which form, where to, and which of it.
        storage: Reads and writes all of it.
        write_all: Where images are written.

    Raises:
        SettingError: The classes don't fit the form, its library is not installed, or the export
            would lie where it could replace something.
        InputError: There is nothing to export, or a mask is damaged.
    """
    refuse_folder(answers, settings.to)
    form = _form(answers, settings)
    _warn_of_what_is_there(storage, settings.to)
    wanted = None if settings.selection is None else _selected(storage, settings.selection)
    _say_what_comes(answers)
    done, said_at = Exported(), time.monotonic()
    writer = Writer(form, storage, settings.to, settings.io_threads)
    for entry in write_all(writer, _named(answers, wanted)):
        _collect(form, entry, done, storage, settings.to)
        if time.monotonic() - said_at >= settings.log_interval_s:
            said_at = time.monotonic()
            _log.info("%s written", there_are(done.num_images, "image"))
    if not done.num_images:
        raise InputError(f"{settings.output} has no mask of what is asked for; nothing is exported")
    put(storage, settings.to, form.finish())
    found = done.num_images + done.num_left_out + done.num_gone
    done.num_unknown = max(0, len(wanted or ()) - found)
    _say_what_is_left_out(done)
    return done


def _say_what_is_left_out(done: Exported) -> None:
    if done.num_unknown:
        unknown = count(done.num_unknown, "image")
        _log.warning("the selection names %s without a mask in the output", unknown)
    if done.num_gone:
        _log.warning("%s left out: gone from the input", there_are(done.num_gone, "image"))
    if done.num_left_out:
        _log.error(
            "%s left out: changed since labelled, or not to be read; label again and export anew",
            there_are(done.num_left_out, "image"),
        )


def _form(answers: Answers, settings: ExportSettings) -> Form:
    module, name = _FORMS[settings.format]
    about = About(
        answers.classes, answers.fingerprint, settings.copy_images, settings.image_url_prefix
    )
    form: Form = getattr(import_module(module), name)(about)
    return form


def _warn_of_what_is_there(storage: Storage, to: str) -> None:
    """Say that an export replaces what has its names, and leaves the rest of another one."""
    try:
        there = storage.children(to)
    except StoreError as error:
        # Not there yet, or not to be listed.
        if error.refused:
            return
        raise
    if there:
        _log.warning(
            "to=%r is not empty, it holds %s: files of an earlier export that this one does not "
            "replace stay beside it; name an empty folder to have one export alone",
            to,
            min(there),
        )


def _say_what_comes(answers: Answers) -> None:
    """Say how much there may be before the first image is read, which may take a while."""
    rows = sum(manifest.num_ok for _, manifest in answers.runs)
    _log.info("%s of %s to go through", count(rows, "mask"), count(len(answers.runs), "run"))


def _selected(storage: Storage, selection: str) -> set[str]:
    try:
        uris = manifest_uris(open_object(storage, selection), selection)
        return {normalise_uri(uri, "uri") for uri in uris}
    except StoreError as error:
        if error.refused:
            raise InputError(f"selection={selection!r}: {error.message}") from error
        raise


def _named(answers: Answers, wanted: set[str] | None) -> Iterator[Named]:
    with closing(Names()) as names:
        for row in answers.rows():
            if row["status"] == OK and (wanted is None or row["uri"] in wanted):
                yield names.of(row), row


def _collect(form: Form, entry: Any, done: Exported, storage: Storage, to: str) -> None:
    if isinstance(entry, ImageError | StoreError):
        _log.warning("left out, since it can't be read any more: %s", entry)
        done.num_gone += entry.code is ErrorCode.NOT_FOUND
        done.num_left_out += entry.code is not ErrorCode.NOT_FOUND
        return
    done.num_images += 1
    put(storage, to, form.collect(entry))
