"""What FaDeNet is trained with: stay close to the face, stop being recognised, change smoothly.

Terms, each a mean over the batch (x the face, y the treated face, e a critic's embedding):

1. pixel: Charbonnier distance of y and x.
2. perceptual: LPIPS(x, y), a mean of full and half size; cheap below a budget, dear above it.
3. identity: relu(cos(e(y), e(x)) - margin), for this photograph and another of the same person.
4. smooth: unevenness of the change of colour and of the shift; and the mean shift, because
   moving the whole face fools a critic that trusts old landmarks, and protects nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .model import Change


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms and where their hinges lie."""

    pixel: float = 3.0
    perceptual: float = 0.5
    budget: float = 0.10
    """LPIPS (AlexNet) above which ``over_budget`` is paid too."""
    over_budget: float = 10.0
    identity: float = 1.0
    margin: float = 0.0
    """Cosine at which a critic counts as fooled; strangers lie near 0."""
    smooth: float = 15.0
    """Weight of the unevenness of the change."""
    steady: float = 1000.0
    """Weight of the squared mean shift."""


def charbonnier(treated: Tensor, original: Tensor, epsilon: float = 0.02) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) - epsilon over all values d of the difference, a scalar."""
    return ((treated - original).square() + epsilon**2).sqrt().mean() - epsilon


def perceptual_cost(distances: Tensor, config: LossConfig) -> Tensor:
    """Weighted LPIPS of each image (N,), with its hinge at the budget; a scalar."""
    over = F.relu(distances - config.budget)
    return (config.perceptual * distances + config.over_budget * over).mean()


def identity_hinge(embeddings: Tensor, references: Tensor, margin: float) -> Tensor:
    """relu(cos - margin), a mean over faces and references.

    Args:
        embeddings: (N, D) of the treated faces. references: (N, K, D), clean photographs of the
            same people.
    """
    cosines: Tensor = F.cosine_similarity(embeddings[:, None], references, dim=-1)  # (N, K)
    return F.relu(cosines - margin).mean()


def unevenness(field: Tensor) -> Tensor:
    """Mean squared difference of neighbours, down plus across, of (N, C, H, W); a scalar.

    Squared, because an absolute one holds an untrained network at no change at all.
    """
    down = (field[..., 1:, :] - field[..., :-1, :]).square().mean()
    across = (field[..., 1:] - field[..., :-1]).square().mean()
    return down + across


def roughness(change: Change, config: LossConfig) -> Tensor:
    """Weighted unevenness of a change and its squared mean shift; a scalar."""
    # A shift of 1 % of the side disturbs about as much as a colour step of 0.1.
    rough = unevenness(change.colour) + unevenness(10 * change.shift)
    steady = change.shift.mean((2, 3)).square().mean()
    return config.smooth * rough + config.steady * steady


def diversify(faces: Tensor, landmarks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """What a camera, a codec or another detector might do before a recognizer sees the face.

    Critics that see many versions of a face leave less room for a change that fools them alone
    (input diversity: Xie et al., CVPR 2019, arXiv:1803.06978).

    Args:
        faces: (N, 3, H, W) in [0, 1]. landmarks: (N, 5, 2) in their pixels.
    Returns:
        The faces, perhaps smaller and out of [0, 1] by a little, and the landmarks in them.
    """
    faces = _erase(_tint(faces, random), random)
    if _chance(0.3, random):
        faces = F.avg_pool2d(faces, 3, stride=1, padding=1, count_include_pad=False)
    faces, landmarks = _shrink(faces, landmarks, random)
    if _chance(0.3, random):
        noise = torch.randn(faces.shape, generator=random).to(faces)
        faces = faces + 0.02 * noise
    return faces, _jitter(landmarks, random)


def _tint(faces: Tensor, random: Generator) -> Tensor:
    gain = 1 + 0.15 * torch.randn(len(faces), 3, 1, 1, generator=random).clamp(-2, 2) * 0.5
    bias = 0.05 * torch.randn(len(faces), 1, 1, 1, generator=random).clamp(-2, 2)
    return faces * gain.to(faces) + bias.to(faces)


def _erase(faces: Tensor, random: Generator) -> Tensor:
    """A grey square in some faces: the change must not live in one spot."""
    size = faces.shape[-1]
    mask = torch.ones(len(faces), 1, *faces.shape[-2:])
    for row in range(len(faces)):
        if _chance(0.3, random):
            side = int(torch.randint(size // 8, size // 4, (1,), generator=random))
            top, left = torch.randint(size // 8, size * 5 // 8, (2,), generator=random).tolist()
            mask[row, :, top : top + side, left : left + side] = 0
    mask = mask.to(faces)
    return faces * mask + 0.5 * (1 - mask)


def _shrink(faces: Tensor, landmarks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    if not _chance(0.5, random):
        return faces, landmarks
    old = faces.shape[-1]
    new = int(torch.randint(round(0.5 * old), old, (1,), generator=random))
    height = round(faces.shape[-2] * new / old)
    faces = F.interpolate(faces, (height, new), mode="bilinear", align_corners=False)
    # Pixel centres: 0 is the middle of the first pixel.
    return faces, (landmarks + 0.5) * (new / old) - 0.5


def _jitter(landmarks: Tensor, random: Generator) -> Tensor:
    """Detectors disagree by a few hundredths of the distance between the eyes."""
    eyes = (landmarks[:, :1] - landmarks[:, 1:2]).norm(dim=-1, keepdim=True)  # (N, 1, 1)
    points = torch.randn(landmarks.shape, generator=random).to(landmarks)
    whole = torch.randn(len(landmarks), 1, 2, generator=random).to(landmarks)
    moved: Tensor = landmarks + eyes * (0.02 * points + 0.04 * whole)
    return moved


def _chance(share: float, random: Generator) -> bool:
    return bool(torch.rand(1, generator=random) < share)
