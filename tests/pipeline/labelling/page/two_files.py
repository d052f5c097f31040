"""A run's table of images in two files, as one of more images has it."""

import io

import pyarrow.parquet as pq

from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import IMAGES


def in_two_files(run: Run, manifest: Manifest) -> Manifest:
    """Write the images again: the first four into a file, the others into another one.

    Args:
        run: A published run.
        manifest: Of it.

    Returns:
        The manifest that names both files.
    """
    [table] = run.published(manifest, IMAGES.names)
    parts = []
    for name, rows in (("one", table.slice(0, 4)), ("two", table.slice(4))):
        buffer = io.BytesIO()
        pq.write_table(rows, buffer)
        file = f"images/run={run.run_id}/{name}.parquet"
        run.storage.write(f"{run.output}/{file}", buffer.getvalue())
        parts.append(TablePart(file=file, num_rows=rows.num_rows, sha256=""))
    return manifest.model_copy(update={"images": parts})
