"""What the driver needs for a run, by its number of images: figures of docs/performance.md."""

import shutil
import tempfile
from dataclasses import dataclass

from pipeline.labelling.finding import Finding, note, ok
from pipeline.labelling.session import Found
from pipeline.memory import available_memory

_MIB = 1 << 20
# Planning: imports, DuckDB's limit, and what stands between the two; reached at a million images.
_LEAST, _MOST, _REACHED_AT = 250 * _MIB, 850 * _MIB, 1_000_000
# Ray Data's books on the shards of one dataset, on top of the driver's own.
_WITHOUT_SHARDS, _PER_SHARD, _SHARDS_AT_A_TIME = 200 * _MIB, 14_000, 16_384
# Of the staged tables, a listed or answered image; and of their sorting, when the plan is written.
_STAGED_PER_IMAGE = 260


@dataclass(frozen=True)
class Needs:
    """What the driver's process takes at its peak.

    Attributes:
        memory_bytes: Of private memory.
        temporary_bytes: Below `TMPDIR`, while it plans.
    """

    memory_bytes: int
    temporary_bytes: int

    @staticmethod
    def of(num_listed: int, num_shards: int) -> "Needs":
        """Estimate them.

        Args:
            num_listed: Images of the input, to do or done.
            num_shards: To do.
        """
        share = min(1.0, num_listed / _REACHED_AT)
        planning = _LEAST + round(share * (_MOST - _LEAST))
        running = _WITHOUT_SHARDS + _PER_SHARD * min(num_shards, _SHARDS_AT_A_TIME)
        return Needs(max(planning, running), _STAGED_PER_IMAGE * num_listed)

    @staticmethod
    def to_do(found: Found) -> "Needs":
        """Estimate them for what a look has found."""
        if found.draft is not None:
            draft = found.draft
            return Needs.of(draft.num_images + draft.num_skipped, draft.num_shards)
        assert found.run is not None, "either a run or a draft"
        return Needs.of(found.run.record.num_images, found.run.record.num_shards)

    def __str__(self) -> str:
        """Say them to a person."""
        memory, temporary = self.memory_bytes / 1e9, self.temporary_bytes / 1e9
        return (
            f"about {memory:.1f} GB of memory, and {temporary:.1f} GB of temporary files (TMPDIR) "
            "while it plans"
        )

    def finding(self) -> Finding:
        """Compare them with what is free here: of memory, of this container; and of TMPDIR."""
        short = self.short()
        if not short:
            return ok("driver", f"needs {self}")
        return note("driver", f"needs {self}; {'; '.join(short)}", "give its pod or machine more")

    def short(self) -> list[str]:
        """Say what of it is not free here; nothing if all is."""
        memory, folder = available_memory(), tempfile.gettempdir()
        room = shutil.disk_usage(folder).free
        found = []
        if memory is not None and memory < self.memory_bytes:
            found.append(f"{memory / 1e9:.1f} GB of memory are free here")
        if room < self.temporary_bytes:
            found.append(f"{room / 1e9:.1f} GB are free in {folder}")
        return found
