"""A log line per committed shard, for machines."""

import logging

from pipeline.labelling.cost import Work
from pipeline.labelling.flow import Observer
from pipeline.labelling.schema import Receipt

_log = logging.getLogger(__name__)


class ShardLines:
    """Logs receipts, and passes them on."""

    def __init__(self, then: Observer) -> None:
        """Name who sees them next.

        Args:
            then: Another observer.
        """
        self._then = then

    def add(self, receipt: Receipt) -> None:
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
        self._then.add(receipt)
