"""python -m tests.benchmarks NAME [flags]; without a name it lists what there is."""

import importlib.util
import runpy
import sys

_BENCHMARKS = {
    "efficiency": "images/s of the whole job over images/s of the bare Predictor loop",
    "start_up": "seconds from the command to the first commit, by phase",
    "device_share": "share of its time that a stand-in device of 7 ms per image is kept busy",
    "replica": "CPU ms per image of a replica whose network costs nothing, without Ray",
    "tiny_images": "CPU ms per image of 16 x 16 by role, from a disk and through an S3 server",
    "codecs": "CPU ms per image and images/s of decoding and of encoding masks, beside Pillow",
    "memory": "peak memory of driver and replica at two numbers of images",
    "networks": "images/s and peak memory of each network, beside torchvision and the references",
    "training": "images/s of `train` over images/s of the bare training step",
    "training_step": "CPU ms of a step of Trainer beside those of the bare step, in turns",
    "loading": "steps/s that loading sustains, at 367 and at a million training images",
    "plan_memory": "seconds and peak memory of planning many images",
    "outputs": "seconds and peak memory of runs, select and export on outputs of many rows",
    "many_shards": "shards/s, start and memory of the chain with 400,000 shards and empty steps",
    "commit_records": "bytes and CPU ms of a commit record, by codec and images per shard",
    "publication": "seconds and memory of publishing a million images, by workers and at the end",
    "verifying": "seconds and memory of verifying 100,000 masks, in one process and in two tasks",
    "resume": "seconds and memory to find out what is left of 400,000 shards, half of them done",
    "requests": "CPU ms of a request to S3 by kind and library, and CPU us of a listed key",
    "mask_kinds": "requests to a bucket and their price, with masks as files and in tars",
    "tar_inputs": "requests, seconds, CPU us and memory of finding and fetching images in tars",
    "checkpointing": "CPU ms and peak memory of a training step with gradient checkpointing",
    "report_page": "requests, seconds and bytes of the page of a report",
    "nights": "requests, seconds and peak memory of a start with nothing new after many nights",
}


def main() -> int:
    """Run one benchmark as a script, with the rest of the command line as its own."""
    names = [name for name in _BENCHMARKS if importlib.util.find_spec(_module(name))]
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help"):
        print("usage: python -m tests.benchmarks NAME [--help] ...\n")
        print("\n".join(f"  {one:<15} {_BENCHMARKS[one]}" for one in names))
        return 0
    if name not in names:
        print(f"there is no benchmark {name!r}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    del sys.argv[1]
    runpy.run_module(_module(name), run_name="__main__", alter_sys=True)
    return 0


def _module(name: str) -> str:
    return f"tests.benchmarks.{name}"


if __name__ == "__main__":
    sys.exit(main())
