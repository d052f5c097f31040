"""A log line per committed shard, for machines."""

import logging

from pipeline.labelling.cost import Work
from pipeline.labelling.schema import Receipt

_log = logging.getLogger(__name__)


def log_shard(receipt: Receipt) -> None:
    """Log one committed shard: what it holds and what it has cost."""
    work = Work(**receipt["work"])
    fields = {
        "shard": receipt["shard"],
        "images": receipt["num_images"],
        "failed": receipt["num_failed"],
        "seconds": {step: round(seconds, 3) for step, seconds in work.seconds.items()},
        "replica": work.replica,
        "retries": work.retries,
    }
    _log.info("shard %d is committed", receipt["shard"], extra=fields)
