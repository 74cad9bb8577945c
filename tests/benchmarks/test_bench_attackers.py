"""What attackers who learn from embeddings cost. Run with ``--benchmark-only``."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.pairs import cross_pairs, score
from deidbench.threats.adapted import Adapted
from deidbench.types import Embeddings
from tests.lessons import lesson, people, rotation

SIZE = 128


@pytest.mark.parametrize("only", ["ridge", "whitened", "fused"])
def test_learning_a_map(benchmark: BenchmarkFixture, only: str) -> None:
    """T3 on 56 people with 4 images each, as many as the embedded set has to learn from."""
    clean, subjects = people(56, 4, size=SIZE)
    taught = lesson(clean, clean @ rotation(SIZE), subjects)
    learned = benchmark(Adapted(only=only).learn, taught)
    enrolled, probe = learned.attack(Embeddings(clean, taught.embeddings.treated))
    assert np.isfinite(enrolled).all() and len(probe) == len(clean)


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean", "negative-chi-square"])
def test_scoring_pairs(benchmark: BenchmarkFixture, similarity: str) -> None:
    """All 25,000 pairs of 224 images."""
    embeddings, subjects = people(28, 8, size=SIZE)
    listed = cross_pairs(range(len(subjects)), subjects)
    scores = benchmark(score, np.abs(embeddings), np.abs(embeddings), listed, similarity)
    assert len(scores) == len(subjects) * (len(subjects) - 1) / 2
