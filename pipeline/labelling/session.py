"""One `label` command as work: what there is to do, and the right to do it.

Between the steps, which know nothing of each other, and the flow, which runs them.
"""

import logging
from dataclasses import dataclass, replace

from pipeline.errors import PipelineError, SettingError, StoreError
from pipeline.gpus import check_gpus
from pipeline.labelling import plan
from pipeline.labelling.delta import catch_up
from pipeline.labelling.draft import Draft, draft
from pipeline.labelling.history import History
from pipeline.labelling.network import (
    AUTO,
    Network,
    check_compiler,
    check_weights,
    describe_network,
)
from pipeline.labelling.records import Manifest, NetworkRecord
from pipeline.labelling.runs import Run
from pipeline.settings.label import LabelSettings
from pipeline.store.lock import Lock
from pipeline.store.probe import refuse_file, writable_storage
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

# Finished runs that a start reads one by one: four requests or more for each.
RUNS_APART = 16


@dataclass(frozen=True)
class Found:
    """What a command finds: a run to resume, or the draft of a new one.

    `runs` are the runs of this network that the draft knows, each with whether it was published.
    """

    run: Run | None
    draft: Draft | None
    runs: frozenset[tuple[str, bool]] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        run: The run; None if all images were done by earlier ones.
        manifest: The manifest of the run.
        num_images: Images of the run; 0 without one.
        num_failed: Of these, without a mask.
        num_skipped: Images of the input that earlier runs have answered for.
        num_skipped_failed: Of these, without a mask.
        images_per_s: Speed of this command, loading of the network included; None if nothing was
            to be done.
        num_retried: Images of the run that earlier runs have failed at.
        num_retried_failed: Of these, without a mask now.
    """

    run: Run | None
    manifest: Manifest | None
    num_images: int
    num_failed: int
    num_skipped: int
    num_skipped_failed: int
    images_per_s: float | None = None
    num_retried: int = 0
    num_retried_failed: int = 0

    @staticmethod
    def of_run(run: Run, manifest: Manifest, images_per_s: float | None) -> "Outcome":
        """Read the numbers off a manifest."""
        return Outcome(
            run,
            manifest,
            manifest.num_images,
            manifest.num_failed,
            manifest.num_skipped,
            manifest.num_skipped_failed,
            images_per_s,
            manifest.num_retried,
            manifest.num_retried_failed,
        )

    @property
    def error_rate(self) -> float:
        """The share of bad images: of the run or of the whole input, whichever is worse.

        A night on which every new image fails is not hidden by a million good ones, and the same
        command ends with the same code when it is called again and finds nothing to do.
        """
        failed = self.num_failed + self.num_skipped_failed
        of_input = failed / max(1, self.num_images + self.num_skipped)
        # A run of an earlier version, where it was a switch, held nothing but failed images.
        if self.run is None or self.run.record.settings.get("retry_failed") is True:
            return of_input
        # Of images that have failed before, those that fail again say little by their share.
        num_new = self.num_images - self.num_retried
        num_new_failed = self.num_failed - self.num_retried_failed
        return max(of_input, num_new_failed / max(1, num_new))


@dataclass(frozen=True)
class Job:
    """A `label` command, its settings checked and its network known."""

    settings: LabelSettings
    storage: Storage
    output: str
    network: Network
    record: NetworkRecord
    history: History

    def look(self) -> Found:
        """Find out what is to be done; reads, and changes nothing.

        Raises:
            InputError: As `draft.draft`.
            FingerprintMismatch: As `plan.run_to_continue`.
        """
        run = self._to_continue()
        if run is not None:
            if self.settings.retry_failed == "all":
                _log.warning(
                    "run %s is unfinished and is finished first; run the same command again for "
                    "retry_failed=all",
                    run.run_id,
                )
            return Found(run, None)
        drafted = draft(self.history, self.settings, self.record)
        _say(drafted)
        return Found(None, drafted, self._runs())

    def nothing_left(self, found: Found) -> Outcome | None:
        """Return the outcome of earlier work if it leaves nothing to do, else None."""
        if found.run is not None:
            [finished] = self.history.finished([found.run])
            [manifest] = self.history.manifests([found.run]) if finished else [None]
            if manifest is None:
                return None
            return Outcome.of_run(found.run, manifest, None)
        assert found.draft is not None, "either a run or a draft"
        if found.draft.num_images or self.settings.run_id:
            # A run that the scheduler has named exists afterwards, be it empty.
            return None
        drafted = found.draft
        return Outcome(None, None, 0, 0, drafted.num_skipped, drafted.num_skipped_failed)

    def earlier_images_per_s(self) -> float | None:
        """Return the speed of the newest finished run of this network; None without one."""
        for run in reversed(self.history.of_network(self.record.fingerprint)):
            [manifest] = self.history.manifests([run])
            if manifest is None or manifest.work is None:
                continue
            if manifest.num_images and manifest.work.work_seconds:
                return manifest.num_images / manifest.work.work_seconds
        return None

    def checked(self) -> "Job":
        """Find out whether and how safely the output can be written, and read the weights through.

        Raises:
            SettingError: It can't, or the weights are not what they should be, or they are to be
                compiled and there is no compiler, or a GPU is asked for and there is none.
        """
        if self.settings.ray_address is None:
            check_gpus("gpus_per_replica", self.settings.gpus_per_replica)
            check_compiler(self.network)
        checked = replace(self, storage=writable_storage(self.storage, self.output))
        check_weights(self.storage, self.network)
        return checked

    def lock(self) -> Lock:
        """Return the lock on this input and network, which is to be taken with `with`."""
        place = f"{self.output}/locks/{plan.identity(self.settings, self.record.fingerprint)}"
        return Lock(self.storage, place, self.settings.lock_lease_s)

    def look_again(self, found: Found) -> Found:
        """Look again, under the lock, if others have been at work meanwhile.

        Args:
            found: What `look` has found before.
        """
        self.history.refresh()
        return self.look() if self._changed(found) else found

    def open_run(self, found: Found, attempt: int) -> Run:
        """Open the run that there is, or start a new one; under the lock.

        Args:
            found: What there is to do.
            attempt: Number of the lock.
        """
        run = found.run
        if run is None:
            assert found.draft is not None, "either a run or a draft"
            run = plan.start_run(self.storage, self.settings, self.record, found.draft)
        return replace(run, storage=self.storage, attempt=attempt)

    def catch_up(self) -> None:
        """Bring Delta logs up where that is asked for and nothing is left to be published."""
        if not self.settings.delta_log:
            return
        try:
            catch_up(writable_storage(self.storage, self.output), self.output)
        except PipelineError as error:
            _log.warning("the Delta logs could not be brought up to the finished runs: %s", error)

    def archive(self) -> None:
        """Add finished runs to the archive, now and then; the work is done without it."""
        try:
            history = History.with_archive(self.storage, self.output)
            if self.history.archive is None:  # or it was of no use, and is written anew
                history.leave_archive_aside()
            history.keep_archive(RUNS_APART)
        except PipelineError as error:
            _log.warning("finished runs could not be archived: %s", error)

    def _to_continue(self) -> Run | None:
        return plan.run_to_continue(self.history, self.settings, self.record)

    def _changed(self, found: Found) -> bool:
        """Return whether others have done something meanwhile that decides what is to be done."""
        if found.run is None:
            return self._runs() != found.runs
        run = self._to_continue()
        return run is None or run.run_id != found.run.run_id

    def _runs(self) -> frozenset[tuple[str, bool]]:
        runs = self.history.of_network(self.record.fingerprint)
        published = self.history.published(runs)
        return frozenset((run.run_id, run.run_id in published) for run in runs)


def _say(drafted: Draft) -> None:
    _log.info(
        "%d images to do (%d of them failed before), %d done before, %d other files that are no "
        "images by their name",
        *(drafted.num_images, drafted.num_retried),
        *(drafted.num_skipped, drafted.num_ignored),
    )
    if drafted.num_repeated:
        _log.warning(
            "%d further listings of an image are left out: each is done once, and of a name that "
            "a tar has more than once the last counts",
            drafted.num_repeated,
        )
    if drafted.num_without_etag:
        _log.warning(
            "the store gives %d images no ETag: time and size stand for it, so that a change "
            "within a second that keeps the size is not seen",
            drafted.num_without_etag,
        )


def open_job(settings: LabelSettings) -> Job:
    """Check what can be checked without listing the input.

    Raises:
        SettingError: The checkpoint is wrong, or the output can't be read, or is a file.
        InputError: The record of a run is damaged.
    """
    refuse_file("output", settings.output)
    storage = settings.storage()
    network = describe_network(storage, settings)
    try:
        history = History.with_archive(storage, settings.output)
        history.refresh()
        if network.precision == AUTO:
            network = network.as_in(history.runs(), settings.input)
    except StoreError as error:
        if error.refused:
            raise SettingError(f"output={settings.output!r} can't be read: {error}") from error
        raise
    return Job(settings, storage, settings.output, network, network.record(), history)
