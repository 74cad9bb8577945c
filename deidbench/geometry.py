"""Where a face is: landmark templates, similarity transforms and warps, batched in torch.

Coordinates are pixels with the centre of the top left pixel at (0, 0).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CHIP_SIZE = 160

# The 112 x 112 template that ArcFace-style recognizers share (Deng et al. 2019, insightface).
ARC112 = torch.tensor(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def chip_template(size: int = CHIP_SIZE) -> Tensor:
    """Where the 5 landmarks lie in a face chip, (5, 2).

    A 160 px chip is ARC112 enlarged 1.25 times and moved by (10, 6): about 44 px between the
    eyes, so that the crops of all our recognizers lie inside (dlib's reaches lowest, ARC112 is
    the widest).
    """
    return (ARC112 * 1.25 + torch.tensor([10.0, 6.0])) * (size / CHIP_SIZE)


def inner_face_box(size: int = CHIP_SIZE) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of brows to chin, cheek to cheek, in an aligned chip."""
    scale = size / CHIP_SIZE
    return round(32 * scale), round(40 * scale), round(128 * scale), round(148 * scale)


def similarity_transform(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares rotation, scale and shift that carries source to target points.

    Args:
        source: (N, P, 2). target: (P, 2) or (N, P, 2).
    Returns:
        (N, 2, 3) such that ``target ~ A[:, :, :2] @ source + A[:, :, 2]``. No reflection.
    Source: Umeyama 1991, in the closed form that the plane allows.
    """
    target = target.to(source).expand_as(source)
    source_mean, target_mean = source.mean(1), target.mean(1)
    s, t = source - source_mean[:, None], target - target_mean[:, None]
    norm = s.square().sum((1, 2)).clamp_min(1e-12)
    a = (s * t).sum((1, 2)) / norm
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / norm
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    return torch.cat([linear, shift[..., None]], -1)


def warp(images: Tensor, transforms: Tensor, size: int) -> Tensor:
    """Resample images under similarity transforms, differentiable in the images.

    An image that shrinks much is halved smoothly first, each on its own account, against aliasing.

    Args:
        images: (N, 3, H, W). transforms: (N, 2, 3), from image to output pixels.
    Returns:
        (N, 3, size, size), bilinear; outside the image is black.
    """
    if not len(images):
        return images.new_zeros(0, images.shape[1], size, size)
    halvings = _halvings(transforms, min(images.shape[-2:]))
    if not bool(halvings.any()):
        return _resample(images, transforms, size)
    output = images.new_zeros(len(images), images.shape[1], size, size)
    for count in sorted(set(halvings.tolist())):
        rows = torch.nonzero(halvings == count)[:, 0]
        smaller, adapted = _halve(images[rows], transforms[rows], int(count))
        output = output.index_copy(0, rows, _resample(smaller, adapted, size))
    return output


def _resample(images: Tensor, transforms: Tensor, size: int) -> Tensor:
    height, width = images.shape[-2:]
    linear = torch.linalg.inv(transforms[:, :, :2])
    axis = torch.arange(size, dtype=images.dtype, device=images.device)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
    points = (grid - transforms[:, None, :, 2]) @ linear.transpose(1, 2)
    extent = torch.tensor([width - 1, height - 1], dtype=images.dtype, device=images.device)
    points = (points * 2 / extent - 1).reshape(-1, size, size, 2)
    return F.grid_sample(images, points, mode="bilinear", padding_mode="zeros", align_corners=True)


def align(images: Tensor, landmarks: Tensor, template: Tensor, size: int) -> Tensor:
    """Warp each face so that its landmarks (N, 5, 2) lie on a template (5, 2)."""
    kind = "cuda" if images.is_cuda else "cpu"  # not every torch knows autocast elsewhere
    with torch.autocast(kind, enabled=False):  # places need all their digits
        return warp(images, similarity_transform(landmarks.to(images), template), size)


def apply(transforms: Tensor, points: Tensor) -> Tensor:
    """Carry points (N, P, 2) through transforms (N, 2, 3)."""
    return points @ transforms[:, :, :2].transpose(1, 2) + transforms[:, None, :, 2]


def _halvings(transforms: Tensor, side: int) -> Tensor:
    """How often each image is halved before its warp, (N,) integers.

    The step is at a scale of 0.4, away from the ratios 1/2 and 1/4 of usual chip sizes, where
    rounding would decide.
    """
    scale = torch.linalg.det(transforms[:, :, :2].detach()).clamp_min(1e-12).sqrt()
    wanted = torch.floor(torch.log2(0.8 / scale)).clamp_min(0)
    return wanted.clamp_max(math.floor(math.log2(max(side, 4) / 2))).long()


def _halve(images: Tensor, transforms: Tensor, count: int) -> tuple[Tensor, Tensor]:
    linear, shift = transforms[:, :, :2], transforms[:, :, 2]
    for _ in range(count):
        images = F.avg_pool2d(images, 2)
        # The centre of a halved pixel lies half an old pixel further in.
        shift, linear = shift + linear.sum(-1) * 0.5, linear * 2
    return images, torch.cat([linear, shift[..., None]], -1)
