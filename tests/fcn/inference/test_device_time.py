"""The time that a device computes."""

import time

import torch

from fcn.inference.device_time import DeviceTime


def test_waiting_is_no_work_of_a_cpu() -> None:
    """A thread that computes counts as busy for as long, one that sleeps does not."""
    clock = DeviceTime(torch.device("cpu"))
    before = time.thread_time()
    with clock.measure():
        torch.randn(400, 400) @ torch.randn(400, 400)
    computed = clock.seconds()
    assert 0 < computed <= time.thread_time() - before
    with clock.measure():
        time.sleep(0.2)
    assert clock.seconds() - computed < 0.1


def test_what_is_not_measured_is_not_counted() -> None:
    """Work outside of the blocks adds nothing."""
    clock = DeviceTime(torch.device("cpu"))
    torch.randn(400, 400) @ torch.randn(400, 400)
    assert clock.seconds() == 0.0
