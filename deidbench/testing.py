"""The promises of each plugin kind as checks, for our tests and those of plugin authors."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from .errors import DeidbenchError
from .geometry import chip_template
from .types import ImageMetric, Method, Recognizer, Similarity

CROWD = 30
"""More people for a method that needs a set: k-Same at its strongest hides each among 25."""


class BrokenPromiseError(DeidbenchError):
    """A plugin does not keep its contract (deidbench/types.py)."""


def check_method(method: Method, *, size: int = 160, device: str = "cpu") -> None:
    """Raise ``BrokenPromiseError`` unless a method keeps the contract of ``Method``."""
    faces = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    given = faces.clone()
    if hasattr(method, "fit"):
        crowd = torch.rand(CROWD, 3, size, size, generator=torch.Generator().manual_seed(1))
        crowd = torch.cat([faces, crowd.to(device)])
        method.fit(crowd, [f"person {row}" for row in range(len(crowd))])
    treated = method.deidentify(faces, seed=1)
    again = method.deidentify(faces, seed=1)
    _require(treated.shape == faces.shape, f"shape {tuple(faces.shape)}", tuple(treated.shape))
    _require(treated.dtype == faces.dtype, "dtype torch.float32", treated.dtype)
    _require(treated.device == faces.device, f"device {faces.device}", treated.device)
    _require(bool(torch.isfinite(treated).all()), "finite values", "NaN or infinity")
    low, high = float(treated.min()), float(treated.max())
    _require(low >= 0 and high <= 1, "values in [0, 1]", f"[{low:.4g}, {high:.4g}]")
    _require(torch.equal(treated, again), "the same output for the same seed", "another")
    _require(torch.equal(faces, given), "its input left as it was", "a changed input")
    _require(not treated.requires_grad, "output without gradient history", "requires_grad")
    strength = method.strength
    _require(strength is None or 0 <= strength <= 1, "strength None or in [0, 1]", strength)
    _require(isinstance(method.version, int), "an integer version", method.version)


def check_recognizer(recognizer: Recognizer, *, device: str = "cpu") -> None:
    """Raise ``BrokenPromiseError`` unless a recognizer keeps the contract of ``Recognizer``.

    One that says ``differentiable = False`` need not give gradients.
    """
    recognizer.to(device)
    chips = torch.rand(3, 3, 160, 160, generator=torch.Generator().manual_seed(0)).to(device)
    landmarks = chip_template(160).expand(3, 5, 2).to(device)
    chips.requires_grad_(True)
    embeddings = recognizer.embed(chips, landmarks)
    _require(embeddings.ndim == 2 and len(embeddings) == 3, "(3, D)", tuple(embeddings.shape))
    _require(embeddings.dtype == torch.float32, "float32", embeddings.dtype)
    _require(bool(torch.isfinite(embeddings).all()), "finite values", "NaN or infinity")
    one = torch.cat([recognizer.embed(chips[i : i + 1], landmarks[i : i + 1]) for i in range(3)])
    size = embeddings.abs().max().clamp_min(1)  # float32 has about 7 digits of it
    gap = float(((one - embeddings).abs().max() / size).detach())
    _require(gap < 1e-4, "the same embedding alone and in a batch", f"a gap of {gap:.2g}")
    if getattr(recognizer, "differentiable", True):
        _require(_reaches(embeddings, chips), "gradients that reach the image", "none")
    kept = recognizer.similarity in get_args(Similarity)
    _require(kept, f"one of {', '.join(get_args(Similarity))}", recognizer.similarity)
    _require(len(recognizer.weights_sha256) == 64, "a sha256", recognizer.weights_sha256)


def _reaches(embeddings: Tensor, chips: Tensor) -> bool:
    """Whether a change of the image would change the direction of its embedding."""
    if not embeddings.requires_grad:
        return False
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    loss = (embeddings * direction.to(embeddings)).sum()
    (gradient,) = torch.autograd.grad(loss, chips, allow_unused=True)
    return gradient is not None and bool((gradient != 0).any())


def check_image_metric(metric: ImageMetric) -> None:
    """Raise ``BrokenPromiseError`` unless an image metric keeps the contract of ``ImageMetric``.

    Values are finite, but for identical images, whose best value may be +inf (PSNR). NaN says that
    an image does not define the metric.
    """
    _require(
        getattr(metric, "kind", None) == "image", "kind 'image'", getattr(metric, "kind", None)
    )
    generator = torch.Generator().manual_seed(0)
    original = torch.rand(2, 3, 64, 64, generator=generator)
    noisy = (original + 0.2 * torch.rand(2, 3, 64, 64, generator=generator)).clamp(0, 1)
    values, same = metric(original, noisy), metric(original, original)
    _require(values.shape == (2,), "one value an image, (2,)", tuple(values.shape))
    _require(values.dtype == torch.float32, "float32", values.dtype)
    _require(not bool(torch.isinf(values).any()), "finite values", values.tolist())
    worst = torch.isinf(same) & ((same < 0) | (not metric.higher_is_better))
    _require(not bool(worst.any()), "a best value", same.tolist())
    best = (same >= values if metric.higher_is_better else same <= values) | (same - values).isnan()
    _require(bool(best.all()), "an image most like itself", (same.tolist(), values.tolist()))


def _require(kept: bool, expected: str, got: object) -> None:
    if not kept:
        raise BrokenPromiseError(f"expected {expected}, but got {got}; see deidbench/types.py.")
