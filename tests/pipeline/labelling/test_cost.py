"""What shards cost: it adds up, travels with the commit, and is put into words."""

import time

import pytest

from pipeline.labelling.advice import cost_lines, price_per_thousand, verdict
from pipeline.labelling.cost import Work, WorkSum, WorkTotals


def work(
    replica: str, started_at: float, ended_at: float, attempt: int = 1, **seconds: float
) -> Work:
    host = replica.partition(":")[0]
    return Work(
        attempt=attempt,
        seconds=seconds,
        hosts={host: (started_at, ended_at)},
        replica=replica,
        started_at=started_at,
        ended_at=ended_at,
    )


def totals(*parts: Work) -> WorkTotals:
    total = WorkSum()
    for part in parts:
        total.add(part)
    return total.totals()


def test_work_comes_back_from_the_metadata_of_a_commit():
    """What is written is what is read; a record without any has cost nothing that is known."""
    spent = Work(seconds={"fetch": 1.5}, retries={"body": 2}, read_bytes=7, replica="a:1")

    assert Work.of_metadata(spent.metadata()) == spent
    assert Work.of_metadata({b"write_id": b"x"}) == Work()
    assert Work.of_metadata(None) == Work()


def test_sums_are_exact():
    """Seconds, bytes, retries and back-offs add up over shards."""
    one = Work(seconds={"fetch": 1, "network": 2}, retries={"body": 1}, read_bytes=3, backoffs=1)
    two = Work(seconds={"network": 4}, retries={"body": 2, "conflict": 1}, written_bytes=5)

    found = totals(one, two)

    assert found.seconds == {"fetch": 1, "decode": 0, "network": 6, "encode": 0, "write": 0}
    assert found.retries == {"body": 3, "conflict": 1}
    assert (found.read_bytes, found.written_bytes, found.backoffs) == (3, 5, 1)


def test_the_busy_share_is_of_the_time_that_replicas_are_there():
    """Two replicas, 10 s each, 15 s of network: three quarters; a host counts once."""
    found = totals(
        work("host:1", 0, 4, network=4),
        work("host:1", 4, 10, network=3),
        work("host:2", 0, 10, network=8),
    )

    assert found.num_replicas == 2
    assert found.replica_seconds == 20
    assert found.node_seconds == 10
    assert found.busy_share == 0.75


def test_a_device_that_waits_is_not_busy():
    """Where a record says how long the device has computed, that counts and not the waiting."""
    waiting = work("host:1", 0, 5, network=4)
    waiting.device_seconds = 1.0

    assert totals(waiting, work("host:1", 5, 10, network=4)).busy_share == 0.5


def test_a_pause_between_two_attempts_costs_no_node_time():
    """A run that was stopped for a night and went on is not billed for the night.

    Time in which a host waited between two shards of one attempt is billed.
    """
    found = totals(
        work("host:1", 0, 5, network=5),
        work("host:1", 8, 10, network=2),
        work("host:2", 1000, 1020, attempt=2, network=5),
    )

    assert found.node_seconds == 30


def test_a_node_that_only_reads_costs_its_time():
    """Steps count to the host that they ran on, with or without a replica."""
    spent = Work()
    with spent.timed("fetch"):
        time.sleep(0.01)

    assert spent.seconds.keys() == {"fetch"}
    [(first, last)] = spent.hosts.values()
    assert 0.01 <= last - first == pytest.approx(spent.seconds["fetch"], abs=1e-4)
    assert totals(spent).node_seconds == pytest.approx(last - first, abs=0.001)
    assert totals(spent).replica_seconds == 0


def test_a_price_is_that_of_the_nodes_time():
    """Half an hour of two nodes at 3 is 3, for 6,000 images half of that a thousand."""
    found = totals(work("a:1", 0, 1800, network=1), work("b:1", 0, 1800, network=1))

    assert price_per_thousand(found, 6000, 3.0) == pytest.approx(0.5)
    assert price_per_thousand(found, 6000, None) is None
    assert price_per_thousand(found, 0, 3.0) is None
    lines = "\n".join(cost_lines(found, 6000, 3.0))
    assert "0.5000 per thousand images" in lines
    # The page's tile calls the same number the same.
    assert f"{6000 / found.work_seconds:,.1f} images/s without pauses and start-up" in lines
    # Not that replicas are busy, or idle: they also decode and encode.
    assert f"whose networks computed {found.busy_share:.0%} of " in lines


@pytest.mark.parametrize(
    ("seconds", "backoffs", "words"),
    [
        ({"network": 95, "decode": 50, "fetch": 30}, 0, "the networks hold it back"),
        ({"network": 20, "decode": 30, "encode": 20, "fetch": 10}, 0, "decoding and encoding"),
        ({"network": 10, "decode": 10, "fetch": 200, "write": 20}, 0, "reading and writing"),
        ({"network": 30, "decode": 10, "fetch": 10}, 0, "too few shards"),
        ({"network": 30, "decode": 10, "fetch": 10}, 4, "memory holds it back"),
    ],
    ids=["network", "processor", "transfer", "waiting", "memory"],
)
def test_the_verdict_names_what_to_change(seconds: dict[str, float], backoffs: int, words: str):
    """Each cause has its own words, with the setting that helps."""
    spent = Work(seconds=seconds, backoffs=backoffs, replica="a:1", started_at=0, ended_at=100)

    assert words in verdict(totals(spent))


def test_a_device_that_others_use_is_told_from_waiting():
    """Where the network is at work and its device is not, no setting of shards is to blame."""
    spent = Work(
        seconds={"network": 95}, device_seconds=30, replica="a:1", started_at=0, ended_at=100
    )

    assert "other work on the same CPUs or GPU" in verdict(totals(spent))


def test_a_short_run_gets_no_advice():
    """What start and end decide says nothing of the settings."""
    spent = Work(seconds={"network": 1}, replica="a:1", started_at=0, ended_at=10)

    assert verdict(totals(spent)) == "too short to say what holds it back"


def test_a_run_of_an_earlier_version_says_nothing_of_its_cost():
    """Without a replica's time there is nothing to tell."""
    assert cost_lines(totals(Work()), 10, 1.0) == []
