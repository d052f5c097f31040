"""The report: true, and safe to show whatever the images are called."""

from pathlib import Path

from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.records import NUM_FAILED_KEPT, Manifest
from pipeline.labelling.report import as_html, as_text
from pipeline.labelling.runs import Run
from tests.disk_runs import draw_images, label_run, start_run


def _page(run: Run, manifest: Manifest) -> str:
    return as_html(run, manifest, history=History(run.storage, run.output))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """A key with markup or terminal codes is shown, and neither a browser nor a terminal obeys."""
    folder = draw_images(tmp_path, 1)
    (folder / "<script>alert(1)<\\script>.jpg").write_bytes(b"no image")
    (folder / "bell\x07\x1b[31m.jpg").write_bytes(b"no image")
    run = start_run(tmp_path, folder)
    label_run(run)
    manifest = publish(run, lambda _: "")

    page, text = _page(run, manifest), as_text(run, manifest)

    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in text + page
    assert "bell\ufffd\ufffd[31m.jpg: unsupported_format" in text


def test_the_report_shows_the_totals_of_the_manifest(tmp_path: Path) -> None:
    """Images, failures and the pixels of each class that appears stand in both forms."""
    folder = draw_images(tmp_path, 3)
    (folder / "bad.png").write_bytes(b"")
    run = start_run(tmp_path, folder)
    label_run(run)
    manifest = publish(run, lambda _: "")

    page, text = _page(run, manifest), as_text(run, manifest)

    assert "3 of 4 images have a mask, 1 failed, 0 were done by earlier runs" in text
    assert "bad.png: truncated: the file is empty" in text
    for label in manifest.classes:
        assert f"{label.num_pixels:,}" in page
        assert f"{label.num_pixels:,}" in text


def test_failed_images_stand_in_the_manifest(tmp_path: Path) -> None:
    """The report reads no table for them, unless the manifest is of an earlier version."""
    folder = draw_images(tmp_path, 1)
    for index in range(NUM_FAILED_KEPT + 1):
        (folder / f"bad_{index:02d}.png").write_bytes(b"")
    run = start_run(tmp_path, folder, max_shard_images=3)
    label_run(run)
    manifest = publish(run, lambda _: "")
    of_before = manifest.model_copy(update={"failed": None})

    by_tables = as_text(run, of_before)
    for part in manifest.images:
        run.storage.remove(f"{run.output}/{part.file}")

    assert as_text(run, manifest) == by_tables
    assert by_tables.count("truncated: the file is empty") == NUM_FAILED_KEPT
    assert "bad_19.png: truncated" in by_tables
