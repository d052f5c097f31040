"""Log lines of shards: one of each, for machines; of those that ended replicas, for all."""

import logging

from pipeline.errors import ErrorCode
from pipeline.labelling.cost import Work
from pipeline.labelling.schema import Receipt

_log = logging.getLogger(__name__)

_CULPRITS = (ErrorCode.CRASHED, ErrorCode.TOO_SLOW)


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


def warn_of_losses(receipt: Receipt) -> None:
    """Log what a shard has cost in replicas, and what became of it."""
    lost = receipt["work"].get("lost_replicas")
    if not lost:
        return
    found = {str(code): receipt["errors"].get(code, 0) for code in _CULPRITS}
    culprits = ", ".join(f"{number} {code}" for code, number in found.items() if number)
    _log.warning(
        "shard %d is committed, after %d replica(s) died over it (host:process: %s); %s",
        *(receipt["shard"], len(lost), ", ".join(lost)),
        f"its culprits are rows: {culprits}" if culprits else "none of its images was at fault",
        extra={"shard": receipt["shard"]},
    )
