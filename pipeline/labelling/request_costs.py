"""How many requests a bucket gets for a run, with masks as files and in tars, and what they cost.

Counted by `python -m tests.benchmarks mask_kinds`. Left out are some thirty requests of every run
(its records, the lock, the tables), a few for every 64 shards (files of the plan, sections), what
is asked again, and the pictures of the report.
"""

from typing import NamedTuple

# S3 Standard in us-east-1, dollars per request: https://aws.amazon.com/s3/pricing/
DOLLARS_PER_WRITE = 0.005 / 1000  # PUT, COPY, POST, LIST
DOLLARS_PER_READ = 0.0004 / 1000  # GET, HEAD and all others
_KEYS_PER_PAGE = 1000


class Requests(NamedTuple):
    """Requests by what they cost: writes and pages of listings, and reads."""

    writes: int
    reads: int

    @property
    def dollars(self) -> float:
        """At S3's prices."""
        return self.writes * DOLLARS_PER_WRITE + self.reads * DOLLARS_PER_READ


def priced(num_images: int, num_shards: int, *, in_tars: bool) -> str:
    """Say to a person what a run asks for, and what that costs.

    Args:
        num_images: That are labelled.
        num_shards: Of these images.
        in_tars: Whether their masks lie in tars.
    """
    label = labelling(num_images, num_shards, in_tars=in_tars)
    verify = verifying(num_images, num_shards, in_tars=in_tars)
    kind = "in tars " if in_tars else "as files"
    return (
        f"{kind}   {label.writes:,} writes, {label.reads:,} reads: "
        f"${label.dollars:,.2f} at S3's prices; verify ${verify.dollars:,.2f}"
    )


def labelling(num_images: int, num_shards: int, *, in_tars: bool) -> Requests:
    """Reckon what `label` asks for.

    Args:
        num_images: That are labelled.
        num_shards: Of these images.
        in_tars: Whether their masks lie in tars.
    """
    masks = num_shards if in_tars else num_images
    pages = -(-num_images // _KEYS_PER_PAGE)
    # A shard has a mark and a commit record, which is looked up and read when it is published.
    return Requests(pages + masks + 2 * num_shards, num_images + 2 * num_shards)


def verifying(num_images: int, num_shards: int, *, in_tars: bool) -> Requests:
    """Reckon what `verify` asks for.

    Args:
        num_images: That are labelled.
        num_shards: Of these images.
        in_tars: Whether their masks lie in tars.
    """
    masks = num_shards if in_tars else num_images
    return Requests(0, masks + num_shards)
