"""What the settings of `train` and `evaluate` say of labelled images."""

from pipeline.settings.shared import NoSettings

TRUTH_HELP = (
    "how ground truth files name classes: indices (grey or palette, 255 is no class), colors "
    "(those of classes.json), ids (those of classes.json, or Cityscapes' labelIds); default: ids "
    "where classes.json has them, else told by the first file"
)
DATA_HELP = (
    "labelled images: a folder or bucket prefix with images/ and masks/ (at best below train/ and "
    "val/) and classes.json, a PASCAL VOC (or CVAT's, with labelmap.txt) or Cityscapes folder, "
    "COCO (a .json, or a folder with annotations/instances_*.json), Label Studio's JSON, tars "
    "(WebDataset) or Parquet files (Hugging Face) with images and masks, a manifest (.parquet, "
    ".csv, .jsonl) with the columns image_uri, mask_uri and perhaps split, what `fcn select` has "
    "written, or label's OUTPUT/images/run=RUN; local or in a bucket"
)
CLASSES_HELP = (
    "JSON file with names and colours of the classes, "
    '{"classes": [{"id": 0, "name": "sky", "color": [128, 128, 128]}]}, or the record of a '
    "checkpoint (model.json); default: those of the run for label's tables, classes.json beside "
    "the data, labelmap.txt or COCO's categories, else those of PASCAL VOC or Cityscapes for "
    "their folders"
)


def check_one_way(settings: NoSettings) -> None:
    """Refuse settings that say in two ways what val is. Raises ValueError.

    Args:
        settings: With `val_match`, `val_fold` and `val_share`.
    """
    ways = [name for name in ("val_match", "val_fold", "val_share") if getattr(settings, name)]
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)} each say what val is; leave one of them out")
