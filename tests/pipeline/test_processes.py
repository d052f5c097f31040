"""What the system says of processes and threads."""

import os
import threading
import time

from pipeline.processes import Stat, stat_of_process, stat_of_thread


def test_a_process_is_looked_up() -> None:
    """Its start does not change, its seconds of CPU grow, and there is none of number 0."""
    before = stat_of_process(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = stat_of_process(os.getpid())
    assert before is not None
    assert after is not None
    assert before.started == after.started
    assert after.cpu_s > before.cpu_s
    assert stat_of_process(0) is None


def test_a_thread_that_sleeps_is_told_from_one_that_would_run() -> None:
    """Only who wants a processor and gets none is starved."""
    sleeping = threading.Event()
    thread = threading.Thread(target=sleeping.wait)
    thread.start()
    try:
        while (found := stat_of_thread(thread.native_id or 0)) is None or found.state != "S":
            time.sleep(0.01)
        assert not found.starved(found.cpu_s, 1.0)
    finally:
        sleeping.set()
        thread.join()
    assert stat_of_thread(thread.native_id or 0) is None
    assert Stat("R", 1.5, 0).starved(1.0, 1.0)
    assert not Stat("R", 2.5, 0).starved(1.0, 1.0)
