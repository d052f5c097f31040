"""Pictures that kill or hang a replica, in its decoder and in its network."""

from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from jobs.demo.scenes import draw_scene
from pipeline.labelling.runs import Run
from tests.product import draw_photographs, label, label_flags, mask_hashes, start, tables, the_run

pytestmark = pytest.mark.runs

_POISON = Path(__file__).parents[1] / "poison"
# As the poison reads them.
_HEIGHTS = {"segv": 51, "kill": 52, "hang": 53, "lock": 54}
_FAST = ("--max-image-s", 3)


def _add_culprit(folder: Path, name: str, where: str, way: str) -> None:
    """Write a picture that sorts between two photographs, and acts up in its way."""
    height = _HEIGHTS[way] if where == "network" else 40
    comment = f"poison:{way}".encode() if where == "decoder" else b""
    Image.fromarray(draw_scene(1000, height, 60)[0]).save(folder / name, comment=comment)


def _label_with(
    culprits: dict[str, tuple[str, str]], tmp_path: Path, number: int, *flags: object
) -> Run:
    """Label pictures with culprits among them: the others get an undisturbed run's masks."""
    folder = draw_photographs(tmp_path / "in", number)
    assert label(folder, tmp_path / "undisturbed") == 0
    for name, (where, way) in culprits.items():
        _add_culprit(folder, name, where, way)
    command = label_flags(folder, tmp_path / "out", *flags)
    process = start(command, tmp_path / "log", PYTHONPATH=str(_POISON))
    try:
        assert process.wait(600) == 4, (tmp_path / "log").read_text()
    finally:
        process.terminate()

    assert main(["verify", str(tmp_path / "out")]) == 0
    run = the_run(f"file://{tmp_path}/out")
    assert mask_hashes(run) == mask_hashes(the_run(f"file://{tmp_path}/undisturbed"))
    return run


def _codes(run: Run) -> dict[str, str]:
    return {row["key"]: row["error_code"] for row in tables(run)[0] if row["error_code"]}


def _deaths(run: Run) -> int:
    manifest = run.manifest()
    assert manifest is not None
    assert manifest.work is not None
    return manifest.work.num_lost_replicas


def test_what_kills_a_decoder_is_a_row(tmp_path: Path, ray_session: str):
    """A dead replica for each shard with culprits finds them all; the others have their masks."""
    culprits = {
        "photo_001_.jpg": ("decoder", "segv"),
        "photo_013_.jpg": ("decoder", "lock"),
        "photo_014_.jpg": ("decoder", "kill"),
    }
    run = _label_with(culprits, tmp_path, 16, "--max-shard-images", 6, *_FAST)
    assert _codes(run) == {
        "photo_001_.jpg": "crashed",
        "photo_013_.jpg": "too_slow",
        "photo_014_.jpg": "crashed",
    }
    assert 1 <= _deaths(run) <= 2


@pytest.mark.cluster
@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    ("ways", "code", "flags"),
    [
        (("segv",), "crashed", ()),
        (("kill",), "crashed", ()),
        (("hang",), "too_slow", _FAST),
        (("lock",), "too_slow", _FAST),
        (("segv", "kill", "segv"), "crashed", ()),
        (("hang", "lock", "hang"), "too_slow", _FAST),
    ],
    ids=["segv", "kill", "hang", "lock", "three crash", "three hang"],
)
@pytest.mark.parametrize("where", ["decoder", "network"])
def test_culprits_among_500_on_two_replicas_are_rows(
    tmp_path: Path, ray_session: str, where: str, ways: tuple[str, ...], code: str, flags: tuple
):
    """Whatever they do, the culprits are rows, and the deaths of replicas are a handful."""
    culprits = {f"photo_{90 * n + 50:03d}_.jpg": (where, way) for n, way in enumerate(ways)}
    limits = ("--max-shard-images", 128, "--min-replicas", 2, "--max-error-rate", 0, *flags)
    run = _label_with(culprits, tmp_path, 500 - len(ways), *limits)
    assert _codes(run) == dict.fromkeys(culprits, code)
    # Two per shard tell that it is the network, one more tells which image.
    assert 1 <= _deaths(run) <= (2 * len(ways) if where == "decoder" else 4 * len(ways))
