"""Numbers in sentences."""

from pipeline.wording import count, there_are


def test_one_is_no_plural() -> None:
    """The noun and the verb follow the number."""
    assert [count(number, "image") for number in (0, 1, 2000)] == [
        "0 images", "1 image", "2,000 images",
    ]  # fmt: skip
    assert [there_are(number, "run") for number in (0, 1, 2)] == [
        "0 runs are", "1 run is", "2 runs are",
    ]  # fmt: skip
