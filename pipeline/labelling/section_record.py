"""The record of a section: which files of the tables stand, and what they sum up to.

<output>/runs/<run_id>/sections/00000.json is written after the files, and says of which versions of
the commit records they were made. It is derived and never the truth: where it is missing, says
something else, or its files are gone, the section is published again, with the same rows.
"""

from pydantic import BaseModel, ConfigDict

from pipeline.errors import ErrorCode, StoreError
from pipeline.labelling.records import TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.sections import Section
from pipeline.labelling.sums import Sums


class TableFile(TablePart):
    """A file of a table, and its size in bytes."""

    num_bytes: int

    def as_part(self) -> TablePart:
        """Return what the manifest says of it."""
        return TablePart(file=self.file, num_rows=self.num_rows, sha256=self.sha256)


class SectionRecord(BaseModel):
    """What stands of a section.

    Attributes:
        versions: Hash of the versions of its commit records.
        images: Its file of the table `images`.
        class_statistics: Its file of the table `class_statistics`.
        sums: Over its commit records.
    """

    model_config = ConfigDict(extra="ignore")

    versions: str
    images: TableFile
    class_statistics: TableFile
    sums: Sums


def section_uri(run: Run, number: int) -> str:
    """URI of the record of a section."""
    return f"{run.sections_folder}/{section_name(number)}"


def section_name(number: int) -> str:
    """Name of the record of a section."""
    return f"{number:05d}.json"


def standing(run: Run, section: Section, versions: str) -> SectionRecord | None:
    """Look up whether a section is published.

    Args:
        run: The run of the section.
        section: Which.
        versions: Hash of the versions of its commit records as they are now.

    Returns:
        Its record; None if it is not published, or was of other commit records.

    Raises:
        StoreError: The store did not answer.
    """
    data = run.storage.find(section_uri(run, section.number))
    try:
        record = None if data is None else SectionRecord.model_validate_json(data)
    except ValueError:  # of another version, or cut off
        return None
    if record is None or record.versions != versions:
        return None
    files = (record.images, record.class_statistics)
    return record if all(_stands(run, file) for file in files) else None


def _stands(run: Run, file: TableFile) -> bool:
    try:
        return run.storage.stat(f"{run.output}/{file.file}").num_bytes == file.num_bytes
    except StoreError as error:
        if error.code is ErrorCode.NOT_FOUND:
            return False
        raise
