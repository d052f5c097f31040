"""The commands: they parse, call and give the exit code."""

import os

# Arrow reads this once, on its import. Its own allocator (mimalloc) keeps what is freed, so that
# the driver would grow with the number of images (docs/performance.md); glibc's gives it back.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

from fcn_pipeline import refuse_others

# Before anything else is imported: of `python -m jobs` this is the first line that is run.
refuse_others()
