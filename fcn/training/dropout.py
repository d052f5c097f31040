"""Dropout that belongs to the image: the same whichever worker shows it, beside which others."""

import hashlib
from collections.abc import Sequence

import torch
from torch import nn


class ImageDropout(nn.Dropout):
    """Drops elements as `nn.Dropout`; what is dropped follows from a seed per image.

    Call `expect` before every pass in training.
    """

    _seeds: Sequence[str] = ()
    _num_calls = 0

    def expect(self, seeds: Sequence[str]) -> None:
        """Name the images of the next pass.

        Args:
            seeds: One text per image.
        """
        self._seeds = seeds
        self._num_calls = 0

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        """Drop elements; in evaluation nothing.

        Args:
            features_NCHW: Those of the images that `expect` has named.
        """
        if not self.training or not self.p:
            return features_NCHW
        # A network may pass through one dropout several times.
        self._num_calls += 1
        kept = [self._draw(f"{seed} {self._num_calls}", features_NCHW[0]) for seed in self._seeds]
        return features_NCHW * torch.stack(kept) / (1 - self.p)

    def _draw(self, seed: str, features_CHW: torch.Tensor) -> torch.Tensor:
        number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big")
        generator = torch.Generator(features_CHW.device).manual_seed(number)
        drawn = torch.rand(features_CHW.shape, generator=generator, device=features_CHW.device)
        return (drawn >= self.p).to(features_CHW.dtype)


def seed_dropout(network: nn.Module) -> list[ImageDropout]:
    """Replace every dropout of a network; returns what stands there now.

    Args:
        network: Changed in place; it has no other tensors afterwards.
    """
    placed = []
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                placed.append(ImageDropout(child.p))
                setattr(module, name, placed[-1])
    return placed
