"""Publish: commit records -> the two tables, the manifest, Delta logs, the report, `_SUCCESS`.

In: a run of which every shard has its commit. Out: its manifest.

The tables are made section by section, most of them by workers while the run goes on
(publish_beside.py); here the rest is made, and the sums of all are added up. All of it is computed
from the commit records, so that a publication that was cut off resumes where it stopped.
"""

import logging
from collections.abc import Callable, Iterator

from pipeline.errors import ErrorCode, StoreError
from pipeline.labelling.committed import Versions, listed_versions
from pipeline.labelling.page.bare import bare_page
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import TABLES, Run
from pipeline.labelling.section_record import SectionRecord, standing
from pipeline.labelling.section_tables import publish_section
from pipeline.labelling.sections import Section, sections_of
from pipeline.labelling.sums import Sums
from pipeline.redact import redacted
from pipeline.store.in_flight import answers_of
from pipeline.store.local import folder_in_the_way, is_folder

_log = logging.getLogger(__name__)

_RECORDS_IN_FLIGHT = 32


def publish(
    run: Run,
    render: Callable[[Manifest], str],
    keep_up: Callable[[Manifest], None] = lambda _: None,
) -> Manifest:
    """Publish a run that is committed to the last shard: a record for every shard of the plan.

    Args:
        run: The run.
        render: Makes the report, as HTML. Whatever it raises costs the report alone.
        keep_up: Brings what is derived from manifests up to this one.

    Returns:
        The manifest that stands in the output.

    Raises:
        StoreError: The store did not take it, or a shard has no commit record; call again.
        InputError: A commit record is damaged, or a folder is in the place of a file.
    """
    manifest = run.manifest() or _publish_tables(run)
    keep_up(manifest)
    run.storage.write(f"{run.folder}/report.html", _report(run, manifest, render))
    for folder in (run.masks_folder, run.folder, *map(run.table_folder, TABLES)):
        run.storage.remove_leftovers(folder)
    run.storage.create(run.success_uri, b"")
    return manifest


def _report(run: Run, manifest: Manifest, render: Callable[[Manifest], str]) -> bytes:
    """Render the report, or say what is true without it: masks and tables are whole by now."""
    try:
        return render(manifest).encode()
    except Exception as error:  # noqa: BLE001 - whatever it is, the run is done
        why = redacted(f"{type(error).__name__}: {error}")
        _log.warning(
            "report.html has totals alone, since the page could not be made: %s; "
            "`fcn report %s --run-id %s --html` makes it anew",
            *(why, run.output, run.run_id),
            exc_info=True,
        )
        return bare_page(run, manifest, why).encode()


def _publish_tables(run: Run) -> Manifest:
    sums = Sums()
    images: list[TablePart] = []
    statistics: list[TablePart] = []
    for record in _published(run, _all_committed(run)):
        sums.add(record.sums)
        images.append(record.images.as_part())
        statistics.append(record.class_statistics.as_part())
    manifest = sums.manifest(run, images, statistics)
    run.storage.create(run.manifest_uri, manifest.model_dump_json(indent=1).encode())
    manifest_there = run.manifest()
    assert manifest_there is not None, f"{run.manifest_uri} was written and is not there"
    return manifest_there


def _all_committed(run: Run) -> Versions:
    """Refuse to make a table that would lack a shard. Raises StoreError, InputError."""
    versions = listed_versions(run)
    if lost := versions.lacking():
        if is_folder(uri := run.commit_uri(lost[0])):
            raise folder_in_the_way(uri)
        raise StoreError(
            ErrorCode.NOT_FOUND,
            f"{len(lost)} of {run.record.num_shards} shards of run {run.run_id} have no commit "
            f"record, the first is shard {lost[0]}",
        )
    return versions


def _published(run: Run, versions: Versions) -> Iterator[SectionRecord]:
    """Look for what stands of every section, in order, and make what does not."""

    def look(section: Section) -> SectionRecord | None:
        return standing(run, section, versions.digest(section.shards))

    sections = list(sections_of(run.record.plan))
    found = answers_of(look, sections, _RECORDS_IN_FLIGHT)
    for section, record in zip(sections, found, strict=True):
        if record is None:
            _log.info("publishing section %d of %d", section.number + 1, len(sections))
        yield record or publish_section(run, section)
