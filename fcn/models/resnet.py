"""torchvision's FCN on ResNet-50 and ResNet-101, whose published weights label real pictures.

It is not the paper's: the last two stages are dilated instead of strided, so that features have
stride 8; there are no skips; the scores are interpolated to the size of the image.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation import fcn_resnet50, fcn_resnet101

from fcn.geometry import Geometry
from fcn.interpolation import Interpolation, Window
from fcn.models.layers import ConvReLU, conv_add_relu, conv_relu
from fcn.models.network import Network, planar

_BUILDERS = {50: fcn_resnet50, 101: fcn_resnet101}


class FCNResNet(Network):
    """torchvision's network without its auxiliary head, which only training uses."""

    def __init__(self, num_classes: int, *, depth: int = 50, in_channels: int = 3) -> None:
        """Build the network, untrained, initialised as torchvision does.

        Args:
            num_classes: Score maps, background included.
            depth: 50 or 101.
            in_channels: Channels of the input.
        """
        super().__init__()
        whole = _BUILDERS[depth](
            weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False
        )
        self.backbone = whole.backbone
        self.classifier = whole.classifier
        if in_channels != 3:
            self.backbone.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        down = self._deepest_path()
        coarsest = Geometry().then(down)
        stride = int(coarsest.stride)
        # Interpolation between pixels' edges is a transposed convolution padded by half the
        # stride. At sizes that are no multiple of the stride it shifts by up to one score more.
        scores = coarsest.upsampled(2 * stride, stride, stride // 2)
        self.describe(
            down, Geometry(scores.stride, scores.centre, scores.receptive_field + 2 * stride)
        )

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:
        """Score images; see `Network.forward`."""
        scores = planar(self.classifier(self.backbone(images_NCHW)["out"]).float())
        size = (images_NCHW.shape[-2], images_NCHW.shape[-1])
        if window is None:
            return F.interpolate(scores, size, mode="bilinear", align_corners=False)
        height, width = window.picture
        source = (-(-height // self.stride), -(-width // self.stride))
        begin = (window.first[0] // self.stride, window.first[1] // self.stride)
        return Interpolation(source, window.picture).part(scores, begin, window.first, size)

    def fold(self) -> None:
        """Put every batch norm into the convolution before it, and blocks into fused ones."""
        fused = {
            name: _FoldedBlock(block)
            for name, block in self.backbone.named_modules()
            if isinstance(block, Bottleneck)
        }
        for name, block in fused.items():
            self.backbone.set_submodule(name, block)
        stem, head = self.backbone, self.classifier
        stem.conv1 = ConvReLU(fuse_conv_bn_eval(stem.conv1, stem.bn1))
        stem.bn1 = stem.relu = nn.Identity()
        head[0] = ConvReLU(fuse_conv_bn_eval(head[0], head[1]))
        head[1] = head[2] = nn.Identity()

    def _deepest_path(self) -> list[nn.Module]:
        path: list[nn.Module] = [self.backbone.conv1, self.backbone.maxpool]
        for module in self.backbone.modules():
            if isinstance(module, Bottleneck):
                path += [module.conv1, module.conv2, module.conv3]
        return [*path, *self.classifier]


class _FoldedBlock(nn.Module):
    """torchvision's `Bottleneck` whose batch norms are folded; the shortcut's bias is conv3's."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.bn1)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.bn2)
        self.conv3 = fuse_conv_bn_eval(block.conv3, block.bn3)
        self.shortcut = None
        if block.downsample is not None:
            shortcut = fuse_conv_bn_eval(block.downsample[0], block.downsample[1])
            self.conv3.bias = nn.Parameter(self.conv3.bias + shortcut.bias, requires_grad=False)
            shortcut.bias = None
            self.shortcut = shortcut

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        kept = features_NCHW if self.shortcut is None else self.shortcut(features_NCHW)
        features = conv_relu(self.conv2, conv_relu(self.conv1, features_NCHW))
        return conv_add_relu(self.conv3, features, kept)
