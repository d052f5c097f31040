"""Checkpoints in the background: written while the training goes on, one after the other.

A checkpoint can have gigabytes, and a fast card evaluates every few seconds. So the best weights
wait for the next checkpoint of the run, and both go to the store together, the weights first: what
a resumed run is told to be the best so far stands. What is small waits for nothing but its turn.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.training.run_folder import BEST, LAST, TrainingRun

File = tuple[str, bytes]


class Checkpoints:
    """Writes what one worker has, in its order, and never two at once."""

    def __init__(self, run: TrainingRun) -> None:
        """Write nothing yet.

        Args:
            run: Whose checkpoints they are.
        """
        self._run = run
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._best: bytes | None = None
        self._writing: list[Future[None]] = []

    def keep_best(self, weights: bytes) -> None:
        """Take the best weights so far; the next `write` writes them.

        Args:
            weights: A safetensors file.
        """
        self._best = weights

    def write(self, files: Sequence[File], last: bytes | None = None) -> None:
        """Write, as soon as what was given before is written; return at once but for a checkpoint.

        Args:
            files: URIs and contents that go first.
            last: What a killed run goes on from; the best weights are written with it. The one
                before is written by then, so that memory holds one of them.

        Raises:
            StoreError: Something that was given before could not be written.
        """
        best = None
        if last is None:
            self._raise_failures()
        else:
            self.wait()
            best, self._best = self._best, None
        self._writing.append(self._pool.submit(self._write, files, best, last))

    def wait(self) -> None:
        """Return when all is written. Raises StoreError."""
        while self._writing:
            self._writing.pop(0).result()

    def _raise_failures(self) -> None:
        while self._writing and self._writing[0].done():
            self._writing.pop(0).result()

    def close(self) -> None:
        """End; what is being written is written to its end."""
        self._pool.shutdown()

    def _write(self, files: Sequence[File], best: bytes | None, last: bytes | None) -> None:
        for uri, data in files:
            self._run.storage.write(uri, data)
        if best is not None:
            self._run.write_checkpoint(BEST, best)
        if last is not None:
            self._run.write_checkpoint(LAST, last)
