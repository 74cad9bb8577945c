from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deidbench.errors import DeidbenchError
from deidbench.threats.linkage import Linkage
from deidbench.types import Embeddings, Lesson
from tests.lessons import attack_auc, lesson, people, rotation

if TYPE_CHECKING:
    from deidbench.types import FloatArray, IntArray


def keyed(clean: FloatArray, *, seed: int) -> Embeddings:
    """Clean faces and two treated versions, each key with noise along directions of its own."""
    draw = np.random.default_rng(seed)
    noise = [3 * draw.normal(size=(len(clean), 10)).astype(np.float32) for _ in range(2)]
    first, second = (np.hstack([clean[:, :6], one]) for one in noise)
    return Embeddings(clean, first, second)


def asked() -> Lesson:
    clean, own = people(40, spread=0.2)
    there = keyed(clean, seed=0)
    return lesson(clean, there.treated, own, there.rekeyed)


def strangers() -> tuple[Embeddings, IntArray]:
    clean, own = people(20, spread=0.2, seed=77)
    return keyed(clean, seed=1), own


def linked(threat: Linkage, there: Embeddings, subjects: IntArray) -> float:
    return attack_auc(*threat.attack(there), subjects, threat.similarity)


@pytest.mark.parametrize("way", ["whitened", "mapped", "fused", "fused mlp", None])
def test_who_learns_what_a_key_changes_links_better(way: str | None) -> None:
    there, subjects = strangers()
    plain = linked(Linkage("as T2").learn(asked()), there, subjects)
    assert linked(Linkage(way).learn(asked()), there, subjects) > plain + 0.1


def test_nothing_learned_is_the_other_key_against_this_one() -> None:
    there, _ = strangers()
    enrolled, probe = Linkage("as T2").learn(asked()).attack(there)
    assert np.array_equal(enrolled, there.treated)
    assert there.rekeyed is not None
    assert np.array_equal(probe, there.rekeyed)


@pytest.mark.parametrize("way", [*Linkage.WAYS])
def test_clean_faces_are_not_looked_at_in_the_attack(way: str) -> None:
    there, _ = strangers()
    taught = Linkage(way).learn(asked())
    blind = replace(there, clean=np.zeros_like(there.clean))
    for one, other in zip(taught.attack(there), taught.attack(blind), strict=True):
        assert np.array_equal(one, other)


def test_keys_that_share_nothing_cannot_be_linked() -> None:
    """A new random rotation for each face would be a perfect key: chance is all that is left."""
    clean, own = people(24)
    each = [
        np.stack([row @ rotation(seed=100 * k + i) for i, row in enumerate(clean)]) for k in (1, 2)
    ]
    taught = Linkage().learn(lesson(clean, each[0], own, each[1]))
    clean, own = people(20, seed=77)
    each = [
        np.stack([row @ rotation(seed=900 * k + i) for i, row in enumerate(clean)]) for k in (1, 2)
    ]
    assert linked(taught, Embeddings(clean, each[0], each[1]), own) == pytest.approx(0.5, abs=0.1)


def test_shuffled_keys_teach_nothing() -> None:
    known = asked()
    assert known.embeddings.rekeyed is not None
    order = np.random.default_rng(1).permutation(len(known.subjects))
    mixed = Embeddings(
        known.embeddings.clean, known.embeddings.treated[order], known.embeddings.rekeyed[order]
    )
    there, subjects = strangers()
    told = linked(Linkage("mapped").learn(known), there, subjects)
    assert linked(Linkage("mapped").learn(replace(known, embeddings=mixed)), there, subjects) < told


def test_one_key_is_too_few() -> None:
    clean, own = people()
    with pytest.raises(DeidbenchError, match="two keys"):
        Linkage().learn(lesson(clean, clean, own))


def test_lost_faces_stay_lost() -> None:
    there, _ = strangers()
    assert there.rekeyed is not None
    rekeyed = there.rekeyed.copy()
    rekeyed[3] = np.nan
    enrolled, probe = Linkage().learn(asked()).attack(replace(there, rekeyed=rekeyed))
    assert np.isnan(probe[3]).all()
    assert np.isfinite(enrolled).all()
    assert np.isfinite(np.delete(probe, 3, axis=0)).all()
