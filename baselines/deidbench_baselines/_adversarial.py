"""What PGD and MI-FGSM share: whom they attack, how far they may go, and what is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench import plugins
from deidbench.errors import DeidbenchError
from deidbench.geometry import chip_template

from ._settings import checked_count, checked_strength

Bound = Literal["linf", "lpips"]
LARGEST_EPSILON = {"linf": 16 / 255, "lpips": 32 / 255}
LARGEST_LPIPS = 0.4
SIGNS_PER_ATTACK = 1.5
"""LPIPS of random signs over that of an attack of the same size: measured 1.3 to 2.4."""
HALVINGS = 8
BATCH = 16
"""Faces with gradients at once: what limits the memory."""


class Attack:
    """Moves each face away from itself, as recognizers see it, by a change that is hard to see.

    The loss is the similarity of the treated to the original face, summed over the recognizers:
    cosine, or minus the squared distance where a recognizer is used with a distance. Landmarks
    are those of an aligned chip. A face is never influenced by others of its batch: all start at
    the same random offset, since at the face itself the similarity has no gradient.

    The result has 8-bit values, as it will be published, and these keep the bound:

    - ``linf``: no value moves by more than epsilon. On 8-bit faces, below 1/255 nothing changes.
    - ``lpips``: LPIPS (AlexNet) of each face is at most the budget. Each face has an epsilon of
      its own, at most 32/255, whose attack is expected to use up the budget; where it exceeds
      that, it is scaled down by bisection. Where it stays below, it is left so.

    Args:
        strength: 16/255 s is epsilon, or 0.4 s the budget: by default (0.5) 8/255, or 0.2.
        against: recognizers, by name, separated by commas. They are loaded on first use.
        steps: gradient steps.
        bound: ``linf`` or ``lpips``.

    Raises:
        DeidbenchError: a setting is out of its range, or a recognizer is not installed.
    """

    name: str
    version = 1

    def __init__(
        self,
        strength: float | None = None,
        against: str = "sface",
        steps: int = 10,
        bound: str = "linf",
    ) -> None:
        self.strength: float | None = checked_strength(self.name, strength)
        self._share = self.strength
        self._specs = _specs(self.name, against)
        self.trained_against: Sequence[str] = tuple(map(_recorded_name, self._specs))
        self.steps = checked_count(self.name, "steps", steps)
        if bound not in get_args(Bound):
            raise DeidbenchError(f"{self.name}: bound must be linf or lpips, but got '{bound}'.")
        self.bound = cast(Bound, bound)

    @property
    def parameters(self) -> Mapping[str, int | float | str]:
        """Whom it attacks, in how many steps, within which bound."""
        return {"against": ",".join(self.trained_against), "steps": self.steps, "bound": self.bound}

    @property
    def fingerprint(self) -> str:
        """The weights that it attacks. Loads them.

        Raises:
            AssetUnavailableError: they cannot be had.
        """
        return ",".join(recognizer.weights_sha256 for recognizer in self._recognizers)

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, S, S) in [0, 1], aligned chips -> the same, of 8-bit values.

        Raises:
            DeidbenchError: weights cannot be had, or a recognizer gives no gradients.
        """
        if self._share == 0 or not len(faces):
            return faces.clone()
        for recognizer in self._recognizers:
            recognizer.to(faces.device)
        noise = torch.rand(faces.shape[1:], generator=torch.Generator().manual_seed(seed))
        start = (2 * noise - 1).to(faces)
        treated = [self._treated(chunk, start) for chunk in torch.split(faces, BATCH)]
        return torch.cat(treated)

    def _treated(self, faces: Tensor, start: Tensor) -> Tensor:
        largest = faces.new_full((len(faces), 1, 1, 1), LARGEST_EPSILON[self.bound])
        if self.bound == "linf":
            epsilon = largest * self._share
            return _levels_within(faces, self._attack(faces, start, epsilon), epsilon)
        budget = LARGEST_LPIPS * self._share
        signs = largest * start.sign()
        share, _ = self._within_budget(faces, signs, SIGNS_PER_ATTACK * budget)
        change = self._attack(faces, start, largest * share) - faces
        return self._within_budget(faces, change, budget)[1]

    def _attack(self, faces: Tensor, start: Tensor, epsilon: Tensor) -> Tensor:
        """Faces in [0, 1], each value at most epsilon (N, 1, 1, 1) from the original.

        ``start`` (3, S, S) in [-1, 1] is the direction of the first offset.
        """
        raise NotImplementedError

    def _gradient(self, treated: Tensor, enrolled: Sequence[Tensor]) -> Tensor:
        """Of each face's similarity to itself: where it looks more like the original."""
        with torch.enable_grad():
            treated = treated.detach().requires_grad_()
            pairs = zip(self._recognizers, self._embeddings(treated), enrolled, strict=True)
            similarity = torch.stack([_similarity(*pair).sum() for pair in pairs]).sum()
            return torch.autograd.grad(similarity, treated)[0]

    def _embeddings(self, faces: Tensor) -> list[Tensor]:
        landmarks = chip_template(faces.shape[-1]).to(faces).expand(len(faces), 5, 2)
        return [recognizer.embed(faces, landmarks) for recognizer in self._recognizers]

    def _enrolled(self, faces: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self._embeddings(faces)

    def _within_budget(self, faces: Tensor, change: Tensor, budget: float) -> tuple[Tensor, Tensor]:
        """The largest share of each change that keeps the budget, (N, 1, 1, 1), and its result.

        The result has 8-bit values, and is what LPIPS is measured on.
        """
        metric = self._lpips.to(faces.device)
        kept, low = faces.clone(), faces.new_zeros(len(faces), 1, 1, 1)
        high = share = torch.ones_like(low)
        for _ in range(HALVINGS):
            candidate = ((faces + share * change).clamp(0, 1) * 255).round() / 255
            fits = (metric(faces, candidate) <= budget)[:, None, None, None]
            kept = torch.where(fits, candidate, kept)
            low, high = torch.where(fits, share, low), torch.where(fits, high, share)
            share = (low + high) / 2
        return low, kept

    @cached_property
    def _recognizers(self) -> list[Any]:
        built = [plugins.build("recognizers", spec) for spec in self._specs]
        for recognizer, promised in zip(built, self.trained_against, strict=True):
            if not getattr(recognizer, "differentiable", True):
                raise DeidbenchError(
                    f"{self.name}: recognizer '{promised}' gives no gradients; attack another."
                )
            if recognizer.name != promised:
                raise DeidbenchError(
                    f"{self.name}: recognizer '{promised}' calls itself '{recognizer.name}', so "
                    "that it would count as a stranger; use that name."
                )
        return built

    @cached_property
    def _lpips(self) -> Any:
        return plugins.build("metrics", "lpips")


def projected(treated: Tensor, faces: Tensor, epsilon: Tensor | float) -> Tensor:
    """The nearest values in [0, 1] that are at most epsilon from the faces."""
    return torch.clamp(treated, (faces - epsilon).clamp(min=0), (faces + epsilon).clamp(max=1))


def _specs(method: str, against: str) -> list[str]:
    specs = [spec.strip() for spec in str(against).split(",")]
    if len(set(specs)) < len(specs) or not all(specs):
        raise DeidbenchError(
            f"{method}: against must name each recognizer once, separated by commas, but got "
            f"'{against}'."
        )
    for spec in specs:
        plugins.require("recognizers", plugins.split_argument(spec)[0])
    return specs


def _recorded_name(spec: str) -> str:
    """The name that a recognizer has in records: of a file, no more than its stem."""
    name, argument = plugins.split_argument(spec)
    is_file = argument is not None and argument.endswith(".onnx")
    return f"{name}:{PurePath(argument).stem}" if argument and is_file else spec


def _similarity(recognizer: Any, one: Tensor, other: Tensor) -> Tensor:
    """(N,): the larger, the more alike. The square has a gradient where both are equal."""
    if recognizer.similarity == "cosine":
        return F.cosine_similarity(one, other)
    return -(one - other).square().sum(1)


def _levels_within(faces: Tensor, treated: Tensor, epsilon: Tensor | float) -> Tensor:
    """8-bit values at most epsilon from the faces; where there are none, the face's own value."""
    slack = 1e-4  # of a level, for the rounding errors of float32
    lowest = ((faces - epsilon).clamp(min=0) * 255 - slack).ceil()
    highest = ((faces + epsilon).clamp(max=1) * 255 + slack).floor()
    nearest = torch.clamp((treated * 255).round(), lowest, highest) / 255
    return torch.where(lowest <= highest, nearest, faces)
