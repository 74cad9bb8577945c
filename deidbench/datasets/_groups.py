"""Who is who in a list that names nobody: images joined by pairs of one person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def unnamed_subjects(ids: Sequence[str], same: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """A subject for each id: images that pairs of one person join, in however many steps.

    Nothing else is assumed. One person whose images no such pair joins is several subjects, so
    images of two subjects are not known to show two people.
    """
    parent = {name: name for name in ids}
    for one, other in same:
        parent[_root(parent, one)] = _root(parent, other)
    numbers: dict[str, int] = {}
    return {
        name: f"unnamed-{numbers.setdefault(_root(parent, name), len(numbers) + 1):05d}"
        for name in ids
    }


def _root(parent: dict[str, str], name: str) -> str:
    while parent[name] != name:
        parent[name] = parent[parent[name]]  # halves the way for the next who asks
        name = parent[name]
    return name
