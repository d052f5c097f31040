"""Opening a picture by Pillow, as one format and no other."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

# It is then opened as the JPEG that it begins with, which is what is wanted.
warnings.filterwarnings("ignore", "Image appears to be a malformed MPO file")


def open_picture(data: bytes, name: str) -> Image.Image:
    """Read a header.

    Args:
        data: The encoded image.
        name: The name of its format, as Pillow calls it.

    Raises:
        Exception: Whatever the format's plugin raises; see `damage.DAMAGE`.
    """
    stream = io.BytesIO(data)
    try:
        return Image.open(stream, formats=[name])
    except UnidentifiedImageError:
        # The plugin itself says why it refused, which Image.open keeps to itself.
        return Image.OPEN[name][0](io.BytesIO(data), "")
