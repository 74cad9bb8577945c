"""What FaDeNet is trained with: stay close to the face, stop being recognised, change smoothly.

Terms, each a mean over the batch (x the face, y the treated face, e a critic's embedding):

1. pixel: Charbonnier distance of y and x.
2. perceptual: LPIPS(x, y), a mean of full and half size; cheap below the budget of the face's
   strength, dear above it; structure: 1 - SSIM(x, y), free up to its own budget.
3. identity: relu(cos(e(y), e(x)) - margin), for this photograph and another of the same person;
   the margin lies below the cosine at which the critic accepts strangers.
4. linked and adapted: the same for attackers who learn while the network does
   (``fadenet.adversary``); and a share of the faces is restored before critics see them
   (``fadenet.restorer``).
5. steered: 1 - cos(e(y), the likeness that the key names), a mix of other people's faces: treated
   faces then differ by their keys and not by who is on them.
6. collapsed: 1 - cos(e(y), the nearest of a few prototypes), which are faces of training: k-same
   (Newton, Sweeney, Malin, TKDE 2005, doi 10.1109/TKDE.2005.32) among embeddings. A change that
   pushes away can be undone; faces that have become alike cannot be told apart again.
7. smooth: unevenness of the change of colour and of the shift; and the mean shift, because
   moving the whole face fools a critic that trusts old landmarks, and protects nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from deidbench.metrics.ssim import local_terms

from .model import Change


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms and where their hinges lie."""

    pixel: float = 3.0
    perceptual: float = 0.5
    budget: float = 0.10
    """LPIPS (AlexNet) above which ``over_budget`` is paid too; times the strength of the face."""
    over_budget: float = 10.0
    structure_budget: float = 0.15
    """1 - SSIM above which ``over_structure`` is paid; times the strength of the face."""
    over_structure: float = 0.0
    """Weight of that excess: LPIPS forgives fine ripples that SSIM does not."""
    identity: float = 1.0
    far: float = 0.01
    """Share of strangers whom a critic accepts at the cosine that ``margin`` is counted from."""
    margin: float = -0.1
    """Added to that cosine: where a critic counts as fooled."""
    views: bool = True
    """Whether critics see faces as other cameras show them (``diversity.diversify``)."""
    filters: bool = True
    """Whether critics see faces through the filters that attackers purify with."""
    other_photo: bool = True
    """Whether a face is kept away from another photograph of the same person too."""
    features: float = 0.0
    """Weight of the likeness of a critic's middle layers to those of the clean face."""
    linked: float = 0.0
    """Weight of the attacker who compares two treated faces."""
    adapted: float = 0.0
    """Weight of the attacker who maps treated faces back to clean ones."""
    steered: float = 0.0
    """Weight of the pull towards the likeness that the key names."""
    collapsed: float = 0.0
    """Weight of the pull of all faces towards a few shared likenesses."""
    prototypes: int = 1
    """How many these are, at most 256; each face is pulled to the one that it is most like."""
    restored: float = 0.0
    """Share of the people whose faces critics see only after a network has tried to restore them
    that learns while this one does (``fadenet.restorer``)."""
    smooth: float = 15.0
    """Weight of the unevenness of the change."""
    steady: float = 1000.0
    """Weight of the squared mean shift."""


def charbonnier(treated: Tensor, original: Tensor, epsilon: float = 0.02) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) - epsilon over all values d of the difference, a scalar."""
    return ((treated - original).square() + epsilon**2).sqrt().mean() - epsilon


def perceptual_cost(distances: Tensor, strength: Tensor, config: LossConfig) -> Tensor:
    """Weighted LPIPS of each image (N,), with its hinge at the budget of its strength (N,)."""
    over = F.relu(distances - config.budget * strength)
    return (config.perceptual * distances + config.over_budget * over).mean()


def structural_cost(
    treated: Tensor, original: Tensor, strength: Tensor, config: LossConfig
) -> Tensor:
    """Weighted excess of 1 - SSIM over the budget of each image's strength (N,); a scalar."""
    luminance, structure = local_terms(original, treated)
    lost = 1 - (luminance * structure).mean((1, 2, 3))  # (N,)
    return config.over_structure * F.relu(lost - config.structure_budget * strength).mean()


def identity_hinge(embeddings: Tensor, references: Tensor, margin: float) -> Tensor:
    """relu(cos - margin), a mean over faces and references.

    Args:
        embeddings: (N, D) of the treated faces.
        references: (N, K, D), of the same people.
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
