"""Training images: in one order for any number of workers, from any step on."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.images.augment import Augment
from pipeline.images.ground_truth import Coding
from pipeline.inputs.data_set import as_table
from pipeline.inputs.samples import Sample
from pipeline.labelling.mask_tar import pack, spans_of
from pipeline.store.storage import Storage
from pipeline.training.ingest import Load, Order, Reader, Share, _row, samples, steps
from pipeline.training.plan import _hash

_COLUMNS = ("image_uri", "mask_uri")


def shown(world_size: int, steps: range, batch_size: int = 6) -> list[list[int]]:
    """Return the samples of each step, worker by worker."""
    order = Order(num_samples=10, seed=3)
    found = []
    for step in steps:
        indices: list[int] = []
        for rank in range(world_size):
            places = Share(rank, world_size, batch_size).places(step)
            assert len(places) in (batch_size // world_size, -(-batch_size // world_size))
            indices += order.samples(places.start, len(places))
        found.append(indices)
    return found


def test_every_epoch_shows_every_sample_once():
    """Thirty samples in a row are three permutations, each another one, across steps."""
    row = [index for step in shown(1, range(5)) for index in step]

    epochs = [row[first : first + 10] for first in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_has_the_same_samples_on_any_number_of_workers():
    """One worker or up to six: together they show the same, in the same order, evenly or not."""
    assert all(shown(workers, range(7)) == shown(1, range(7)) for workers in range(2, 7))


def test_a_run_goes_on_amid_an_epoch():
    """The steps from the third on are the same whether the first two were done before or not."""
    assert shown(2, range(7))[2:] == shown(2, range(2, 7))


def test_another_seed_is_another_order():
    """Seeds shuffle differently."""
    assert Order(50, 0).samples(0, 50) != Order(50, 1).samples(0, 50)


def test_a_step_is_told_what_to_load_and_nothing_else():
    """Of a million samples a task gets the few of its steps, in a few hundred bytes each."""
    number = 1_000_000
    table = pa.table(
        {name: [f"s3://data/{name}/{i}.png" for i in range(number)] for name in _COLUMNS}
    )
    row = _row(table, Order(number, 0), range(8, 16))

    assert [showing.place for showing in row] == list(range(8, 16))
    assert all(one.sample.image_uri.startswith("s3://data/image_uri/") for one in row)
    assert len(pickle.dumps(row)) < 8 * 300


def test_rows_come_in_order_however_long_they_take(ray_session: str, tmp_path: Path):
    """Forty steps over tasks that end in any order: each batch has the images of its places."""
    table = as_table([_drawn(tmp_path, index) for index in range(10)])
    load = Load(_reader(), Augment(), seed=3)

    found = list(steps(load, table, Share(0, 1, 3), first=2, last=42))

    order = Order(10, 3)
    for step, batch in enumerate(found, start=2):
        places = range(3 * step, 3 * step + 3)
        assert list(batch.places) == list(places)
        assert [int(image[0, 0, 0]) for image in batch.images] == order.samples(3 * step, 3)
    assert len(found) == 40


def test_truths_are_read_out_of_a_tar(ray_session: str, tmp_path: Path):
    """A sample whose truth lies in a tar is loaded as any other, beside one that does not."""
    drawn = [_drawn(tmp_path, index) for index in range(3)]
    tar = pack({f"{index}.png": Path(drawn[index].mask_uri).read_bytes() for index in (1, 2)})
    (tmp_path / "masks.tar").write_bytes(tar)
    in_tar = [
        Sample(one.image_uri, str(tmp_path / "masks.tar"), span.start, len(span))
        for one, span in zip(drawn[1:], spans_of(tar).values(), strict=True)
    ]
    table = as_table([drawn[0], *in_tar])

    found = list(samples(Load(_reader(), Augment(), seed=3), table))

    assert [(int(image[0, 0, 0]), int(truth[0, 0])) for image, truth in found] == [
        (index, index) for index in range(3)
    ]


def test_samples_without_tars_are_hashed_as_before():
    """The fingerprint of a training whose truths are files is that of versions without tars."""
    some = [Sample(f"s3://a/{index}.jpg", f"s3://b/{index}.png") for index in range(3)]
    text = "".join(
        f"{uri}\0" for uri in [*(one.image_uri for one in some), *(one.mask_uri for one in some)]
    )
    assert _hash(as_table(some)) == hashlib.sha256(text.encode()).hexdigest()
    in_tar = [*some[:2], replace(some[2], mask_offset=512, mask_bytes=90)]
    assert _hash(as_table(in_tar)) != _hash(as_table(some))


def test_a_sample_that_is_gone_ends_the_training_with_its_name(ray_session: str, tmp_path: Path):
    """What can't be read any more is an error of the input with the URI of the image."""
    samples = [_drawn(tmp_path, index) for index in range(3)]
    Path(samples[1].image_uri).write_bytes(b"no image")

    with pytest.raises(InputError, match=r"image1\.png"):
        list(steps(Load(_reader(), Augment(), 0), as_table(samples), Share(0, 1, 3), 0, 5))


def _reader() -> Reader:
    return Reader(Storage(), Coding("indices", 10), 10_000, 2)


def _drawn(folder: Path, index: int) -> Sample:
    image, truth = folder / f"image{index}.png", folder / f"truth{index}.png"
    Image.new("RGB", (4, 4), (index, 0, 0)).save(image)
    Image.new("L", (4, 4), index).save(truth)
    return Sample(str(image), str(truth))
