"""Labelled data sets: which image has which truth, and in which split.

Layouts, told by what lies in the folder:

* `voc`: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/{train,val,...}.txt (PASCAL VOC
  development kit, section 2). With labelmap.txt, whose colours are the classes, it is an export of
  CVAT ("Segmentation mask 1.1"), Datumaro, or our own.
* `cityscapes`: leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/ with
  *_gtFine_labelTrainIds.png or else *_gtFine_labelIds.png.
* `folders`: <split>/images/ and <split>/masks/, or images/ and masks/ alone, which is the split
  `train`; the names agree but for the ending. classes.json lies beside.
* `coco`: a JSON file of COCO's, or a folder with annotations/instances_<split>.json; also Label
  Studio's tasks, or a folder of them with label_config.xml.
* `webdataset`: a tar, or a folder of them, in which images and masks lie side by side.
* `parquet`: a Parquet file, or a folder of them, whose rows hold images and masks.
* `manifest`: a Parquet, CSV or JSONL file with the columns image_uri, mask_uri and perhaps split.
* `table`: one of label's, with the columns uri and mask_uri: what `select` has written, or the
  images table of a run, OUTPUT/images/run=RUN.
"""

import os
import re
from collections.abc import Iterable, Sequence

from pipeline.errors import InputError, StoreError
from pipeline.inputs.coco import coco_files, read_coco
from pipeline.inputs.label_studio import CONFIG
from pipeline.inputs.labelmap import parse_labelmap
from pipeline.inputs.manifests import MANIFEST_ENDINGS
from pipeline.inputs.open_tables import PARQUET, is_table
from pipeline.inputs.paired_columns import has_pair, read_pairs
from pipeline.inputs.sample_tables import is_table_of_run, read_manifest, read_table_of_run
from pipeline.inputs.samples import TRAIN, UNDIVIDED, Labelled, Sample
from pipeline.inputs.source import is_image
from pipeline.inputs.tars import TAR, UNPACK, is_archive, is_packed_tar, is_tar, unpack_archive
from pipeline.inputs.webdataset import read_webdataset
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage
from pipeline.store.uri import as_folder

LAYOUTS = ("voc", "cityscapes", "folders", "manifest", "table", "coco", "webdataset", "parquet")

_CITYSCAPES_IMAGE = "_leftImg8bit.png"
_CITYSCAPES_TRUTHS = ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")
_SPLIT_FOLDERS = "images"
# A CVAT export may come without the images.
_VOC_FOLDERS = {"JPEGImages", "SegmentationClass"}
_OUTPUT_FOLDERS = {"images", "masks", "runs"}
# Where files of samples may lie: Hugging Face's `data`, or a folder for each split.
_PACKED_BELOW = ("data", "train", "val", "valid", "validation", "dev", "test")
_MAX_SHOWN = 5
# As text files are read everywhere; other marks of Unicode may stand in names.
_LINE_END = re.compile(r"\r\n|\r|\n")


def find_labelled(storage: Storage, uri: str) -> Labelled:
    """Find out how a data set lies there, and list it.

    Args:
        storage: Where it is.
        uri: Folder, bucket prefix or manifest.

    Raises:
        InputError: It is none of the layouts, or images and ground truth do not belong together.
    """
    try:
        found = _found(storage, uri)
    except StoreError as error:
        if error.refused:
            raise InputError(f"data={uri!r}: {error.message}") from error
        raise
    if not found.splits:
        _refuse_archives(uri, storage.children(uri))
        raise InputError(
            f"data={uri!r} is not a labelled data set: it needs images/ and masks/ (at best below "
            "train/ and val/), JPEGImages/ (PASCAL VOC, CVAT), leftImg8bit/ (Cityscapes), "
            "annotations/instances_*.json (COCO), label_config.xml (Label Studio), .tar files "
            "(WebDataset) or .parquet files (Hugging Face) of images and masks, or is such a file, "
            f"a manifest ({', '.join(MANIFEST_ENDINGS)}) or the table OUTPUT/images/run=RUN of "
            f"label; it holds {', '.join(storage.children(uri)[:10]) or 'nothing'}"
        )
    return found


def _refuse_archives(uri: str, names: Sequence[str]) -> None:
    """Refuse a folder of archives alone, as CVAT delivers them. Raises InputError."""
    if names and all(map(is_archive, names)):
        raise InputError(f"data={uri!r} holds {names[0]}, which {unpack_archive(names[0])}")


def _found(storage: Storage, uri: str) -> Labelled:
    folder = uri.rpartition("/")[0]
    if is_packed_tar(uri):
        raise InputError(f"data={uri!r} is a compressed tar: {UNPACK}")
    if is_archive(uri) and not storage.children(uri):
        raise InputError(f"data={uri!r} {unpack_archive(uri)}")
    if is_tar(uri):
        return read_webdataset(storage, uri, [storage.stat(uri)], _classes_around(storage, folder))
    if is_table(uri) and has_pair(storage, file := storage.stat(uri)):
        return read_pairs(storage, uri, [file], _classes_around(storage, folder))
    if uri.lower().endswith(MANIFEST_ENDINGS):
        return read_manifest(storage, uri)
    if uri.lower().endswith(".json"):
        return _coco(storage, uri, folder, {UNDIVIDED: [uri]})
    if is_table_of_run(uri):
        return read_table_of_run(storage, uri)
    return _found_folder(storage, uri, set(storage.children(uri)))


def _found_folder(storage: Storage, uri: str, names: set[str]) -> Labelled:
    if names & _VOC_FOLDERS:
        return _voc(storage, uri)
    if "leftImg8bit" in names:
        return _cityscapes(storage, uri)
    if "annotations" in names and (files := coco_files(storage, uri)):
        return _coco(storage, uri, uri, files)
    if names >= _OUTPUT_FOLDERS:
        raise InputError(
            f"data={uri!r} is an output of label: name one run of it, {uri}/images/run=RUN, or "
            "what `fcn select` has written of all of them"
        )
    found = _folders(storage, uri, names)
    # Files of any kind may lie beside images/ and masks/.
    return found if found.splits else _in_files(storage, uri, names) or found


def _in_files(storage: Storage, uri: str, names: set[str]) -> Labelled | None:
    """Read a folder of files that hold samples, or tasks; None if there are none."""
    if CONFIG in names and (tasks := _tasks(uri, names)):
        return _coco(storage, uri, uri, {UNDIVIDED: tasks})
    ending = _packed_as(storage, uri, names)
    if ending is None:
        return None
    read = read_webdataset if ending == TAR else read_pairs
    packed = [one for one in storage.walk(uri) if _is_packed_in(one.uri, ending)]
    return read(storage, uri, sorted(packed, key=_uri), _classes_around(storage, uri))


def _tasks(uri: str, names: set[str]) -> list[str]:
    files = (f"{uri}/{name}" for name in sorted(names) if name.lower().endswith(".json"))
    return [file for file in files if file != _classes_file(uri, names)]


def _uri(entry: Entry) -> str:
    return entry.uri


def _packed_as(storage: Storage, uri: str, names: set[str]) -> str | None:
    """Return the ending of files that hold samples, in the folder or in one of each split."""
    below = [storage.children(f"{uri}/{one}") for one in _PACKED_BELOW if one in names]
    every = [name for place in (names, *below) for name in place]
    if any(map(is_packed_tar, every)):
        raise InputError(f"data={uri!r} holds compressed tars: {UNPACK}")
    return next((one for one in (TAR, PARQUET) if any(_is_packed_in(n, one) for n in every)), None)


def _is_packed_in(place: str, ending: str) -> bool:
    # macOS and others keep files of their own, whose names begin with a dot.
    name = place.rpartition("/")[2]
    return name.lower().endswith(ending) and not name.startswith(".")


def _classes_around(storage: Storage, folder: str) -> str | None:
    """Find classes.json in a folder, in its `data`, or, where it is a part of a set, above it."""
    above, _, name = folder.rpartition("/")
    places = [folder, f"{folder}/data", *([above] if name in _PACKED_BELOW else ())]
    names = (f"{place}/classes.json" for place in places)
    return next((name for name in names if storage.exists(name)), None)


def _folders(storage: Storage, uri: str, names: set[str]) -> Labelled:
    places = {TRAIN: uri} if _SPLIT_FOLDERS in names else {}
    for name in sorted(names):
        if places.get(TRAIN) != uri and "." not in name:
            below = f"{uri}/{name}"
            if _SPLIT_FOLDERS in storage.children(below):
                places[name] = below
    splits = {name: _pairs(storage, place) for name, place in places.items()}
    return Labelled("folders", splits, _classes_file(uri, names))


def _classes_file(uri: str, names: set[str]) -> str | None:
    return f"{uri}/classes.json" if "classes.json" in names else None


def _pairs(storage: Storage, place: str) -> list[Sample]:
    """Pair images/ and masks/ of a folder by their names without endings."""
    images = _by_stem(storage, f"{place}/images")
    masks = _by_stem(storage, f"{place}/masks")
    _check_same(images.keys() - masks.keys(), f"images of {place} without a file in masks/")
    _check_same(masks.keys() - images.keys(), f"masks of {place} without a file in images/")
    return [Sample(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(storage: Storage, folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    prefix = as_folder(folder)
    for entry in storage.walk(folder):
        key = entry.uri.removeprefix(prefix)
        if not is_image(key):
            continue
        stem = os.path.splitext(key)[0]
        if stem in found:
            raise InputError(
                f"{found[stem]} and {entry.uri} have one name but for the ending; "
                "images and masks are paired by it"
            )
        found[stem] = entry.uri
    return found


def _check_same(lonely: Iterable[str], what: str) -> None:
    names = sorted(lonely)
    if names:
        more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
        raise InputError(f"{len(names)} {what}: {', '.join(names[:_MAX_SHOWN])}{more}")


def _voc(storage: Storage, uri: str) -> Labelled:
    lists = f"{uri}/ImageSets/Segmentation"
    names = set(storage.children(uri))
    image_of = _voc_images(storage, f"{uri}/JPEGImages") if "JPEGImages" in names else {}
    splits = {}
    for name in storage.children(lists):
        # A line is a name, which may have spaces in it, and what Unicode ends lines with.
        lines = _LINE_END.split(storage.read(f"{lists}/{name}").decode("utf-8-sig"))
        stems = sorted(line.strip() for line in lines if line.strip())
        splits[os.path.splitext(name)[0]] = [
            Sample(
                f"{uri}/JPEGImages/{image_of.get(stem, f'{stem}.jpg')}",
                f"{uri}/SegmentationClass/{stem}.png",
            )
            for stem in stems
        ]
    if not splits:
        raise InputError(f"{lists} holds no lists (train.txt, val.txt)")
    # trainval is both of them together and no split of its own.
    splits.pop("trainval", None)
    labels = f"{uri}/labelmap.txt"
    labelmap = parse_labelmap(storage.read(labels), labels) if "labelmap.txt" in names else None
    return Labelled("voc", splits, _classes_file(uri, names), labelmap=labelmap)


def _voc_images(storage: Storage, folder: str) -> dict[str, str]:
    """Return the names of images by their names without ending: .jpg goes before others."""
    prefix = as_folder(folder)
    keys = sorted(entry.uri.removeprefix(prefix) for entry in storage.walk(folder))
    names = [name for name in keys if is_image(name)]
    found = {os.path.splitext(name)[0]: name for name in names}
    return found | {os.path.splitext(name)[0]: name for name in names if name.endswith(".jpg")}


def _coco(storage: Storage, uri: str, folder: str, files: dict[str, list[str]]) -> Labelled:
    coco = read_coco(storage, uri, files)
    splits = {
        name: [Sample(image.image_uri, "") for image in some] for name, some in coco.images.items()
    }
    return Labelled("coco", splits, _classes_file(folder, set(storage.children(folder))), coco=coco)


def _cityscapes(storage: Storage, uri: str) -> Labelled:
    images_folder, truths_folder = f"{uri}/leftImg8bit", f"{uri}/gtFine"
    truths = {entry.uri for entry in storage.walk(truths_folder)}
    # All of one kind: a mixture of ids would train on nonsense.
    train_ids = any(truth.endswith(_CITYSCAPES_TRUTHS[0]) for truth in truths)
    ending = _CITYSCAPES_TRUTHS[0 if train_ids else 1]
    splits: dict[str, list[Sample]] = {}
    lonely = []
    for image in sorted(entry.uri for entry in storage.walk(images_folder)):
        key = image.removeprefix(images_folder + "/")
        if not key.endswith(_CITYSCAPES_IMAGE):
            continue
        truth = f"{truths_folder}/{key.removesuffix(_CITYSCAPES_IMAGE)}{ending}"
        if truth in truths:
            splits.setdefault(key.partition("/")[0], []).append(Sample(image, truth))
        else:
            lonely.append(key)
    _check_same(lonely, f"images of {uri} without a file in gtFine/ (*{ending})")
    return Labelled("cityscapes", splits, raw_ids=not train_ids)
