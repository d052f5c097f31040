"""Peak memory of driver and replica at two numbers of images: it must not grow with them.

`python -m jobs label` runs on photographs that repeat under other names, with a narrow network so
that it ends in minutes, in shards so small that the shorter run fills all calls of the replica.
`anon` is what a process holds for itself: heaps and stacks. `store` is Ray's object store as far
as the process has touched it: memory that all share, as large as Ray was allowed to make it.
`pss` is everything, with each shared page divided among those who share it.
"""

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks.labelling import label_command, watch_command
from tests.benchmarks.photos import add_images_flag, lay_out
from tests.benchmarks.processes import ROLES, Sample
from tests.benchmarks.table import print_header, print_table

_SAMPLE_S = 0.5
_KINDS = ("anon", "store", "pss")
_QUARTERS = 4


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    print(f"width {arguments.width}, {arguments.shard} images per shard\n", flush=True)
    runs = {}
    for number in arguments.numbers:
        with tempfile.TemporaryDirectory() as temporary:
            photos = lay_out(arguments.images, Path(temporary) / "photos", number)
            command = label_command(photos, Path(temporary) / "output", *_flags(arguments))
            runs[number] = watch_command(command, _SAMPLE_S, memory=True)
    _print_peaks(runs)
    for number, samples in runs.items():
        _print_course(number, samples)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--numbers", type=int, nargs="+", default=[468, 4680], help="photographs")
    parser.add_argument("--width", type=int, default=2, help="of the network")
    parser.add_argument("--num-classes", type=int, default=4)
    parser.add_argument("--shard", type=int, default=64, help="images per shard")
    return parser.parse_args()


def _flags(arguments: argparse.Namespace) -> list[str]:
    flags = {
        "--width": arguments.width,
        "--num-classes": arguments.num_classes,
        "--max-shard-images": arguments.shard,
    }
    return [str(word) for flag in flags.items() for word in flag]


def _print_peaks(runs: dict[int, list[Sample]]) -> None:
    rows = []
    for role in ROLES:
        for kind in _KINDS:
            peaks = [_peak(samples, role, kind) for samples in runs.values()]
            ratio = f"{peaks[-1] / peaks[0]:.2f}" if peaks[0] else "-"
            rows.append([f"{role}, {kind}", *(f"{peak:.0f}" for peak in peaks), ratio])
    print_table(["peak, MiB", *(f"{number} images" for number in runs), "last / first"], rows)


def _print_course(number: int, samples: list[Sample]) -> None:
    working = [sample for sample in samples if ("replica", "anon") in sample.memory]
    size = max(1, len(working) // _QUARTERS)
    quarters = [working[size * index : size * (index + 1)] for index in range(_QUARTERS)]
    rows = [
        [f"{role}, {kind}", *(f"{_peak(quarter, role, kind):.0f}" for quarter in quarters)]
        for role, kind in (("driver", "anon"), ("replica", "anon"), ("replica", "store"))
    ]
    print_table([f"peak, MiB, of {number} images", "1st quarter", "2nd", "3rd", "4th"], rows)


def _peak(samples: list[Sample], role: str, kind: str) -> float:
    return max((sample.memory.get((role, kind), 0) for sample in samples), default=0) / (1 << 20)


if __name__ == "__main__":
    main()
