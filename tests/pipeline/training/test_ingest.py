"""The order of training images: the same for any number of workers, from any step on."""

from pipeline.training.ingest import Order, Share


def shown(world_size: int, steps: range, batch_size: int = 6) -> list[list[int]]:
    """Return the samples of each step, worker by worker."""
    order = Order(num_samples=10, seed=3)
    found = []
    for step in steps:
        indices: list[int] = []
        for rank in range(world_size):
            share = Share(rank, world_size, batch_size)
            indices += order.samples(share.first(step), share.number)
        found.append(indices)
    return found


def test_every_epoch_shows_every_sample_once():
    """Thirty samples in a row are three permutations, each another one, across steps."""
    row = [index for step in shown(1, range(5)) for index in step]

    epochs = [row[first : first + 10] for first in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_has_the_same_samples_on_any_number_of_workers():
    """One worker, two or three: together they show the same, in the same order."""
    assert shown(1, range(7)) == shown(2, range(7)) == shown(3, range(7))


def test_a_run_goes_on_amid_an_epoch():
    """The steps from the third on are the same whether the first two were done before or not."""
    assert shown(2, range(7))[2:] == shown(2, range(2, 7))


def test_another_seed_is_another_order():
    """Seeds shuffle differently."""
    assert Order(50, 0).samples(0, 50) != Order(50, 1).samples(0, 50)
