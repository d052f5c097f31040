"""Which format a file has, by its first bytes."""

from PIL import features

# What Pillow was built with differs for AVIF alone.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", *(("AVIF",) if features.check("avif") else ()))

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"II\xbc", "JPEG XR"),
    (b"IIRO", "ORF (a raw photograph)"),
    (b"IIU\0", "RW2 (a raw photograph)"),
    (b"FUJIFILMCCD-RAW", "RAF (a raw photograph)"),
)

# ISO 14496-12, 4.3: a file says what it is by brands, the first of which is the major one.
_BRANDS = (
    ((b"avif", b"avis"), "AVIF"),
    ((b"crx ",), "CR3 (a raw photograph)"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
)


def sniff(data: bytes) -> str | None:
    """Return the format's name, as Pillow writes those of `FORMATS`; None if it is not known.

    Args:
        data: The file; its first bytes are enough.
    """
    if data[4:8] == b"ftyp":
        return _by_brand(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def _by_brand(data: bytes) -> str | None:
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, end, 4))]
    for known, name in _BRANDS:
        if any(brand in known for brand in brands):
            return name
    return None
