from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deidbench.cache import Cache
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.progress import Progress
from deidbench.stages import Stages, images_per_second


class Treatment:
    """A method made of a function."""

    name = "treatment"
    version = 1
    strength = None
    trained_against = ()

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.seeds: list[int] = []

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        self.seeds.append(seed)
        return self.function(faces)


def stages(method: Treatment, root: Path, batch_size: int = 2) -> Stages:
    return Stages(
        samples=SynthID(None).samples()[:4], method=method, cache=Cache(root),
        progress=Progress(quiet=True), device="cpu", batch_size=batch_size, chip_size=160,
        aligned_input=False, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    [
        lambda faces: faces * torch.nan,
        lambda faces: faces * 2,
        lambda faces: faces - 1,
        lambda faces: faces[:, :1],
        lambda faces: faces[..., :80, :80],
    ],
)
def test_a_method_that_breaks_its_contract_is_named(
    broken: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    with pytest.raises(DeidbenchError, match="'treatment' broke its contract"):
        stages(Treatment(broken), tmp_path).treat()
    assert not list(tmp_path.glob("treat/*/*"))


def test_published_faces_have_eight_bits(tmp_path: Path) -> None:
    run = stages(Treatment(lambda faces: faces * 0.5), tmp_path)
    before, after = run.chips(run.batches[0])["chips"], run.treated_chips(run.batches[0])["chips"]
    assert after.dtype == before.dtype == "uint8"
    assert abs(after.astype(float) - before * 0.5).max() <= 0.5


def test_no_two_batches_share_a_seed_but_reruns_do(tmp_path: Path) -> None:
    """Equal noise on several images would be a gift to the attacker who compares them."""
    one, two = Treatment(torch.clone), Treatment(torch.clone)
    stages(one, tmp_path / "a").treat()
    stages(two, tmp_path / "b").treat()
    assert len(set(one.seeds)) == 2
    assert one.seeds == two.seeds


def test_each_output_is_computed_once(tmp_path: Path) -> None:
    method = Treatment(torch.clone)
    stages(method, tmp_path).treat()
    again = stages(method, tmp_path)
    again.align()
    again.treat()
    assert len(method.seeds) == 2
    assert again.timings["treat"].cached == again.timings["treat"].images == 4


def test_another_seed_or_weights_are_other_outputs(tmp_path: Path) -> None:
    method = Treatment(torch.clone)
    stages(method, tmp_path).treat()
    method.weights_sha256 = "0" * 64  # type: ignore[attr-defined]
    stages(method, tmp_path).treat()
    assert len(method.seeds) == 4


def test_a_faster_method_has_more_images_a_second() -> None:
    faces = torch.rand(2, 3, 64, 64)
    slow = Treatment(lambda x: torch.linalg.svd(x.repeat(1, 1, 4, 4))[0][..., :64, :64])
    assert images_per_second(Treatment(torch.clone), faces, seconds=0) > images_per_second(
        slow, faces, seconds=0
    )
