"""Confidences: how many images have which mean confidence, in whole numbers that add up."""

import pyarrow as pa
import pyarrow.compute as pc

NUM_BINS = 100


def confidence_bin(confidence: float) -> int:
    """Tell the bin of a confidence, 0 to `NUM_BINS` - 1.

    Args:
        confidence: In [0, 1].
    """
    return min(NUM_BINS - 1, int(confidence * NUM_BINS))


def count_confidences(column: pa.ChunkedArray) -> list[int]:
    """Count values by their bin; null is in none.

    Args:
        column: Confidences in [0, 1].

    Returns:
        `NUM_BINS` numbers.
    """
    bins = pc.min_element_wise(pc.floor(pc.multiply(column, NUM_BINS)), float(NUM_BINS - 1))
    counts = [0] * NUM_BINS
    for entry in pc.value_counts(bins.drop_null()).to_pylist():
        counts[int(entry["values"])] = entry["counts"]
    return counts
