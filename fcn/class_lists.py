"""The classes of well-known data sets, without torch."""

from fcn.checkpoint import ClassLabel, voc_color

_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)

# PASCAL VOC 2012, in order of the class index.
VOC_CLASSES = tuple(ClassLabel(name, voc_color(index)) for index, name in enumerate(_VOC_NAMES))

# Cityscapes (cityscapesScripts, helpers/labels.py): name, id in *_labelIds.png, colour of the 19
# classes that are evaluated, in order of their trainId; all other ids have no class.
_CITYSCAPES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
CITYSCAPES_CLASSES = tuple(ClassLabel(name, colour) for name, _, colour in _CITYSCAPES)
CITYSCAPES_IDS = {number: index for index, (_, number, _) in enumerate(_CITYSCAPES)}
