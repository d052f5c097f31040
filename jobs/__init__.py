"""The commands: they parse, call and give the exit code."""

import os
import sys

# Arrow reads this once, on its import. Its own allocator (mimalloc) keeps what is freed, so that
# the driver would grow with the number of images (docs/performance.md); glibc's gives it back.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

from fcn_pipeline import end_on_signals, refuse_others

# Only of `python -m jobs`, whose own name Python does not know yet: workers and tests have handlers
# of theirs.
if sys.argv[0] == "-m" and sys.orig_argv[-len(sys.argv)] == "jobs":
    end_on_signals()

# Before anything else is imported: of `python -m jobs` this is the first line that is run.
refuse_others()
