"""How a run differs from earlier ones of the same input: from the last, and over the last 30."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.labelling.history import History
from pipeline.labelling.page.reads import in_a_hurry
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run

# Runs that drift is shown over, the run itself included.
_NUM_RUNS = 30
# Bins of one per cent are too fine for what chance does to a thousand images.
_BINS_TOGETHER = 2


@dataclass(frozen=True)
class Night:
    """A run beside others: its manifest, and whether its masks are of the same network.

    `run` says where its masks lie; None where nobody asks.
    """

    manifest: Manifest
    same_network: bool
    run: Run | None = None


@dataclass(frozen=True)
class Distance:
    """How far a run is from the oldest one shown, 0 (alike) to 1; None where it can't be told."""

    night: Night
    class_mix: float | None
    confidence: float | None


def earlier_nights(history: History, run: Run) -> list[Night]:
    """Read the finished runs of the same input that were begun before a run, oldest first.

    Args:
        history: The output's runs so far.
        run: The run; without it, of the last ones `_NUM_RUNS` - 1 at most.

    Raises:
        InputError: A record or manifest is damaged.
        StoreError: The store did not answer.
    """
    began = (run.record.created_at, run.run_id)
    source = run.record.input.rstrip("/")
    before = [
        other
        for other in history.runs()
        if (other.record.created_at, other.run_id) < began
        and other.record.input.rstrip("/") == source
    ][-(_NUM_RUNS - 1) :]
    ours = run.record.network.fingerprint
    manifests = history.manifests([in_a_hurry(other) for other in before])
    return [
        Night(manifest, manifest.fingerprint == ours, other)
        for other, manifest in zip(before, manifests, strict=True)
        if manifest is not None
    ]


def distances(nights: Sequence[Night]) -> list[Distance]:
    """Tell how far each run is from the first one.

    Args:
        nights: Oldest first, of the same input.
    """
    with_masks = [night for night in nights if night.manifest.num_ok]
    return [
        Distance(
            night,
            _mix_distance(with_masks[0].manifest, night.manifest),
            _confidence_distance(with_masks[0].manifest, night.manifest),
        )
        for night in with_masks
    ]


def class_shares(manifest: Manifest) -> dict[str, float]:
    """Return each class's share of a run's pixels, by name; empty without pixels."""
    if not manifest.num_pixels:
        return {}
    return {label.name: label.num_pixels / manifest.num_pixels for label in manifest.classes}


def jensen_shannon(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the Jensen-Shannon distance of two distributions, 0 to 1.

    Args:
        one: Weights, of any sum above 0.
        other: The same number of weights.

    Returns:
        The square root of the divergence to base 2 (J. Lin, "Divergence measures based on the
        Shannon entropy", 1991; D. M. Endres and J. E. Schindelin, 2003).
    """
    pair = np.array([one, other], np.float64)
    pair /= pair.sum(axis=1, keepdims=True)
    middle = pair.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(pair > 0, pair * np.log2(pair / middle), 0.0)
    return float(np.sqrt(max(0.0, terms.sum() / 2)))


def _mix_distance(one: Manifest, other: Manifest) -> float | None:
    shares, others = class_shares(one), class_shares(other)
    names = sorted({*shares, *others})
    if not sum(shares.values()) or not sum(others.values()):
        return None
    return jensen_shannon(*([mix.get(name, 0.0) for name in names] for mix in (shares, others)))


def _confidence_distance(one: Manifest, other: Manifest) -> float | None:
    pair = one.confidences, other.confidences
    if pair[0] is None or pair[1] is None or not sum(pair[0]) or not sum(pair[1]):
        return None
    return jensen_shannon(_coarse(pair[0]), _coarse(pair[1]))


def _coarse(counts: Sequence[int]) -> list[float]:
    return [
        float(sum(counts[first : first + _BINS_TOGETHER]))
        for first in range(0, len(counts), _BINS_TOGETHER)
    ]
