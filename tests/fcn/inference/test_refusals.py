"""What did not fit is passed over for a while, and not for ever."""

from fcn.inference import refusals
from fcn.inference.refusals import Refusals


def test_what_did_not_fit_is_tried_again_in_the_end() -> None:
    """A part is passed over a hundred times and then tried; other parts are not concerned."""
    known = Refusals()
    known.remember((8, 30, 40))
    times = refusals._TIMES_PASSED_OVER
    assert [known.passes_over((8, 30, 40)) for _ in range(times + 2)] == [
        *([True] * times),
        *(False, False),
    ]
    assert not known.passes_over((4, 30, 40))
