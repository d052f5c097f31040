"""Plan: which run goes on, or a draft written once, as the run's plan.

In: the settings, a draft or earlier runs. Out: a run with its plan. Runs on the driver and without
Ray or torch; no more of the plan is in memory than one of its files.
"""

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import FingerprintMismatch, SettingError
from pipeline.inputs.forms import named_form
from pipeline.labelling.draft import Draft
from pipeline.labelling.history import History
from pipeline.labelling.records import NetworkRecord, RunRecord
from pipeline.labelling.runs import Run, find_run, is_left_over, new_run_id, run_folder
from pipeline.labelling.schema import PLAN
from pipeline.labelling.shards import PlanPart
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage, sha256_hex
from pipeline.versions import versions

_SHARDS_PER_FILE = 64


def identity(settings: LabelSettings, fingerprint: str) -> str:
    """Hash what makes two commands the same work: input, its form, naming of masks, fingerprint.

    Args:
        settings: What the command was asked to do.
        fingerprint: Identifies the network and what decides its masks.
    """
    # A slash at the end says how the input is read, not which it is.
    source = settings.input.rstrip("/")
    # Where the input's own name says the form, the setting says nothing new.
    asked = settings.input_form
    form = "" if asked == "files" or named_form(source) != "files" else f"\0{asked}"
    form += f"\0{settings.image_column}" if settings.image_column else ""
    return sha256_hex(f"{fingerprint}\0{source}\0{settings.mask_name}{form}".encode())[:16]


def run_to_continue(
    history: History, settings: LabelSettings, network: NetworkRecord
) -> Run | None:
    """Find the run that the command resumes.

    Args:
        history: The output's runs so far.
        settings: What the command was asked to do.
        network: That it labels with.

    Returns:
        The run named by `run_id`, finished or not; without a name the newest unfinished run of
        the same input and network; None if a new one is to be started.

    Raises:
        FingerprintMismatch: The named run was started with something else.
        SettingError: The named run has another input, or is finished and asked to retry.
    """
    if settings.run_id is None:
        wanted = identity(settings, network.fingerprint)
        same = [run for run in history.runs() if run.record.identity == wanted]
        pairs = zip(same, history.finished(same), strict=True)
        return next((run for run, done in reversed(list(pairs)) if not done), None)
    run = history.find(settings.run_id)
    if run is not None:
        _check_same_work(run, settings, network)
    return run


def _check_same_work(run: Run, settings: LabelSettings, network: NetworkRecord) -> None:
    if run.record.network.fingerprint != network.fingerprint:
        raise FingerprintMismatch(_what_differs(run.record, network))
    if run.record.identity != identity(settings, network.fingerprint):
        raise SettingError(
            f"run_id={run.run_id!r} was started with input={run.record.input!r} and "
            f"mask_name={run.record.settings.get('mask_name')!r}, "
            f"input_form={run.record.settings.get('input_form', 'files')!r}, "
            f"image_column={run.record.settings.get('image_column')!r}; give another run_id"
        )
    if settings.retry_failed == "all" and run.finished():
        raise SettingError(
            f"run_id={run.run_id!r} is finished and a finished run never changes: "
            "retry_failed=all needs another run_id, or none"
        )


def start_run(
    storage: Storage, settings: LabelSettings, network: NetworkRecord, drafted: Draft
) -> Run:
    """Write the plan, then the run's record: from then on the run can be continued.

    Raises:
        SettingError: A run of this name is half removed.
        StoreError: The output can't be written.
    """
    now = datetime.now(UTC)
    run_id = settings.run_id or new_run_id(now)
    if settings.run_id and is_left_over(storage, settings.output, run_id):
        raise SettingError(
            f"run_id={run_id!r}: the removal of a run of this name was cut off; "
            "`fcn clean OUTPUT --no-dry-run` ends it, or give another run_id"
        )
    parts = list(_write_plan(storage, f"{run_folder(settings.output, run_id)}/plan", drafted))
    drafted.kept_tars.write()
    drafted.staging.close()
    record = RunRecord(
        run_id=run_id,
        identity=identity(settings, network.fingerprint),
        created_at=now,
        input=settings.input,
        output=settings.output,
        network=network,
        settings=settings.model_dump(),
        versions=versions(),
        num_images=drafted.num_images,
        num_bytes=drafted.num_bytes,
        num_shards=sum(len(part.num_images) for part in parts),
        num_skipped=drafted.num_skipped,
        num_skipped_failed=drafted.num_skipped_failed,
        plan=parts,
    )
    uri = f"{run_folder(settings.output, run_id)}/run.json"
    storage.create(uri, record.model_dump_json(indent=1).encode())
    run = find_run(storage, settings.output, run_id)
    if run is None:
        raise SettingError(
            f"run_id={run_id!r}: a copy of another run has this name in {settings.output}/runs; "
            "move it away, or give another run_id"
        )
    # Another driver may have been first to take the name.
    _check_same_work(run, settings, network)
    return run


def _write_plan(storage: Storage, folder: str, drafted: Draft) -> Iterator[PlanPart]:
    # The content is part of the name: of two drivers, whoever writes run.json wins its whole plan.
    shards = drafted.shards()
    first = 0
    while some := list(islice(shards, _SHARDS_PER_FILE)):
        data = _plan_file(some)
        name = f"part-{first // _SHARDS_PER_FILE:05d}-{sha256_hex(data)[:12]}.parquet"
        storage.create(f"{folder}/{name}", data)
        yield PlanPart(file=name, first_shard=first, num_images=[len(shard) for shard in some])
        first += len(some)


def _plan_file(shards: Sequence[pa.Table]) -> bytes:
    """Write a row group for each shard."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, PLAN) as writer:
        for shard in shards:
            writer.write_table(shard)
    return buffer.getvalue()


def _what_differs(record: RunRecord, network: NetworkRecord) -> str:
    differing = [
        f"{name}: {record.network.deciding.get(name)!r} then, {value!r} now"
        for name, value in network.deciding.items()
        if record.network.deciding.get(name) != value
    ]
    return (
        f"run_id={record.run_id!r} was started with another fingerprint "
        f"({'; '.join(differing)[:1500]}). Use the same again to continue it, or another run_id"
    )
