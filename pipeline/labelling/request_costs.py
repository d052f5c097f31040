"""How many requests a bucket gets for a run, with masks as files and in tars, and what they cost.

Counted by `python -m tests.benchmarks mask_kinds`. Left out are some thirty requests of every run
(its records, the lock, the tables), a few for every 64 shards (files of the plan, sections), what
is asked again, and the pictures of the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.inputs.forms import form_of
from pipeline.inputs.inventory import INVENTORY_NAME
from pipeline.inputs.manifests import MANIFEST_ENDINGS
from pipeline.labelling.reads import MAX_READ
from pipeline.settings.label import LabelSettings
from pipeline.store.uri import BUCKETS

# S3 Standard in us-east-1, dollars per request: https://aws.amazon.com/s3/pricing/
DOLLARS_PER_WRITE = 0.005 / 1000  # PUT, COPY, POST, LIST
DOLLARS_PER_READ = 0.0004 / 1000  # GET, HEAD and all others
_KEYS_PER_PAGE = 1000


@dataclass(frozen=True)
class Requests:
    """Requests by what they cost: writes and pages of listings, and reads."""

    writes: int
    reads: int

    def __add__(self, other: "Requests") -> "Requests":
        """Add them up."""
        return Requests(self.writes + other.writes, self.reads + other.reads)

    @property
    def dollars(self) -> float:
        """At S3's prices."""
        return self.writes * DOLLARS_PER_WRITE + self.reads * DOLLARS_PER_READ


@dataclass(frozen=True)
class Amount:
    """What a run has to do.

    Attributes:
        num_listed: Images of the input; 0 where it was listed before.
        num_header_reads: Requests for headers of tars that this took.
        num_images: Images that are labelled.
        num_bytes: Encoded bytes of these images.
        num_shards: Number of shards of these images.
    """

    num_listed: int
    num_header_reads: int
    num_images: int
    num_bytes: int
    num_shards: int


def lines(settings: LabelSettings, amount: Amount, *, kinds: Sequence[bool]) -> list[str]:
    """Say to a person what a run asks for, and what that costs; a disk has no price.

    Args:
        settings: What the command was asked to do.
        amount: What there is to do.
        kinds: Whether masks lie in tars: a line for each.
    """
    if not settings.output.startswith(BUCKETS):
        return []
    found = finding(settings, amount.num_listed) + Requests(0, amount.num_header_reads)
    are_files = form_of(settings.input, settings.input_form) == "files"
    num_reads = amount.num_images if are_files else in_reads(amount.num_bytes, amount.num_shards)
    return [_line(found, amount, num_reads, in_tars=in_tars) for in_tars in kinds]


def in_reads(num_bytes: int, num_shards: int) -> int:
    """Reckon in how many requests images come out of tars and tables, where neighbours lie close.

    Args:
        num_bytes: Encoded bytes of the images.
        num_shards: Number of shards of these images.
    """
    return num_shards + num_bytes // MAX_READ


def _line(found: Requests, amount: Amount, num_reads: int, *, in_tars: bool) -> str:
    numbers = (amount.num_images, amount.num_shards)
    label = found + labelling(*numbers, in_tars=in_tars, num_reads=num_reads)
    verify = verifying(*numbers, in_tars=in_tars)
    kind = "in tars " if in_tars else "as files"
    return (
        f"masks {kind}   {label.writes:,} writes, {label.reads:,} reads: "
        f"${label.dollars:,.2f} at S3's prices; verify ${verify.dollars:,.2f}"
    )


def finding(settings: LabelSettings, num_listed: int) -> Requests:
    """Reckon what it takes to find the images of an input: pages, or a look at each.

    Args:
        settings: What the command was asked to do.
        num_listed: Images of the input.
    """
    if settings.input.endswith(f"/{INVENTORY_NAME}"):
        return Requests(0, 0)
    if settings.input.lower().endswith(MANIFEST_ENDINGS):
        return Requests(0, 0 if settings.trust_manifest else num_listed)
    return Requests(-(-num_listed // _KEYS_PER_PAGE), 0)


def labelling(
    num_images: int, num_shards: int, *, in_tars: bool, num_reads: int | None = None
) -> Requests:
    """Reckon what `label` asks for once it has found the images.

    Args:
        num_images: That are labelled.
        num_shards: Number of shards of these images.
        in_tars: Whether their masks lie in tars.
        num_reads: Requests that bring the images; None where it is one for each.
    """
    masks = num_shards if in_tars else num_images
    num_reads = num_images if num_reads is None else num_reads
    # A shard has a mark and a commit record, which is looked up and read when it is published.
    return Requests(masks + 2 * num_shards, num_reads + 2 * num_shards)


def verifying(num_images: int, num_shards: int, *, in_tars: bool) -> Requests:
    """Reckon what `verify` asks for.

    Args:
        num_images: That are labelled.
        num_shards: Number of shards of these images.
        in_tars: Whether their masks lie in tars.
    """
    masks = num_shards if in_tars else num_images
    return Requests(0, masks + num_shards)
