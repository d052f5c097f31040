"""Numbers in sentences."""


def count(number: int, noun: str) -> str:
    """Return a number and its noun, as in `1 image` and `2,000 images`.

    Args:
        number: How many.
        noun: In the singular; its plural ends with s.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def there_are(number: int, noun: str) -> str:
    """Return a number, its noun and the verb, as in `1 image is` and `2,000 images are`.

    Args:
        number: How many.
        noun: In the singular; its plural ends with s.
    """
    return f"{count(number, noun)} {'is' if number == 1 else 'are'}"
