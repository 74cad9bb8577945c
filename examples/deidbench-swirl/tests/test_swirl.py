"""The contract, and what swirling promises beyond it."""

from __future__ import annotations

import pytest
import torch
from deidbench_swirl import Swirl

from deidbench.errors import DeidbenchError
from deidbench.testing import check_method


@pytest.mark.parametrize("strength", [None, 0.0, 0.3, 1.0])
def test_swirl_keeps_the_contract(strength: float | None) -> None:
    check_method(Swirl(strength))


def test_strength_zero_leaves_the_face() -> None:
    faces = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Swirl(0).deidentify(faces, seed=0), faces)


def test_the_rim_stays_and_the_middle_turns() -> None:
    faces = torch.rand(1, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    swirled = Swirl(0.5).deidentify(faces, seed=0)
    torch.testing.assert_close(swirled[..., 0, :], faces[..., 0, :])
    torch.testing.assert_close(swirled[..., 32, 32], faces[..., 32, 32])
    assert (swirled[..., 28:37, 28:37] - faces[..., 28:37, 28:37]).abs().mean() > 0.1


def test_half_a_turn_at_the_middle() -> None:
    """Two pixels beside the middle change places, nearly: they are turned a little less."""
    faces = torch.zeros(1, 3, 201, 201)
    faces[..., 100, 101] = 1
    swirled = Swirl(0.5).deidentify(faces, seed=0)
    assert int(swirled[0, 0].flatten().argmax()) == 100 * 201 + 99


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_out_of_range_is_one_line(strength: float) -> None:
    with pytest.raises(DeidbenchError, match=r"must be in \[0, 1\]"):
        Swirl(strength)
