"""Where the tensors of a process that imports `fcn` lie."""

import os
import subprocess
import sys

import pytest

_PAGE_BYTES = 4096
# PyTorch aligns to pages what it asks huge ones for, and to 64 bytes what it does not.
_CODE = f"""
import fcn, torch
tensors = [torch.empty(8 << 20, dtype=torch.uint8) for _ in range(8)]
print(all(tensor.data_ptr() % {_PAGE_BYTES} == 0 for tensor in tensors))
"""


@pytest.mark.parametrize(("said", "expected"), [(None, "True"), ("1", "True"), ("0", "False")])
def test_large_tensors_lie_in_huge_pages(said: str | None, expected: str) -> None:
    """PyTorch asks for huge pages as soon as `fcn` is imported, unless the user says 0."""
    environ = {name: value for name, value in os.environ.items() if "THP" not in name}
    if said is not None:
        environ["THP_MEM_ALLOC_ENABLE"] = said
    command = [sys.executable, "-c", _CODE]
    shown = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert shown.split() == [expected]
