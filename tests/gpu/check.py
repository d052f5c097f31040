"""What fcn-pipeline does on a GPU: speed, equality, hazards, memory, training; without Ray.

    python tests/gpu/check.py --out "$OUT"                       # where there is a GPU
    python tests/gpu/check.py --out out --device cpu --tiny      # rehearsal: every line, no GPU

Every section is a process of its own with a time limit, and writes what it has after each entry,
so that a crash, a hang or a poisoned CUDA context costs one section. Results: gpu_check.json,
gpu_check.md (also printed), gpu_check.log, trace_*.json.gz, all in --out.
"""

import argparse
import gzip
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

START = time.monotonic()
NUM_CLASSES = 21

# name, limit in seconds; in order of importance. The sum is more than the budget: sections end
# early as a rule, and each gets what is left at most.
SECTIONS = (
    ("env", 45),
    ("speed", 120),
    ("oom", 50),
    ("compare", 45),
    ("exact", 60),
    ("hazards", 35),
    ("profile", 35),
    ("train", 75),
    ("variants", 45),
    ("pieces", 60),
    ("labelling", 25),
    ("newsizes", 25),
    ("codecs", 40),
    ("replica", 40),
    ("baselines", 25),
    ("two", 40),
    ("compile", 80),
)

# (label, network, padding); all of full width.
NETWORKS = (
    ("fcn8s tight", "fcn8s_vgg16", "tight"),
    ("fcn8s paper", "fcn8s_vgg16", "paper"),
    ("fcn_all_skips 64", "fcn_all_skips", "paper"),
    ("fcn_resnet50", "fcn_resnet50", "paper"),
    ("fcn_all_skips_vgg16", "fcn_all_skips_vgg16", "paper"),
    ("fcn32s tight", "fcn32s_vgg16", "tight"),
)
# Compared, and not timed.
OTHERS = (
    ("alexnet", "fcn32s_alexnet", "tight"),
    ("alexnet owt", "fcn32s_alexnet_owt", "tight"),
    ("googlenet", "fcn32s_googlenet", "tight"),
    ("fcn_pyramid 64", "fcn_pyramid", "paper"),
    ("fcn_lite0", "fcn_lite0", "paper"),
)
TIE = {"fp32": 1e-4, "tf32": 4e-3, "bf16": 3e-2, "fp16": 4e-3}  # of the largest score: less apart is a tie


# --------------------------------------------------------------------------- driver


def drive(options):
    """Run the sections one after the other and merge what they have written."""
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
    log = open(out / "gpu_check.log", "w", encoding="utf-8")  # noqa: SIM115
    chosen = [s for s in SECTIONS if not options.only or s[0] in options.only.split(",")]
    background = None
    if any(name == "compare" for name, _ in chosen):
        background = start(options, "cpuref", work, log, budget=options.budget)
    merged = {"options": vars(options), "sections": {}}
    for name, limit in chosen:
        left = options.budget - (time.monotonic() - START)
        if left < 12:
            merged["sections"][name] = {"state": "skipped: no time left", "entries": []}
            continue
        limit = min(limit * options.limit_factor, left - 6)
        begun = time.monotonic()
        process = start(options, name, work, log, budget=limit)
        state = wait(process, limit + 4)
        seconds = round(time.monotonic() - begun, 1)
        print(f"[{time.monotonic() - START:6.1f} s] {name}: {state}, {seconds} s", flush=True)
        merged["sections"][name] = {"state": state, "seconds": seconds, **read(work, name)}
        save(out, merged)
        if name == "env" and not merged["sections"][name].get("usable"):
            print("no usable device, or the project does not import: nothing else is tried", flush=True)
            break
        for trace in work.glob("trace_*.json.gz"):
            if trace.stat().st_size < 15 << 20:
                (out / trace.name).write_bytes(trace.read_bytes())
            trace.unlink()
    if background is not None:
        stop(background)
    merged["seconds"] = round(time.monotonic() - START, 1)
    save(out, merged)
    log.close()
    text = (out / "gpu_check.md").read_text(encoding="utf-8")
    print(text[: options.print_characters])
    found = list(problems(merged))
    print("\n".join(["", f"{len(found)} problems", *(f"* {one}" for one in found)]))
    return 1 if found else 0


def problems(merged):
    """Say what has to be mended: failures, and results that are not what they must be equal to."""
    for name, section in merged["sections"].items():
        if section["state"].startswith("FAILED"):
            yield f"{name}: {section['state']}"
        yield from (f"{name}: {note}" for note in section.get("notes", []) if "FAILED" in note)
        for entry in section.get("entries", []):
            wrong = [key for key in ("equal", "masks_equal", "counts_equal") if entry.get(key) is False]
            wrong += [key for key in ("unequal", "differing_not_ties", "error") if entry.get(key)]
            if wrong:
                yield f"{name}: {', '.join(wrong)}: {entry}"


def start(options, name, work, log, budget, own_session=True):
    command = [sys.executable, "-u", os.path.abspath(__file__), "--section", name]
    command += ["--project", options.project, "--out", options.out, "--device", options.device]
    command += ["--work", str(work), "--limit", str(budget), "--jpegs", options.jpegs]
    command += ["--tiny"] if options.tiny else []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if options.tiny:
        environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, start_new_session=own_session, env=environment
    )


def wait(process, limit):
    try:
        code = process.wait(limit)
        return "done" if code == 0 else f"FAILED with exit code {code}"
    except subprocess.TimeoutExpired:
        stop(process)
        return "cut off at its limit"


def stop(process):
    if process.poll() is None:
        try:
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: it and its children
            else:
                process.kill()
        except ProcessLookupError:
            pass
        process.wait()


def read(work, name):
    path = work / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"entries": [], "notes": ["wrote nothing"]}


def save(out, merged):
    (out / "gpu_check.json").write_text(json.dumps(merged, indent=1), encoding="utf-8")
    (out / "gpu_check.md").write_text(markdown(merged), encoding="utf-8")


def markdown(merged):
    lines = ["# gpu_check", ""]
    for name, section in merged["sections"].items():
        lines += [f"## {name}: {section['state']}, {section.get('seconds', 0)} s", ""]
        lines += [f"* {note}" for note in section.get("notes", [])]
        groups = {}
        for entry in section.get("entries", []):
            groups.setdefault(tuple(entry), []).append(entry)
        for columns, entries in groups.items():
            lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(shown(e[c]) for c in columns) + " |" for e in entries]
        lines.append("")
    return "\n".join(lines)


def shown(value):
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")[:220]


# --------------------------------------------------------------------------- sections: common


class Section:
    """What a section's process has: options, deadline, device, and where results go."""

    def __init__(self, options):
        self.options = options
        self.deadline = START + float(options.limit) - 1.5
        self.work = Path(options.work)
        self.tiny = options.tiny
        self.device = options.device
        self.cuda = options.device == "cuda"
        self.found = {"entries": [], "notes": []}

    def add(self, **entry):
        self.found["entries"].append(entry)
        print(entry, flush=True)
        self.write()

    def note(self, text):
        self.found["notes"].append(text)
        print("note:", text, flush=True)
        self.write()

    def write(self):
        path = self.work / f"{self.options.section}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.found), encoding="utf-8")
        part.replace(path)

    @property
    def left(self):
        return self.deadline - time.monotonic()

    def attempt(self, what, work, *arguments, **named):
        """Do a part of the section; a failure is a note."""
        if self.left < 1:
            self.note(f"{what}: no time left")
            return None
        try:
            return work(*arguments, **named)
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.note(f"{what}: FAILED: {type(error).__module__}.{type(error).__name__}: {str(error)[:300]}")
            self.free()
            return None

    # ---- device

    def sync(self):
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    def free(self):
        import gc

        import torch

        gc.collect()
        if self.cuda and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_mib(self):
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**20) if self.cuda else 0

    def clock(self, work, seconds=0.5, warm=2, most=50):
        """Median seconds of `work`, by events on a GPU: launches may overlap the device's work."""
        import torch

        for _ in range(warm):
            work()
        self.sync()
        times, begun = [], time.monotonic()
        while len(times) < 3 or (time.monotonic() - begun < seconds and len(times) < most):
            if self.cuda:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                work()
                last.record()
                last.synchronize()
                times.append(first.elapsed_time(last) / 1e3)
            else:
                before = time.perf_counter()
                work()
                times.append(time.perf_counter() - before)
            if self.left < 1:
                break
        return statistics.median(times)

    # ---- things to look at

    def size(self, height, width):
        return (height, width) if not self.tiny else (max(24, height // 8), max(24, width // 8))

    def record(self, name, padding="paper", width=None, classes=NUM_CLASSES, **fields):
        from fcn.architectures import ARCHITECTURES
        from fcn.weights.classes import numbered_classes
        from fcn.weights.record import Checkpoint

        scalable = "width" in ARCHITECTURES[name]
        width = (4 if self.tiny else 64) if width is None else width
        return Checkpoint(
            name,
            numbered_classes(classes),
            padding=padding,
            width=width if scalable else 64,
            weights_sha256="random:0",
            **fields,
        )

    def network(self, record):
        """The same weights in every process and on every device."""
        from fcn.weights.files import random_network

        return random_network(record, 0)

    def predictor(self, network, record, **choices):
        from fcn.inference.predictor import Predictor

        return Predictor(network, record, device=self.device, **choices)


def picture(height, width, seed):
    """An image with detail at every distance, the same wherever it is made."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    total = np.full((height, width, 3), 110.0, np.float32)
    for cells, weight in ((3, 60.0), (9, 40.0), (31, 25.0)):
        coarse = random.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel])
            total[..., channel] += weight * np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    total += random.normal(0, 4, total.shape).astype(np.float32)
    return np.clip(total, 0, 255).astype(np.uint8)


def pictures(number, height, width, seed=0):
    few = [picture(height, width, seed + index) for index in range(min(number, 8))]
    return [few[index % len(few)] for index in range(number)]


def flops(record, size):
    """Multiplications and additions for one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fcn.weights.files import build_recorded

    with torch.device("meta"):
        network = build_recorded(record).eval()
        image = torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()


DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_of(precision):
    import torch

    return getattr(torch, DTYPES[precision])


def product_flags():
    """As `Predictor` sets them."""
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def forward_of(section, network, record, precision):
    return forward_of_predictor(section.predictor(network, record, precision=precision))


def forward_of_predictor(predictor):
    """The bare forward as `Predictor` has it: uint8 on the device in, scores out."""
    import torch

    from fcn.inference.tiling import whole

    def run(images_NHWC):
        with torch.inference_mode():
            return predictor._scorer.scores(images_NHWC, whole(tuple(images_NHWC.shape[1:3])))

    return run


def plain_forward_of(section, network, record, precision):
    """The forward under autocast, layer by layer as the network is written."""
    import torch

    from fcn.inference.preprocess import Preprocess

    network = network.to(section.device).to(memory_format=torch.channels_last)
    preprocess = Preprocess(record).to(section.device)
    dtype = dtype_of(precision)

    def run(images_NHWC):
        with torch.no_grad(), torch.autocast(section.device, dtype, enabled=dtype is not torch.float32):
            return network(preprocess(images_NHWC))

    return run


def on_device(section, images):
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(images)).to(section.device)


def differing(left, right):
    """Share of pixels whose class differs."""
    import numpy as np

    return float(np.mean([np.mean(a.mask != b.mask) for a, b in zip(left, right, strict=True)]))


def same(left, right):
    """Whether two predictions are equal in every bit."""
    import numpy as np

    return (
        np.array_equal(left.mask, right.mask)
        and np.array_equal(left.class_pixels, right.class_pixels)
        and np.array_equal(left.class_confidence, right.class_confidence, equal_nan=True)
        and left.mean_confidence == right.mean_confidence
    )


# --------------------------------------------------------------------------- sections


def env(section):
    """Versions and ceilings."""
    import platform

    import torch
    import torchvision

    note = section.note
    note(f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, cores {os.cpu_count()}, usable {len(os.sched_getaffinity(0))}")
    missing = []
    for name in ("numpy", "PIL", "safetensors", "fsspec", "pyarrow", "cv2", "pydantic", "pydantic_settings", "tenacity", "botocore", "aiohttp", "ray", "simplejpeg", "zlib_ng"):
        try:
            module = __import__(name)
            note_version = getattr(module, "__version__", "?")
            section.found.setdefault("versions", {})[name] = str(note_version)
        except ImportError:
            missing.append(name)
    note(f"versions {section.found.get('versions')}; missing: {', '.join(missing)}")
    for tool in ("gcc", "g++", "nvcc"):
        import shutil

        section.found.setdefault("tools", {})[tool] = shutil.which(tool)
    note(f"tools {section.found['tools']}")
    import fcn.inference.predictor  # noqa: F401
    import fcn.training.trainer  # noqa: F401
    import fcn.weights.files  # noqa: F401

    note("fcn.inference.predictor, fcn.training and fcn.weights import")
    # Only `codecs` and `replica` need it, with what packages.txt names.
    section.attempt("pipeline.labelling.segment", __import__, "pipeline.labelling.segment")
    section.found["usable"] = not section.cuda
    if section.cuda:
        properties = torch.cuda.get_device_properties(0)
        section.found["usable"] = True
        note(f"{properties.name}, {properties.multi_processor_count} SMs, {properties.total_memory / 2**30:.1f} GiB, capability {properties.major}.{properties.minor}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
        shell = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit,pcie.link.gen.current,pcie.link.width.current", "--format=csv,noheader"], capture_output=True, text=True, check=False, timeout=20)
        note(f"nvidia-smi: {shell.stdout.strip() or shell.stderr.strip()}")
    product_flags()
    for name, precision in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32), ("tf32", torch.float32)):
        section.attempt(name, matmul_rate, section, name, precision)
    section.attempt("copies", copy_rates, section)


def matmul_rate(section, name, precision):
    import torch

    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    side = 256 if section.tiny or not section.cuda else (8192 if name in ("bf16", "fp16", "tf32") else 4096)
    left, right = (torch.randn(side, side, device=section.device).to(precision) for _ in range(2))
    seconds = section.clock(lambda: left @ right, seconds=0.4, warm=5)
    torch.backends.cuda.matmul.allow_tf32 = False
    section.add(ceiling=f"matmul {name} {side}", ms=1e3 * seconds, rate=2 * side**3 / seconds / 1e12, unit="TFLOP/s")
    section.found.setdefault("ceilings", {})[name] = 2 * side**3 / seconds / 1e12


def copy_rates(section):
    import torch

    number = (1 << 20) if section.tiny or not section.cuda else (1 << 30)
    source = torch.randint(0, 255, (number,), dtype=torch.uint8, device=section.device)
    target = torch.empty_like(source)
    seconds = section.clock(lambda: target.copy_(source), seconds=0.2)
    section.add(ceiling="copy on the device, read + write", ms=1e3 * seconds, rate=2 * number / seconds / 1e12, unit="TB/s")
    if not section.cuda:
        return
    small = 8 * 375 * 500 * 3
    for what, pinned in (("pageable", False), ("pinned", True)):
        host = torch.empty(small, dtype=torch.uint8, pin_memory=pinned)
        device = torch.empty(small, dtype=torch.uint8, device="cuda")
        for way, work in (("to the device", lambda h=host, d=device: d.copy_(h, non_blocking=True)), ("from the device", lambda h=host, d=device: h.copy_(d, non_blocking=True))):
            seconds = section.clock(work, seconds=0.1)
            section.add(ceiling=f"{small / 1e6:.1f} MB {way}, {what}", ms=1e3 * seconds, rate=small / seconds / 1e9, unit="GB/s")


def ceiling(section, precision):
    """What env has measured, in TFLOP/s; 0 if it has not."""
    return read(section.work, "env").get("ceilings", {}).get(precision, 0.0)


def cpuref(section):
    """In the background: masks and margins of the CPU in fp32, for `compare`."""
    import numpy as np
    import torch

    from fcn.inference.predictor import Predictor

    os.nice(10)
    torch.set_num_threads(1 if section.tiny else max(1, min(6, (os.cpu_count() or 2) // 2)))
    for size in ((375, 500), (1024, 2048)):
        shape = section.size(*size)
        for label, name, padding in (*NETWORKS, *(OTHERS if size[0] == 375 else ())):
            record = section.record(name, padding)
            predictor = Predictor(section.network(record), record, batch_size=1)
            arrays = {}
            for index, image in enumerate(pictures(2 if size[0] == 375 else 1, *shape, seed=100)):
                [found] = predictor.predict([image], with_scores=True)
                two = np.partition(found.scores, NUM_CLASSES - 2, axis=0)[-2:]
                arrays[f"mask{index}"] = found.mask
                arrays[f"margin{index}"] = (two[1] - two[0]) / np.abs(found.scores).max()
                arrays[f"scores{index}"] = found.scores[:, ::4, ::4]
            path = section.work / f"ref_{size[0]}_{name}_{padding}.npz"
            np.savez(path.with_suffix(".part.npz"), **arrays)
            path.with_suffix(".part.npz").replace(path)
            print("reference", label, size, flush=True)


def speed(section):
    """Predictor and bare forward for networks, precisions, sizes and batches."""
    small, large = (375, 500), (1024, 2048)
    first = [(small, "bf16", batch) for batch in (8, 32, 1)] + [(small, "tf32", 8), (large, "bf16", 8)]
    second = [(small, "fp32", 8), (small, "tf32", 1), (small, "tf32", 32), (small, "fp32", 1), (large, "tf32", 8), (large, "bf16", 1)]
    third = [(large, "bf16", 32), (large, "fp32", 1), (small, "fp32", 32), (small, "fp16", 8), (large, "tf32", 1)]
    networks = {}
    for cases in (first, second, third):
        for label, name, padding in NETWORKS:
            record = section.record(name, padding)
            for size, precision, batch in cases:
                what = f"{label} {size} {precision} {batch}"
                section.attempt(what, speed_of, section, networks, label, record, size, precision, batch)
            section.free()
            if section.left < 2:
                section.note(f"ended within the cases {cases}, at {label}")
                return


def speed_of(section, networks, label, record, size, precision, batch):
    if networks.get(label) is None:
        networks[label] = section.network(record)
    network = networks[label]
    shape = section.size(*size)
    batch = min(batch, 2) if section.tiny else batch
    images = pictures(batch, *shape)
    resident = on_device(section, images)
    section.free()
    predictor = section.predictor(network, record, precision=precision, batch_size=batch)
    run = forward_of_predictor(predictor)
    bare = section.clock(lambda: run(resident), seconds=0.2)
    per_image = flops(record, shape)
    rate = per_image * batch / bare / 1e12
    number = batch * (2 if section.tiny else max(3, min(24, int(0.3 / bare))))
    many = pictures(number, *shape)
    del resident
    predictor.predict(many[: 2 * batch])
    times = []
    while len(times) < 3 and (len(times) < 1 or section.left > 2):
        before = time.perf_counter()
        predictor.predict(many)
        times.append(time.perf_counter() - before)
    whole = statistics.median(times) / number
    top = ceiling(section, precision)
    section.add(
        network=label, size=f"{shape[0]}x{shape[1]}", precision=precision, batch=batch,
        predictor_images_s=1 / whole, forward_images_s=batch / bare, predictor_of_forward=bare / batch / whole,
        forward_ms=1e3 * bare, TFLOP_s=rate, of_matmul=rate / top if top else 0.0,
        MiB_predictor=section.peak_mib(), backoffs=predictor.num_backoffs,
    )


def compare(section):
    """Masks of the GPU against those of the CPU in fp32."""
    for size in ((375, 500), (1024, 2048)):
        for label, name, padding in (*NETWORKS, *(OTHERS if size[0] == 375 else ())):
            section.attempt(f"{label} {size}", compare_one, section, label, name, padding, size)


def compare_one(section, label, name, padding, size):
    import numpy as np

    path = section.work / f"ref_{size[0]}_{name}_{padding}.npz"
    while not path.exists() and section.left > 8:
        time.sleep(0.3)
    if not path.exists():
        section.note(f"{label} {size}: no reference from the CPU in time")
        return
    record, shape = section.record(name, padding), section.size(*size)
    network = section.network(record)
    images = pictures(2 if size[0] == 375 else 1, *shape, seed=100)
    with np.load(path) as reference:
        for precision in ("fp32", "tf32", "bf16", "fp16"):
            predictor = section.predictor(network, record, precision=precision, batch_size=2)
            found = predictor.predict(images, with_scores=True)
            wrong = certain = total = 0
            largest = score = 0.0
            for index, one in enumerate(found):
                mask, margin = reference[f"mask{index}"], reference[f"margin{index}"]
                off = one.mask != mask
                wrong += int(off.sum())
                certain += int((off & (margin > TIE[precision])).sum())
                total += off.size
                largest = max(largest, float(margin[off].max(initial=0)))
                ref = reference[f"scores{index}"]
                score = max(score, float(np.abs(one.scores[:, ::4, ::4] - ref).max() / np.abs(ref).max()))
            section.add(
                network=label, size=f"{shape[0]}x{shape[1]}", precision=precision,
                classes_in_mask=int(len(np.unique(reference["mask0"]))), differing=wrong / total,
                differing_not_ties=certain / total, largest_margin_of_differing=largest, largest_score_error=score,
            )
    section.free()


def exact(section):
    """Five runs give the same bytes; tiles give what the whole gives; flips and scales run."""
    for label, name, padding in NETWORKS[:5]:
        section.attempt(f"{label}: five runs", five_runs, section, label, name, padding)
    for label, name, padding in NETWORKS[:5]:
        section.attempt(f"{label}: tiles", tiles_equal_whole, section, label, name, padding)
    section.attempt("views", views, section)
    section.attempt("many classes", many_classes, section)


def many_classes(section):
    """The largest picture that goes whole, of 150 classes: more than 2^31 scores."""
    record = section.record("fcn8s_vgg16", "tight", classes=150)
    network = section.network(record)
    [image] = pictures(1, *section.size(4096, 4096))
    predictor = section.predictor(network, record, precision="bf16")
    before = time.perf_counter()
    whole = predictor.predict([image])
    seconds, peak = time.perf_counter() - before, section.peak_mib()
    tiled = section.predictor(network, record, precision="bf16", max_whole_pixels=1).predict([image])
    section.add(
        check="4096 x 4096, 150 classes", seconds=seconds, MiB=peak, backoffs=predictor.num_backoffs,
        differing_from_tiles=differing(whole, tiled) if whole[0] and tiled[0] else "None was given",
    )


def five_runs(section, label, name, padding):
    record = section.record(name, padding)
    network = section.network(record)
    images = pictures(11, *section.size(375, 500))
    for precision in ("fp32", "bf16"):
        predictor = section.predictor(network, record, precision=precision)
        first = predictor.predict(images)
        runs = [predictor.predict(images) for _ in range(4)]
        equal = all(same(a, b) for run in runs for a, b in zip(first, run, strict=True))
        # Whether a mask depends on its neighbours in the batch.
        alone = [predictor.predict([image])[0] for image in images[:3]]
        section.add(check="five runs", network=label, precision=precision, equal=equal, differing_alone=differing(first[:3], alone))


def tiles_equal_whole(section, label, name, padding):
    record = section.record(name, padding)
    network = section.network(record)
    [image] = pictures(1, *section.size(1100, 1500))
    height, width = image.shape[:2]
    for precision in ("fp32", "bf16"):
        whole = section.predictor(network, record, precision=precision).predict([image])
        import fcn.inference.predictor as module

        sides = module._TILE_SIDES
        module._TILE_SIDES = (max(64, height // 3 // 32 * 32),)
        try:
            tiled = section.predictor(network, record, precision=precision, max_whole_pixels=1).predict([image])
        finally:
            module._TILE_SIDES = sides
        if tiled[0] is None:
            section.note(f"{label} {precision}: tiles gave None")
        else:
            section.add(check="tiles against whole", network=label, precision=precision, differing=differing(whole, tiled))
    section.free()


def views(section):
    record = section.record("fcn8s_vgg16", "tight", image_scale=0.5)
    network = section.network(record)
    images = pictures(8, *section.size(375, 500))
    for flip, scales in ((False, (1.0,)), (True, (0.75, 1.0, 1.25))):
        predictor = section.predictor(network, record, precision="bf16", flip=flip, scales=scales)
        predictor.predict(images)
        before = time.perf_counter()
        found = predictor.predict(images)
        seconds = time.perf_counter() - before
        section.add(check="image_scale 0.5", flip=flip, scales=str(scales), images_s=len(images) / seconds, none=sum(one is None for one in found))


class SynchronousUploader:
    """No thread, no stream, no pinned memory."""

    def __init__(self, device):
        self._device = device

    def upload(self, batches):
        import numpy as np
        import torch

        for images in batches:
            on_the_device = torch.from_numpy(np.stack(images)).to(self._device)
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            yield on_the_device


def hazards(section):
    """A thousand images of random sizes: what the uploader brings is what it was given."""
    import numpy as np
    import torch

    record = section.record("fcn_all_skips", width=4 if section.tiny else 16)
    network = section.network(record)
    random = np.random.default_rng(5)
    number = 40 if section.tiny else 1000
    largest = 60 if section.tiny else 420
    # Every new number, height and width costs cuDNN a plan per layer: few sizes, drawn at random.
    few = [tuple(random.integers(20, largest, 2)) for _ in range(12 if section.tiny else 30)]
    sizes = [few[random.integers(len(few))] for _ in range(number)]
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    plain = section.predictor(network, record, batch_size=8)
    plain._uploader = SynchronousUploader(plain._device)
    before = time.perf_counter()
    expected = plain.predict(images)
    synchronous = time.perf_counter() - before
    for name, delay in (("as it is", 0), ("device slowed down", 1), ("memory short", 2)):
        section.attempt(name, hazards_of, section, network, record, images, expected, name, delay, synchronous)


def hazards_of(section, network, record, images, expected, name, delay, synchronous):
    import torch

    predictor = section.predictor(network, record, batch_size=8)
    if delay == 1:
        images, expected = images[:300], expected[:300]
        inner = predictor._scorer.scores

        def slow(images_NHWC, region):
            if section.cuda:
                torch.cuda._sleep(3_000_000)  # about 2 ms: uploads run ahead of the network
            return inner(images_NHWC, region)

        predictor._scorer.scores = slow
    holding = []
    if delay == 2 and section.cuda:
        # The allocator has to hand the same blocks out again and again.
        images, expected = images[:300], expected[:300]
        total = torch.cuda.get_device_properties(0).total_memory
        section.free()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + (2 << 30)) / total))
    before = time.perf_counter()
    # Batches are those of the synchronous run only if all images are given at once.
    if len(images) == len(expected) and delay == 0:
        found = predictor.predict(images)
        wanted = expected
    else:
        found = predictor.predict(images)
        plain = section.predictor(network, record, batch_size=8)
        plain._uploader = SynchronousUploader(plain._device)
        wanted = plain.predict(images)
    seconds = time.perf_counter() - before
    if delay == 2 and section.cuda:
        torch.cuda.set_per_process_memory_fraction(1.0)
    unequal = sum(a is None or b is None or not same(a, b) for a, b in zip(found, wanted, strict=True))
    section.add(hazard=name, images=len(images), unequal=unequal, backoffs=predictor.num_backoffs, seconds=seconds, seconds_synchronous=synchronous)
    del holding


def oom(section):
    """Less and less memory: smaller batches, then tiles, the same masks, and no exception."""
    for label, name, padding in (NETWORKS[0], NETWORKS[2], NETWORKS[3]):
        for precision in ("bf16", "fp32"):
            section.attempt(f"{label} {precision}", oom_of, section, label, name, padding, precision)


def oom_of(section, label, name, padding, precision):
    import torch

    record = section.record(name, padding)
    network = section.network(record)
    images = pictures(8, *section.size(1024, 2048))
    predictor = section.predictor(network, record, precision=precision, batch_size=8)
    section.free()
    reference = predictor.predict(images)
    peak = section.peak_mib()
    held = torch.cuda.memory_allocated() / 2**20 if section.cuda else 100
    total = torch.cuda.get_device_properties(0).total_memory / 2**20 if section.cuda else 2**17
    for share in (0.9, 0.5, 0.25, 0.12, 0.05, 0.02):
        limit = held + max(40, share * (peak - held))
        section.free()
        before_backoffs = predictor.num_backoffs
        before = time.perf_counter()
        error, wrong, none = "", float("nan"), -1
        try:
            if section.cuda:
                torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
            elif share < 0.5:
                section.note("no limit on a CPU")
                return
            found = predictor.predict(images)
            none = sum(one is None for one in found)
            pairs = [(a, b) for a, b in zip(reference, found, strict=True) if b is not None]
            wrong = differing(*zip(*pairs, strict=True)) if pairs else float("nan")
        except Exception as caught:  # noqa: BLE001
            error = f"{type(caught).__name__}: {str(caught)[:160]}"
        finally:
            if section.cuda:
                torch.cuda.set_per_process_memory_fraction(1.0)
        section.add(network=label, precision=precision, peak_MiB=peak, limit_MiB=round(limit), backoffs=predictor.num_backoffs - before_backoffs, none=none, differing=wrong, seconds=time.perf_counter() - before, error=error)
        if section.left < 2:
            return


def profile(section):
    """Where the time of `Predictor.predict` goes: kernels, gaps, waits."""
    for label, name, padding, batch in ((*NETWORKS[0], 8), (*NETWORKS[2], 8), (*NETWORKS[3], 8), (*NETWORKS[0], 32)):
        section.attempt(label, profile_of, section, label, name, padding, batch)


def waits_of(section, what, work):
    """Which lines of Python wait for the device, as PyTorch itself sees it."""
    import collections
    import warnings

    import torch

    if not section.cuda:
        work()
        section.note(f"{what}: no waits to count on a CPU")
        return
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = collections.Counter(
        f"{os.path.relpath(one.filename, section.options.project)}:{one.lineno}" for one in seen if "synchroniz" in str(one.message)
    )
    for line, count in lines.most_common(14):
        section.add(waits_of=what, line=line, times=count)


def profile_of(section, label, name, padding, batch):
    import torch

    record = section.record(name, padding)
    network = section.network(record)
    images = pictures(4 if section.tiny else 64, *section.size(375, 500))
    predictor = section.predictor(network, record, precision="bf16", batch_size=batch)
    predictor.predict(images)
    if batch == 8 and name == "fcn8s_vgg16":
        section.attempt("waits", waits_of, section, f"predict, {len(images)} images in batches of {batch}", lambda: predictor.predict(images))
    activities = [torch.profiler.ProfilerActivity.CPU]
    if section.cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        predictor.predict(images)
        section.sync()
    path = section.work / "trace.json"
    profiler.export_chrome_trace(str(path))
    text = path.read_bytes()
    path.unlink()
    if batch == 8 and name == "fcn8s_vgg16":
        (section.work / f"trace_{name}.json.gz").write_bytes(gzip.compress(text, 6))
    tell_trace(section, f"{label} bf16 batch {batch}", json.loads(text)["traceEvents"], len(images))


def tell_trace(section, label, events, number):
    on_gpu = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset") and "dur" in e]
    waits = [e for e in events if e.get("cat") == "cuda_runtime" and ("Synchronize" in e["name"] or e["name"] == "cudaMemcpyAsync")]
    launches = sum(e.get("cat") == "cuda_runtime" and "Launch" in e["name"] for e in events)
    if not on_gpu:
        section.note(f"{label}: no kernels in the trace ({len(events)} events)")
        on_gpu = [e for e in events if e.get("cat") == "cpu_op" and "dur" in e]
        if not on_gpu:
            return
    first = min(e["ts"] for e in on_gpu)
    last = max(e["ts"] + e["dur"] for e in on_gpu)
    busy, end, gaps = 0.0, first, []
    for e in sorted(on_gpu, key=lambda e: e["ts"]):
        if e["ts"] > end:
            gaps.append((e["ts"] - end, e["name"]))
            end = e["ts"]
        busy += max(0.0, e["ts"] + e["dur"] - end)
        end = max(end, e["ts"] + e["dur"])
    long = [gap for gap, _ in gaps if gap > 20]
    section.add(
        profiled=label, wall_ms=(last - first) / 1e3, gpu_busy=busy / max(1.0, last - first), kernels_per_image=len(on_gpu) / number,
        launches=launches, syncs_and_copies=len(waits), wait_ms=sum(e.get("dur", 0) for e in waits) / 1e3,
        gaps_over_20us=len(long), their_ms=sum(long) / 1e3,
    )
    sums = {}
    for e in on_gpu:
        known = sums.setdefault(e["name"][:90], [0.0, 0])
        known[0] += e["dur"]
        known[1] += 1
    total = sum(one[0] for one in sums.values())
    for name, (micro, count) in sorted(sums.items(), key=lambda item: -item[1][0])[:16]:
        section.add(kernels_of=label, kernel=name, ms=micro / 1e3, share=micro / total, count=count)
    for gap, name in sorted(gaps, reverse=True)[:5]:
        section.add(gap_of=label, gap_us=gap, before=name[:80])


def train(section):
    """The training step of `modern` on one worker."""
    from fcn.training.recipes import RECIPES

    section.attempt("all_skips bf16", train_of, section, "fcn_all_skips 64", "fcn_all_skips", "paper", "bf16", 14)
    section.attempt("bare loop", bare_training, section)
    section.attempt("all_skips fp32", train_of, section, "fcn_all_skips 64", "fcn_all_skips", "paper", "fp32", 6)
    section.attempt("fcn8s bf16", train_of, section, "fcn8s tight", "fcn8s_vgg16", "tight", "bf16", 8)
    section.attempt("resnet50 bf16", train_of, section, "fcn_resnet50", "fcn_resnet50", "paper", "bf16", 7)
    section.note(f"recipe {RECIPES['modern']}")


def scene(height, width, seed):
    """An image and its truth: a class is a range of brightness and place, so that it can be learned."""
    import numpy as np

    image = picture(height, width, seed)
    bright = image.mean(axis=2)
    truth = (np.digitize(bright, (60, 95, 130, 165)) + 5 * (np.arange(height)[:, None] > height // 2)).astype(np.uint8)
    truth[:3] = 255
    return image, truth


def train_of(section, label, name, padding, precision, seconds):
    import torch

    from fcn.training.batch import Batch
    from fcn.training.recipes import find_recipe
    from fcn.training.trainer import Trainer

    seconds = 1 if section.tiny else seconds
    recipe = find_recipe("modern", name)
    shape = recipe.augmentation.crop if not section.tiny else (48, 64)
    record = section.record(name, padding)
    torch.manual_seed(0)
    network = section.network(record)
    section.free()
    trainer = Trainer(network, record, recipe, device=section.device, precision=precision, class_weights=[1.0] * NUM_CLASSES)
    scenes = [scene(*shape, seed) for seed in range(24)]

    def batch(step):
        chosen = [scenes[(step * recipe.batch_size + i) % len(scenes)] for i in range(recipe.batch_size)]
        return Batch([c[0] for c in chosen], [c[1] for c in chosen], range(step * recipe.batch_size, (step + 1) * recipe.batch_size))

    losses, step = [], 0
    for step in range(3):
        losses.append(trainer.step(batch(step), step, 0.0))
    section.sync()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds and section.left > 3:
        step += 1
        done += 1
        losses.append(trainer.step(batch(step), step, 0.0))
    section.sync()
    elapsed = time.perf_counter() - begun
    values = torch.stack(losses).tolist()
    third = max(1, len(values) // 3)
    peak = section.peak_mib()
    before = time.perf_counter()
    found = trainer.evaluate(scenes[:8])
    section.add(
        training=label, precision=precision, batch=recipe.batch_size, crop=str(shape), steps_s=done / elapsed, images_s=done * recipe.batch_size / elapsed,
        MiB=peak, loss_first=statistics.mean(values[:third]), loss_last=statistics.mean(values[-third:]),
        finite=all(map(math.isfinite, values)), evaluate_s=time.perf_counter() - before, pixel_accuracy=found.matrix.metrics().pixel_accuracy,
    )
    if name == "fcn_all_skips" and precision == "bf16":
        section.attempt("waits", waits_of, section, "one training step", lambda: trainer.step(batch(step + 1), step + 1, 0.0))
        section.attempt("profile of training", profile_training, section, trainer, batch, step + 1, label)
        before = time.perf_counter()
        state = trainer.state()
        section.note(f"state() of {sum(t.nbytes for t in state.values()) / 2**20:.0f} MiB: {time.perf_counter() - before:.2f} s")


def profile_training(section, trainer, batch, step, label):
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if section.cuda else [])
    with torch.profiler.profile(activities=activities) as profiler:
        for further in range(1 if section.tiny else 8):
            trainer.step(batch(step + 1 + further), step + 1 + further, 0.0)
        section.sync()
    path = section.work / "trace_t.json"
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_bytes())["traceEvents"]
    path.unlink()
    tell_trace(section, f"training {label} bf16", events, 8)


def bare_training(section):
    """The same network, loss and optimizer on one resident batch, without waits."""
    import torch
    import torch.nn.functional as F

    from fcn.inference.preprocess import Preprocess

    record = section.record("fcn_all_skips")
    shape = (240, 320) if not section.tiny else (48, 64)
    network = section.network(record).train().to(section.device).to(memory_format=torch.channels_last)
    preprocess = Preprocess(record).to(section.device)
    scenes = [scene(*shape, seed) for seed in range(8)]
    images = on_device(section, [one[0] for one in scenes])
    truths = on_device(section, [one[1] for one in scenes]).long()
    for fused in (False, True):
        if fused and not section.cuda:
            continue
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, fused=fused or None)

        def step(optimizer=optimizer):
            with torch.autocast(section.device, torch.bfloat16):
                scores = network(preprocess(images))
            F.cross_entropy(scores.float(), truths, ignore_index=255).backward()
            optimizer.step()
            optimizer.zero_grad()

        for _ in range(3):
            step()
        section.sync()
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < (0.5 if section.tiny else 3):
            step()
            done += 1
            if done % 20 == 0:
                section.sync()
        section.sync()
        section.add(bare_loop=f"AdamW fused={fused}", steps_s=done / (time.perf_counter() - begun), images_s=8 * done / (time.perf_counter() - begun))


def variants(section):
    """The bare forward, done otherwise: what a change would bring."""
    for label, name, padding in (NETWORKS[0], NETWORKS[2], NETWORKS[3]):
        for batch in (8, 1):
            section.attempt(f"{label} {batch}", variants_of, section, label, name, padding, batch)


def variants_of(section, label, name, padding, batch):
    import torch

    product_flags()
    record = section.record(name, padding)
    network = section.network(record)
    resident = on_device(section, pictures(batch, *section.size(375, 500)))
    plain = plain_forward_of(section, network, record, "fp32")
    with torch.inference_mode():
        expected = plain(resident).float()

    def tell(variant, work):
        try:
            with torch.inference_mode():
                found = work()
                error = float((found.float() - expected).abs().max() / expected.abs().max())
                del found
                seconds = section.clock(work, seconds=0.25)
            section.add(network=label, batch=batch, variant=variant, ms=1e3 * seconds, images_s=batch / seconds, score_difference=error)
        except Exception as caught:  # noqa: BLE001
            section.note(f"{label} batch {batch}, {variant}: {type(caught).__name__}: {str(caught)[:160]}")

    cast = plain_forward_of(section, network, record, "bf16")
    tell("plain: autocast bf16", lambda: cast(resident))
    product = forward_of(section, network, record, "bf16")
    tell("product: bf16", lambda: product(resident))
    if section.cuda:
        tell("product: bf16, CUDA graph", graphed(product, resident))
    tell("plain: fp32", lambda: plain(resident))
    single = forward_of(section, network, record, "fp32")
    tell("product: fp32", lambda: single(resident))
    quick = forward_of(section, network, record, "tf32")
    tell("product: tf32", lambda: quick(resident))
    product_flags()
    section.free()


def graphed(forward, resident):
    """Replay the forward as a CUDA graph: no launches, no Python."""
    import torch

    static = resident.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = forward(static)

    def run():
        static.copy_(resident)
        graph.replay()
        return scores

    return run


def labelling(section):
    """What comes after the scores: fused and plainly, for every layout and type that there is."""
    import torch

    from fcn.inference.labeller import Labeller, find_labelling, label_plainly

    record = section.record("fcn8s_vgg16", "tight")
    network = section.network(record)
    shape, batch = section.size(375, 500), 2 if section.tiny else 8
    resident = on_device(section, pictures(batch, *shape))
    predictor = section.predictor(network, record, precision="bf16")
    labeller = Labeller(predictor._scorer, NUM_CLASSES, with_scores=False, with_confidence=False)
    run = forward_of_predictor(predictor)
    with torch.inference_mode():
        scores = run(resident).float().contiguous()
    section.note(f"scores {tuple(run(resident).shape)} {run(resident).dtype}, strides {run(resident).stride()}")
    fused = find_labelling(torch.device(section.device))
    section.note(f"labelling by {fused.__name__}")
    nhwc = scores.to(memory_format=torch.channels_last)
    padded = torch.cat([nhwc.bfloat16(), nhwc.bfloat16()[:, :3]], 1).to(memory_format=torch.channels_last)[:, :NUM_CLASSES]
    layouts = {"fp32, plane by plane": scores, "fp32, channels last": nhwc, "bf16, plane by plane": scores.bfloat16(), "bf16, channels last": nhwc.bfloat16(), "bf16, channels last, 3 behind": padded}
    for (name, tensor), below in ((one, below) for one in layouts.items() for below in (0.0, 0.6)):
        plain = label_plainly(tensor, 1 << 20, with_confidence=True, ignore_below=below)
        found = fused(tensor, 1 << 20, with_confidence=True, ignore_below=below)
        pixels = [one[1][:-1].reshape(batch, 2, -1) for one in (plain, found)]
        section.add(
            labels_of=name, ignore_below=below, masks_equal=torch.equal(plain[0], found[0]), differing=float((plain[0] != found[0]).float().mean()),
            counts_equal=torch.equal(pixels[0][:, 0], pixels[1][:, 0]), largest_step_difference_per_pixel=float(((pixels[0] - pixels[1])[:, 1].abs() / pixels[0][:, 0].clamp(min=1)).max()),
            bytes_differ_by=int((plain[2].int() - found[2].int()).abs().max()), wrong=int(found[1][-1]),
        )
    parts = {
        "launch and read (wall, with its waits)": lambda: labeller.launch_whole(resident).read(),
        "scores alone": lambda: run(resident),
        **{f"plain, {name}": lambda t=tensor: label_plainly(t, 1 << 20, with_confidence=False) for name, tensor in layouts.items()},
        **{f"fused, {name}": lambda t=tensor: fused(t, 1 << 20, with_confidence=False) for name, tensor in layouts.items()},
    }
    with torch.inference_mode():
        for name, work in parts.items():
            if section.left < 3:
                break
            section.add(part=name, ms_per_batch=1e3 * section.clock(work, seconds=0.1), batch=batch)


CAPPED = """
import sys; sys.path.insert(0, {project!r})
import torch
from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from fcn.inference.predictor import Predictor
from fcn.inference.tiling import whole
from fcn.weights.files import random_network
record = Checkpoint("fcn_all_skips", numbered_classes(21), weights_sha256="random:0", width={width})
predictor = Predictor(random_network(record, 0), record, device={device!r})
images = torch.zeros(8, *{shape}, 3, dtype=torch.uint8, device={device!r})
with torch.inference_mode():
    for _ in range(3):
        predictor._scorer.scores(images, whole({shape}))
    if {device!r} == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(5):
            predictor._scorer.scores(images, whole({shape}))
        last.record(); last.synchronize()
        print(first.elapsed_time(last) / 5, torch.cuda.max_memory_allocated() >> 20)
    else:
        print("ran")
"""


def pieces(section):
    """Single operations, done in several ways."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    product_flags()
    shape, batch = section.size(375, 500), 2 if section.tiny else 8
    dtype = torch.bfloat16
    images = torch.randn(batch, 3, *shape, device=section.device).to(dtype).to(memory_format=torch.channels_last)

    def tell(piece, way, work):
        try:
            with torch.inference_mode():
                section.add(piece=piece, way=way, us=1e6 * section.clock(work, seconds=0.1))
        except Exception as caught:  # noqa: BLE001
            section.note(f"{piece}, {way}: {type(caught).__name__}: {str(caught)[:160]}")

    for channels in (3, 4, 8, 16):
        conv = nn.Conv2d(channels, 64, 3, padding=1).to(section.device).to(dtype).to(memory_format=torch.channels_last)
        padded = F.pad(images.permute(0, 2, 3, 1), (0, channels - 3)).permute(0, 3, 1, 2)
        tell("conv1_1", f"{channels} channels, conv and ReLU", lambda c=conv, p=padded: F.relu(c(p), inplace=True))
        if section.cuda:
            tell("conv1_1", f"{channels} channels, fused", lambda c=conv, p=padded: torch.cudnn_convolution_relu(p, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups))
    tell("conv1_1", "padding to 8 channels", lambda: F.pad(images.permute(0, 2, 3, 1), (0, 5)))
    features = torch.randn(batch, 64, *shape, device=section.device).to(dtype).to(memory_format=torch.channels_last)
    pool = nn.MaxPool2d(2, 2, ceil_mode=True)
    tell("pool", "PyTorch", lambda: pool(features))
    if section.cuda:
        import fcn.kernels.label
        import fcn.kernels.pool

        section.note(f"pools are equal: {torch.equal(fcn.kernels.pool.max_pool(features), pool(features))}")
        for block in (256, 512, 1024, 2048, 4096):
            fcn.kernels.pool._BLOCK = fcn.kernels.label._BLOCK = block
            tell("pool", f"Triton, {block}", lambda: fcn.kernels.pool.max_pool(features))
            for name, kind, layout in (("fp32 plane by plane", torch.float32, torch.contiguous_format), ("bf16 channels last", dtype, torch.channels_last)):
                scores = torch.randn(batch, NUM_CLASSES, *shape, device=section.device).to(kind).to(memory_format=layout)
                tell("labels", f"{name}, {block}", lambda s=scores: fcn.kernels.label.label_in_one_pass(s, 1 << 20, with_confidence=False))
        fcn.kernels.pool._BLOCK = fcn.kernels.label._BLOCK = 1024
    code = CAPPED.format(project=section.options.project, device=section.device, shape=tuple(shape), width=4 if section.tiny else 64)
    for cap in ("", "1024"):
        if section.left < 9:
            break
        environment = {**os.environ, **({"CUDNN_CONV_WSCAP_DBG": cap} if cap else {})}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=max(5, section.left))
        section.note(f"fcn_all_skips fp32 batch 8, CUDNN_CONV_WSCAP_DBG={cap or 'not set'}: ms and MiB {ran.stdout.strip() or ran.stderr[-300:]}")


def compiling(section):
    """In a rehearsal compile nothing: the lines are what is tried."""
    import functools

    import torch

    if section.tiny and not isinstance(torch.compile, functools.partial):
        torch.compile = functools.partial(torch.compile, backend="eager")


def newsizes(section):
    """What the first batch of a size costs more than the second."""
    for label, name, padding in (NETWORKS[0], NETWORKS[3], NETWORKS[2]):
        section.attempt(label, newsizes_of, section, label, name, padding)


def newsizes_of(section, label, name, padding):
    record = section.record(name, padding)
    predictor = section.predictor(section.network(record), record, precision="bf16", batch_size=8)
    predictor.predict(pictures(8, *section.size(375, 500)))
    for what, cases in (
        ("new height and width, batch 4", [(4, 333 + 7 * i, 500) for i in range(6)]),
        ("known size, new number of images", [(number, 375, 500) for number in (7, 6, 5, 3, 2, 1)]),
    ):
        first, second = [], []
        for number, *size in cases:
            images = pictures(number, *section.size(*size))
            for times in (first, second):
                before = time.perf_counter()
                predictor.predict(images)
                times.append(time.perf_counter() - before)
        section.add(network=label, what=what, first_ms=1e3 * statistics.median(first), again_ms=1e3 * statistics.median(second), worst_first_ms=1e3 * max(first))


def load_jpegs(section, number=64):
    """Encoded images: those beside this file, or pictures of our own."""
    import io

    from PIL import Image

    folder = Path(section.options.jpegs)
    paths = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
    if paths:
        data = [path.read_bytes() for path in paths]
    else:
        data = []
        for index in range(8):
            buffer = io.BytesIO()
            Image.fromarray(picture(*section.size(375, 500), 300 + index)).save(buffer, "JPEG", quality=90)
            data.append(buffer.getvalue())
    return [data[index % len(data)] for index in range(number)], "carried" if paths else "drawn"


def codecs(section):
    """Decoding and encoding: one core, many threads, and the GPU's decoder."""
    import numpy as np
    import torch

    from fcn.weights.classes import numbered_classes
    from pipeline.images.decode import decode_image
    from pipeline.images.masks import encode_mask, make_palette

    data, whence = load_jpegs(section)
    palette = make_palette([label.color for label in numbered_classes(NUM_CLASSES)])
    decoded = [decode_image(one, 1 << 30) for one in data[:8]]
    masks = [np.ascontiguousarray(np.asarray(d).mean(axis=2).astype(np.uint8) // 32) for d in decoded]
    masks = [np.kron(m[::8, ::8], np.ones((8, 8), np.uint8))[: m.shape[0], : m.shape[1]] for m in masks]
    masks = [np.ascontiguousarray(m) for m in masks]
    section.note(f"{len(data)} JPEGs {whence}, {sum(map(len, data)) // len(data)} bytes each, {decoded[0].shape}")
    work = {
        "decode (product)": lambda i: decode_image(data[i % len(data)], 1 << 30),
        "PNG level 1 (product)": lambda i: encode_mask(masks[i % 8], palette, 1),
    }
    both = {"product": lambda i: (work["decode (product)"](i), work["PNG level 1 (product)"](i))}
    try:
        import simplejpeg

        work["simplejpeg decode"] = lambda i: simplejpeg.decode_jpeg(data[i % len(data)], "RGB", fastdct=False, fastupsample=False)
        section.note(f"simplejpeg gives Pillow's pixels: {all(np.array_equal(simplejpeg.decode_jpeg(d, 'RGB', fastdct=False, fastupsample=False), p) for d, p in zip(data, decoded, strict=False))}")
    except ImportError:
        section.note("simplejpeg is not there")
    number = 16 if section.tiny else 400
    for name, one in work.items():
        before = time.thread_time()
        for index in range(number):
            one(index)
        section.add(codec=name, ms_of_a_core=1e3 * (time.thread_time() - before) / number)
    from concurrent.futures import ThreadPoolExecutor

    for name, one in both.items():
        for threads in (1, 2, 4, 8, 16):
            if section.left < 4:
                break
            with ThreadPoolExecutor(threads) as pool:
                count = number * max(1, min(8, threads))
                before, cpu = time.perf_counter(), time.process_time()
                list(pool.map(one, range(count)))
                seconds = time.perf_counter() - before
            section.add(decode_and_encode=name, threads=threads, images_s=count / seconds, cores=(time.process_time() - cpu) / seconds)
    if section.cuda:
        section.attempt("nvJPEG", nvjpeg, section, data, decoded)


def nvjpeg(section, data, decoded):
    import numpy as np
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in data]
    found = decode_jpeg(encoded[: len(decoded)], mode=ImageReadMode.RGB, device="cuda")
    errors = [np.abs(f.permute(1, 2, 0).cpu().numpy().astype(int) - d) for f, d in zip(found, decoded, strict=True)]
    for batch in (8, 32, 64):
        seconds = section.clock(lambda n=batch: decode_jpeg(encoded[:n], mode=ImageReadMode.RGB, device="cuda"), seconds=0.4)
        section.add(nvjpeg_batch=batch, images_s=batch / seconds, largest_difference=max(int(e.max()) for e in errors), mean_difference=float(np.mean([e.mean() for e in errors])))


def stub_botocore():
    """pipeline.storage names botocore's errors; no object store is met here."""
    try:
        import botocore.exceptions  # noqa: F401
    except ImportError:
        import types

        class Anything(types.ModuleType):
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                made = type(name, (Exception,), {})
                setattr(self, name, made)
                return made

        sys.modules["botocore"], sys.modules["botocore.exceptions"] = Anything("botocore"), Anything("botocore.exceptions")


def replica(section):
    """`Segmenter` as Ray calls it, from three threads: JPEGs in, PNGs out."""
    stub_botocore()
    try:
        import pipeline.labelling.segment  # noqa: F401
    except ImportError as error:
        section.note(f"pipeline.labelling.segment does not import here: {error}; carry the wheels that run.sh names")
        return
    for threads, precision, label, name, padding in ((16, "bf16", *NETWORKS[0]), (16, "bf16", *NETWORKS[2]), (8, "bf16", *NETWORKS[0]), (16, "fp32", *NETWORKS[0])):
        section.attempt(f"{label} {precision} {threads}", replica_of, section, threads, precision, label, name, padding)


def replica_of(section, threads, precision, label, name, padding):
    from pipeline.settings.label import LabelSettings
    from pipeline.labelling.records import ClassRecord
    from pipeline.labelling.segment import Placement, Segmenter

    record = section.record(name, padding)
    network = section.network(record)
    data, _ = load_jpegs(section, 256 if not section.tiny else 8)
    settings = LabelSettings(input="/tmp/in", output="/tmp/out", weights="random:0")
    classes = [ClassRecord(id=i, name=c.name, color=c.color) for i, c in enumerate(record.classes)]
    loaded = []

    def load(placement):
        loaded.append(section.predictor(network, record, precision=precision, batch_size=placement.batch_size))
        return loaded[-1]

    segmenter = Segmenter(load, classes, settings, Placement(use_gpu=section.cuda, threads=threads, batch_size=8))

    def shard():
        fields = {"key": "k", "uri": "file:///k", "etag": "e", "mask_key": "k.png", "error_code": None, "error_message": None}
        return {"shard": 0, "images": [{**fields, "image_id": str(i), "num_bytes": len(one), "data": one} for i, one in enumerate(data)]}

    row = segmenter(shard())
    bad = [one for one in row["images"] if one["png"] is None]
    done, ends = [], time.monotonic() + (1 if section.tiny else 6)
    begun, cpu = time.monotonic(), time.process_time()
    network_seconds = []

    def call():
        while time.monotonic() < ends and section.left > 2:
            found = segmenter(shard())
            done.append(len(found["images"]))
            network_seconds.append(found["work"]["seconds"]["network"])

    with utilisation(section) as used:
        callers = [threading.Thread(target=call) for _ in range(3)]
        for one in callers:
            one.start()
        for one in callers:
            one.join()
    seconds = time.monotonic() - begun
    section.add(
        replica=label, precision=precision, threads=threads, images_s=sum(done) / seconds, cores=(time.process_time() - cpu) / seconds,
        busy_share_as_reported=sum(network_seconds) / seconds, nvml_gpu_percent=used(), failed=len(bad),
    )
    section.free()


class utilisation:  # noqa: N801
    """The GPU's own word on how busy it is, sampled."""

    def __init__(self, section):
        self._cuda, self._seen, self._stop = section.cuda, [], threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return lambda: round(statistics.mean(self._seen), 1) if self._seen else -1.0

    def _look(self):
        if not self._cuda:
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not self._stop.wait(0.25):
                self._seen.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except Exception as error:  # noqa: BLE001
            print("no utilisation:", error, flush=True)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(2)


def baselines(section):
    """Plain loops around other people's networks: normalise, score, argmax, mask to the CPU."""
    import torch

    from torchvision.models.segmentation import fcn_resnet50

    torch.manual_seed(0)
    network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=NUM_CLASSES).eval().to(section.device)
    size = section.size(375, 500)
    for batch in (8, 32, 1):
        batch = min(batch, 2) if section.tiny else batch
        for name, precision, last, tf32 in (
            ("torchvision fcn_resnet50, fp32, PyTorch's default (TF32 convolutions)", "fp32", False, True),
            ("torchvision fcn_resnet50, fp32 strict", "fp32", False, False),
            ("torchvision fcn_resnet50, bf16 autocast, channels_last", "bf16", True, False),
        ):
            section.attempt(name, loop, section, name, network, lambda x: network(x)["out"], precision, last, tf32, size, batch)
    section.attempt("dense", dense, section, size)


def dense(section, size):
    from tests.fcn.references import fcn8s

    record = section.record("fcn8s_vgg16", width=64)
    weights = section.network(record).to(section.device).state_dict()
    for batch in (8, 1):
        batch = 1 if section.tiny else batch
        for name, precision, tf32 in (("dense FCN-8s, fp32 strict", "fp32", False), ("dense FCN-8s, PyTorch's default", "fp32", True), ("dense FCN-8s, bf16 autocast", "bf16", False)):
            if section.left > 2:
                section.attempt(name, loop, section, name, None, lambda x: fcn8s(weights, x), precision, False, tf32, size, batch)


def loop(section, name, network, score, precision, last, tf32, size, batch):
    import numpy as np
    import torch

    from fcn.inference.preprocess import Preprocess

    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    layout = torch.channels_last if last else torch.contiguous_format
    if network is not None:
        network.to(memory_format=layout)
    preprocess = Preprocess(section.record("fcn_resnet50")).to(section.device)
    dtype = dtype_of(precision)

    def run(images):
        with torch.inference_mode(), torch.autocast(section.device, dtype, enabled=dtype is not torch.float32):
            pixels = torch.from_numpy(np.stack(images)).to(section.device)
            scores = score(preprocess(pixels).contiguous(memory_format=layout))
            return scores.argmax(dim=1).to(torch.uint8).cpu().numpy()

    images = pictures(batch, *size)
    for _ in range(1 if section.tiny else 3):
        run(images)
    times = []
    while len(times) < 3 or (sum(times) < 0.5 and len(times) < 30):
        before = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - before)
        if section.left < 1 or section.tiny:
            break
    section.add(loop=name, batch=batch, images_s=batch / statistics.median(times))


def two(section):
    """Two predictors at once: in two threads, in two processes."""
    section.attempt("threads", two_threads, section)
    section.attempt("processes", two_processes, section)


def timed_predicts(predictor, images, seconds):
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        predictor.predict(images)
        count += len(images)
    return count / (time.perf_counter() - begun)


def two_threads(section):
    from concurrent.futures import ThreadPoolExecutor

    record = section.record("fcn_all_skips")
    images = pictures(8 if section.tiny else 64, *section.size(375, 500))
    seconds = 0.5 if section.tiny else 3
    predictors = [section.predictor(section.network(record), record, precision="bf16") for _ in range(2)]
    expected = predictors[0].predict(images)
    alone = timed_predicts(predictors[0], images, seconds)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda p: p.predict(images), predictors))
        equal = all(same(a, b) for run in found for a, b in zip(expected, run, strict=True))
        rates = list(pool.map(lambda p: timed_predicts(p, images, seconds), predictors))
    section.add(two="threads", alone_images_s=alone, together_images_s=sum(rates), gain=sum(rates) / alone, equal=equal)


def two_processes(section):
    record = section.record("fcn_all_skips")
    images = pictures(8 if section.tiny else 64, *section.size(375, 500))
    predictor = section.predictor(section.network(record), record, precision="bf16")
    predictor.predict(images)
    alone = timed_predicts(predictor, images, 0.5 if section.tiny else 3)
    del predictor
    section.free()
    children = [start(section.options, f"child{n}", section.work, None, min(30, section.left), own_session=False) for n in (1, 2)]
    for child in children:
        wait(child, max(1.0, section.left))
    rates = [entry["images_s"] for n in (1, 2) for entry in read(section.work, f"child{n}")["entries"]]
    section.add(two="processes", alone_images_s=alone, together_images_s=sum(rates), gain=sum(rates) / alone, equal=f"{len(rates)} of 2 finished")


def child(section):
    record = section.record("fcn_all_skips")
    images = pictures(8 if section.tiny else 64, *section.size(375, 500))
    # As two replicas on a card have it.
    predictor = section.predictor(section.network(record), record, precision="bf16", memory_share=0.5)
    predictor.predict(images)
    # Both children begin together.
    (section.work / f"{section.options.section}.ready").touch()
    while len(list(section.work.glob("child*.ready"))) < 2 and section.left > 5:
        time.sleep(0.05)
    section.add(images_s=timed_predicts(predictor, images, 0.5 if section.tiny else 3))


def compile_(section):
    """`compiled=True`: how long it takes, what it brings, and what a remainder costs."""
    for label, name, padding in (NETWORKS[0], NETWORKS[3], NETWORKS[2]):
        section.attempt(label, compile_of, section, label, name, padding)


def compile_of(section, label, name, padding):
    from torch._dynamo.utils import counters

    compiling(section)
    record = section.record(name, padding)
    network = section.network(record)
    images = pictures(4 if section.tiny else 64, *section.size(375, 500))
    plain = section.predictor(network, record, precision="bf16")
    expected = plain.predict(images)
    eager = timed_predicts(plain, images, 0.2 if section.tiny else 1.5)
    predictor = section.predictor(network, record, precision="bf16", compiled=True)
    before = time.perf_counter()
    found = predictor.predict(images[:8])
    first = time.perf_counter() - before
    found = predictor.predict(images)
    rate = timed_predicts(predictor, images, 0.2 if section.tiny else 1.5)
    remainder = float("nan")
    if section.left > first + 5:
        before = time.perf_counter()
        predictor.predict(images[:5 if not section.tiny else 3])
        remainder = time.perf_counter() - before
    section.add(network=label, eager_images_s=eager, compiled_images_s=rate, gain=rate / eager, first_batch_s=first, first_batch_of_another_number_s=remainder, differing=differing(expected, found), graphs=int(counters["stats"].get("unique_graphs", -1)))


# --------------------------------------------------------------------------- entry

WORK = {
    "env": env, "cpuref": cpuref, "speed": speed, "compare": compare, "exact": exact, "hazards": hazards, "oom": oom,
    "profile": profile, "train": train, "variants": variants, "labelling": labelling, "pieces": pieces, "newsizes": newsizes,
    "codecs": codecs, "replica": replica, "baselines": baselines, "two": two, "compile": compile_,
    "child1": child, "child2": child,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", default=".", help="root of the checkout")
    parser.add_argument("--out", default=os.environ.get("OUT", "out"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small sizes: a rehearsal")
    parser.add_argument("--budget", type=float, default=455, help="seconds for all sections")
    parser.add_argument("--limit-factor", type=float, default=1.0, help="of the sections' limits")
    parser.add_argument("--only", default="", help="sections, with commas between them")
    parser.add_argument("--jpegs", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "jpegs"))
    parser.add_argument("--print-characters", type=int, default=11000)
    parser.add_argument("--section", default="", help=argparse.SUPPRESS)
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    parser.add_argument("--limit", default="60", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.project, options.out = os.path.abspath(options.project), os.path.abspath(options.out)
    if not options.section:
        return drive(options)
    sys.path.insert(0, options.project)
    section = Section(options)
    section.write()
    try:
        WORK[options.section](section)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        section.note(f"FAILED: {type(error).__module__}.{type(error).__name__}: {str(error)[:400]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
