"""How far a replica is within its shards, told to a driver whose terminal shows a bar."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.labelling.segment import LoadPredictor, Placement

if TYPE_CHECKING:  # importing it loads torch
    from fcn.inference.predictor import Predictor

Send = Callable[[dict[str, Any]], None]
NUM_IMAGES = "num_images"
_INTERVAL_S = 1.0


def telling(load: LoadPredictor, send: Send | None) -> LoadPredictor:
    """Let a replica tell how many images it has labelled, each second, until nobody listens.

    Args:
        load: Gives it its network.
        send: Takes messages to the driver; None where nobody looks.
    """
    return load if send is None else partial(_load_and_tell, load, send)


def _load_and_tell(load: LoadPredictor, send: Send, placement: Placement) -> "Predictor":
    predictor = load(placement)
    args = predictor, send
    threading.Thread(target=_tell, args=args, name="within shards", daemon=True).start()
    return predictor


def _tell(predictor: "Predictor", send: Send) -> None:
    told = 0
    while True:
        time.sleep(_INTERVAL_S)
        now = predictor.num_images
        if now == told:
            continue
        try:
            send({NUM_IMAGES: now - told})
        except Exception:  # noqa: BLE001 - a bar that stands still ends no replica
            return
        told = now
