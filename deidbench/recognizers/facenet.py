"""FaceNet (Schroff, Kalenichenko, Philbin 2015, doi 10.1109/CVPR.2015.7298682) of facenet-pytorch.

The network class comes from the package facenet-pytorch; the weights are those of its release
v2.2.9, which David Sandberg trained in TensorFlow (github davidsandberg/facenet, MIT).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from deidbench.geometry import similarity_transform, warp

from ._base import FrozenRecognizer
from ._weights import fill, read_state_dict

# facenet-pytorch crops the box of MTCNN without a margin and stretches it to 160 x 160 px. Over
# 399 photographs of LFW outside the test people, the width of that box is 0.752 of its height
# (median; standard deviation 0.038), and MTCNN's landmarks fall here in the crop (median, made
# symmetric).
TEMPLATE = torch.tensor(
    [[42.50, 62.76], [116.50, 62.76], [79.50, 93.93], [46.75, 121.94], [112.25, 121.94]]
)
ASPECT = 0.752


class _Facenet(FrozenRecognizer):
    """Inception-ResNet v1 of 23.5 M parameters; 512-d of unit length, cosine."""

    template = TEMPLATE
    size = 160
    mean = (127.5, 127.5, 127.5)
    scale = (128.0, 128.0, 128.0)
    by_default = False

    def read(self, path: Path) -> nn.Module:
        """The network in a state dict of facenet-pytorch, its classifier left out."""
        from facenet_pytorch import InceptionResnetV1

        network: nn.Module = InceptionResnetV1(pretrained=None)
        return fill(network, read_state_dict(path, without="logits."))

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        """As ``FrozenRecognizer.embed``; the crop is stretched in width, as the box is."""
        stretch = chips.new_tensor([[1 / ASPECT], [1]])
        upright = self.template.to(chips) / stretch.T
        transforms = similarity_transform(landmarks.to(chips), upright)
        return self.forward(warp(chips, transforms * stretch, self.size))


class FacenetVGGFace2(_Facenet):
    """FaceNet trained on the 3.3 M faces of VGGFace2.

    Known accuracy: LFW 99.65 %, by its author.
    """

    name = "facenet-vggface2"
    asset = "facenet-vggface2"


class FacenetCasia(_Facenet):
    """FaceNet trained on the 0.5 M faces of CASIA-WebFace.

    Known accuracy: LFW 99.05 %, by its author.
    """

    name = "facenet-casia"
    asset = "facenet-casia"
