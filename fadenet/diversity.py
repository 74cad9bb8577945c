"""What happens to a face between its treatment and a recognizer, with gradients.

Critics that see many versions of a face leave less room for a change that fools them alone
(input diversity: Xie et al., CVPR 2019, arXiv:1803.06978), and a change that lives through
filters while it is trained lives through an attacker's filters later.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)  # fmt: skip
"""Quantisation of brightness at quality 50 (ITU-T T.81, table K.1), rows by vertical frequency."""
CHROMINANCE = torch.full((8, 8), 99)
CHROMINANCE[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
)
"""Quantisation of colour at quality 50 (table K.2)."""
YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
"""RGB to luma and two chroma (JFIF)."""


def diversify(
    faces: Tensor,
    landmarks: Tensor,
    random: Generator,
    *,
    views: bool = True,
    filters: bool = True,
) -> tuple[Tensor, Tensor]:
    """What a camera, a codec or another detector might do before a recognizer sees the face.

    Args:
        faces: (N, 3, H, W) in [0, 1]. landmarks: (N, 5, 2) in their pixels.
        views: whether faces are tinted, covered in one spot, smaller, and their landmarks off.
        filters: whether half of them are smoothed, grainy, or compressed.
    Returns:
        The faces, perhaps smaller and out of [0, 1] by a little, and the landmarks in them.
    """
    with torch.autocast(faces.device.type, enabled=False):
        if views:
            faces = _erase(_tint(faces, random), random)
        if filters and _chance(0.5, random):
            faces = FILTERS[_whole(0, len(FILTERS), random)](faces, random)
        if views:
            faces, landmarks = _shrink(faces, landmarks, random)
            landmarks = _jitter(landmarks, random)
        return faces, landmarks


def jpeg(faces: Tensor, quality: int) -> Tensor:
    """Baseline JPEG with halved colour, rounding passed straight through backwards.

    Args:
        faces: (N, 3, H, W) in [0, 1]. quality: 1 to 100, as libjpeg counts it.
    Returns:
        The same shape, in [0, 1].
    """
    height, width = faces.shape[-2:]
    padded = F.pad(faces * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    planes = torch.einsum("ij,njhw->nihw", YCC.to(faces), padded)
    luma = _coded(planes[:, :1] - 128, LUMINANCE, quality) + 128
    chroma = _coded(F.avg_pool2d(planes[:, 1:], 2), CHROMINANCE, quality)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    back = torch.linalg.inv(YCC).to(faces)
    decoded = torch.einsum("ij,njhw->nihw", back, torch.cat([luma, chroma], 1))
    return (decoded[..., :height, :width] / 255).clamp(0, 1)


def _coded(planes: Tensor, table: Tensor, quality: int) -> Tensor:
    """Planes (N, C, H, W) through the cosine transform of 8 x 8 blocks, quantised."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = ((table * scale + 50) / 100).floor().clamp(1, 255).to(planes)
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8)
    cosines = _cosines().to(planes)
    found = torch.einsum("ui,ncyixj,vj->ncyuxv", cosines, blocks, cosines) / steps[:, None]
    found = (found + (found.round() - found).detach()) * steps[:, None]
    return torch.einsum("ui,ncyuxv,vj->ncyixj", cosines, found, cosines).reshape(planes.shape)


@lru_cache
def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values, (8, 8)."""
    place = torch.arange(8)
    table = torch.cos(torch.pi * place[:, None] * (2 * place + 1) / 16) / 2
    table[0] /= 2**0.5
    return table


def median(faces: Tensor) -> Tensor:
    """The median of 3 x 3 neighbours, each colour apart; the border is repeated."""
    count, channels, height, width = faces.shape
    windows = F.unfold(F.pad(faces, (1, 1, 1, 1), mode="replicate"), 3)
    middle: Tensor = windows.view(count, channels, 9, height, width).median(2).values
    return middle


def _compressed(faces: Tensor, random: Generator) -> Tensor:
    return jpeg(faces, _whole(50, 96, random))


def _median(faces: Tensor, random: Generator) -> Tensor:
    return median(faces)


def _smooth(faces: Tensor, random: Generator) -> Tensor:
    for _ in range(_whole(1, 4, random)):  # box after box: towards a Gaussian
        faces = F.avg_pool2d(faces, 3, stride=1, padding=1, count_include_pad=False)
    return faces


def _grain(faces: Tensor, random: Generator) -> Tensor:
    noise = torch.randn(faces.shape, generator=random).to(faces)
    return faces + 0.02 * noise


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
            side = _whole(size // 8, size // 4, random)
            top, left = (_whole(size // 8, size * 5 // 8, random) for _ in range(2))
            mask[row, :, top : top + side, left : left + side] = 0
    mask = mask.to(faces)
    return faces * mask + 0.5 * (1 - mask)


def _shrink(faces: Tensor, landmarks: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    if not _chance(0.5, random):
        return faces, landmarks
    old = faces.shape[-1]
    new = _whole(round(0.4 * old), old, random)
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


def _whole(low: int, high: int, random: Generator) -> int:
    """A whole number from low to high - 1."""
    return int(torch.randint(low, high, (1,), generator=random))


FILTERS = (_smooth, _grain, _median, _compressed)
"""One of them, drawn anew, is between the face and the critic."""
