"""The network: fully convolutional networks, their weights, and one replica that runs them.

network = fcn.build("fcn8s_vgg16", num_classes=21)
network, record = fcn.load("s3://bucket/model.safetensors")
predictions = fcn.Predictor(network, record).predict(images)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Large tensors lie in huge pages, unless the user says 0: without them a CPU spends a third of its
# time on mapping and zeroing small ones (docs/performance.md). PyTorch reads it at its first
# tensor, and has no call for it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:  # importing these loads torch
    from fcn.inference.predictor import Predictor
    from fcn.models import build
    from fcn.weights.loading import load
else:
    _HOMES = {
        "Predictor": "fcn.inference.predictor",
        "build": "fcn.models",
        "load": "fcn.weights.loading",
    }

    def __getattr__(name: str) -> object:
        """Find a name where it lives: torch is loaded by its first use and not by the package.

        Planning and verifying know the checkpoint records and run where no torch is installed.
        """
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


__all__ = ["Predictor", "build", "load"]
