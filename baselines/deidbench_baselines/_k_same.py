"""What k-Same-Pixel and k-Same-Eigen share: who is averaged with whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench.errors import DeidbenchError

from ._settings import checked_count, checked_strength, require_one

SKETCH = 16
"""Pixels along a side that are enough to find a face of the set again."""


class Space(Protocol):
    """Where faces are compared and averaged."""

    def project(self, faces: Tensor) -> Tensor:
        """(N, D) -> coordinates (N, C)."""

    def restore(self, coordinates: Tensor) -> Tensor:
        """(N, C) -> faces (N, D)."""


class KSame:
    """Shows the average of at least k people in place of each of them.

    Newton, Sweeney, Malin 2005, "Preserving Privacy by De-Identifying Face Images", IEEE TKDE
    17(2), doi 10.1109/TKDE.2005.32. The paper has one image a person. Here a person is the mean
    of their images: people are put into clusters of at least k, and all images of a person become
    the same average of the people in their cluster. So no matcher can name more than one in k
    people rightly, whatever it has learnt: it sees one image for all k.

    Clusters: the first person left (by name; the paper draws one at random) and the k - 1 nearest
    to them, until fewer than 2 k people are left, who are the last cluster.

    Args:
        strength: moves k = 25^s, rounded: 0.5 (default) is 5, 1 is 25, 0 is 1, which shows the
            mean of the person's own images and protects nobody.
        k: the least number of people in a cluster, in place of a strength.

    Raises:
        DeidbenchError: a setting is out of its range, or strength and k are both given.
    """

    name: str
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None, k: int | None = None) -> None:
        require_one(self.name, "k", strength, k)
        self.strength: float | None = None
        if k is None:
            self.strength = checked_strength(self.name, strength)
            k = round(25**self.strength)
        self.k = checked_count(self.name, "k", k)
        self._surrogates: Tensor | None = None

    @property
    def parameters(self) -> Mapping[str, int | float | str]:
        """k."""
        return {"k": self.k}

    @property
    def rank_1_bound(self) -> float:
        """1/k: no matcher names a larger share of the people rightly, with one image of each."""
        return 1 / self.k

    def fit(self, faces: Tensor, subjects: Sequence[str]) -> None:
        """Cluster the people of the set that is to be published.

        Args:
            faces: (N, 3, H, W) in [0, 1]. subjects: N names.
        Raises:
            DeidbenchError: fewer than k people are shown.
        """
        people = {name: row for row, name in enumerate(sorted(set(subjects)))}
        if len(people) < self.k:
            raise DeidbenchError(
                f"{self.name}: the set must show at least k = {self.k} people, but it shows "
                f"{len(people)}; lower k or add people."
            )
        person = torch.tensor([people[name] for name in subjects], device=faces.device)
        means = _means(faces.flatten(1), person)
        space = self._space(means)
        points = space.project(means)
        cluster = _clusters(points, self.k)
        averages = space.restore(_means(points, cluster)).clamp(0, 1)
        self._surrogates = averages.reshape(-1, *faces.shape[1:])
        self._sketches, self._cluster = _sketches(faces), cluster[person]

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the surrogate of the fitted face that each is nearest to.

        For a face of the set that is itself. The seed changes nothing.

        Raises:
            DeidbenchError: ``fit`` was not called, or with faces of another size.
        """
        if self._surrogates is None or faces.shape[1:] != self._surrogates.shape[1:]:
            raise DeidbenchError(
                f"{self.name}: it treats the faces of the set that it was fitted on; call fit "
                "first, with faces of the same size."
            )
        sketches = self._sketches.to(faces)
        # Without matrix products, whose rounding errors exceed the distance of near duplicates.
        exact = "donot_use_mm_for_euclid_dist"
        nearest = torch.cdist(_sketches(faces), sketches, compute_mode=exact).argmin(1)
        return self._surrogates.to(faces)[self._cluster.to(faces.device)[nearest]]

    def _space(self, people: Tensor) -> Space:
        """The space for people (P, D), a mean face each."""
        raise NotImplementedError


def _means(rows: Tensor, group: Tensor) -> Tensor:
    """(N, D) and the group of each row, counted from 0 -> (groups, D)."""
    members = group.bincount()
    sums = rows.new_zeros(len(members), rows.shape[1]).index_add_(0, group, rows)
    return sums / members[:, None]


def _sketches(faces: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, D): small copies, by which a face is found."""
    return F.adaptive_avg_pool2d(faces, SKETCH).flatten(1)


def _clusters(points: Tensor, k: int) -> Tensor:
    """(P, C) -> the cluster of each point, counted from 0: (P,). Each has at least k points."""
    centred = points - points.mean(0)  # rounding errors grow with the distance from 0
    distances = torch.cdist(centred, centred).fill_diagonal_(-1)
    cluster = torch.empty(len(points), dtype=torch.long, device=points.device)
    left = torch.arange(len(points), device=points.device)
    count = 0
    while len(left) >= 2 * k:
        nearest = distances[left[0], left].argsort(stable=True)
        cluster[left[nearest[:k]]] = count
        left = left[nearest[k:].sort().values]
        count += 1
    cluster[left] = count
    return cluster
