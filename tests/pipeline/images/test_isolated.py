"""Decoding in a process of its own: what a picture can do to it."""

import os
import time

import pytest
from PIL import Image

from pipeline.errors import ClusterLost, ImageError
from pipeline.images.decode import decode_image, read_size
from pipeline.images.isolated import IsolatedDecoder
from tests.disk_runs import encode, random_pixels


def test_the_pixels_are_those_of_the_decoder() -> None:
    """The child decodes to the same pixels, and refuses with the same error."""
    data = encode(Image.fromarray(random_pixels(0, 5, 7, 3)), "PNG")
    with IsolatedDecoder(60) as child:
        assert child.call(read_size, data) == (5, 7)
        assert child.call(decode_image, data, 35).tolist() == decode_image(data, 35).tolist()
        for call in (child.call, lambda function, *given: function(*given)):
            with pytest.raises(ImageError, match="the limit is 34") as refused:
                call(decode_image, data, 34)
            assert refused.value.code == "too_many_pixels"


def test_a_death_and_a_hang_are_rows() -> None:
    """Who kills the child twice has crashed, who keeps it too long is slow; others go on."""
    with IsolatedDecoder(2) as child:
        with pytest.raises(ImageError, match="died of SIGABRT") as crashed:
            child.call(os.abort)
        with pytest.raises(ImageError, match="longer than 2 s") as slow:
            child.call(time.sleep, 1000)
        assert (crashed.value.code, slow.value.code) == ("crashed", "too_slow")
        assert child.call(os.getpid) != os.getpid()


def test_a_machine_that_starts_no_process_is_no_images_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no child can be started the run ends with 5, and no image gets a code for it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("pipeline.images.isolated.subprocess.Popen", refuse)
    with IsolatedDecoder(60) as child, pytest.raises(ClusterLost, match="Cannot allocate memory"):
        child.call(os.getpid)


def test_a_bug_in_the_child_is_raised_here() -> None:
    """An exception that is no ImageError keeps its type and message."""
    with IsolatedDecoder(60) as child, pytest.raises(ZeroDivisionError):
        child.call(divmod, 1, 0)
