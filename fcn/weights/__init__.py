"""Weights: a checkpoint's record and its files, and those that others have published."""


class CheckpointError(ValueError):
    """A checkpoint or its record can't be used; the message says why."""
