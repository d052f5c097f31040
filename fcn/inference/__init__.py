"""Inference: images to masks, whatever their size and the memory that there is."""


class DeviceError(RuntimeError):
    """The device can't be used: its driver is missing or too old, or it is full."""
