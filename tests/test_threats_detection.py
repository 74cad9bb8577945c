"""T6: whether a face was treated can be learned from others, where there is anything to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from deidbench_baselines.gaussian_blur import GaussianBlur
from deidbench_baselines.jpeg import Jpeg
from deidbench_baselines.pixelate import Pixelate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deidbench import plugins
from deidbench.datasets.synthid import SynthID
from deidbench.images import read_image
from deidbench.statistics import auc
from deidbench.threats import _forensics
from deidbench.threats.detection import Detection
from deidbench.types import FaceLesson

Treatment = Callable[[Tensor], Tensor]


def faces(count: int) -> Tensor:
    """uint8 (count, 3, 112, 112), halves of embedded photographs of several people."""
    samples = SynthID().samples()
    chosen = samples[:: len(samples) // count][:count]
    pixels = [read_image(sample.path)[::2, ::2].copy() for sample in chosen]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def noisy(x: Tensor) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + 0.02 * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def clean() -> Tensor:
    return faces(96)


def lesson_of(clean: Tensor, treat: Treatment) -> FaceLesson:
    treated = (treat(clean / 255) * 255).round().byte()
    people = np.arange(len(clean)) // 2
    return FaceLesson(
        clean=clean, treated=treated, landmarks=torch.zeros(len(clean), 5, 2), subjects=people,
        held=people % 4 == 0, seed=0, device="cpu", progress=lambda line: None,
    )  # fmt: skip


def told_apart(lesson: FaceLesson, memory: dict[str, np.ndarray]) -> float:
    """AUC of a detector on faces of a lesson."""
    score = Detection().detector(memory)
    return auc(score(lesson.treated / 255).numpy(), score(lesson.clean / 255).numpy())


def halves(lesson: FaceLesson) -> tuple[FaceLesson, FaceLesson]:
    """Faces to learn from, and faces of other people."""
    middle = len(lesson.clean) // 2
    return tuple(  # type: ignore[return-value]
        replace(
            lesson, clean=lesson.clean[part], treated=lesson.treated[part],
            landmarks=lesson.landmarks[part], subjects=lesson.subjects[part],
            held=lesson.held[part],
        )
        for part in (slice(middle), slice(middle, None))
    )  # fmt: skip


def test_it_is_found_by_name() -> None:
    threat = plugins.build("threats", "T6")
    assert (threat.id, threat.kind) == ("T6", "detection")


@pytest.mark.parametrize(
    "treat",
    [
        lambda x: GaussianBlur(0.1).deidentify(x, seed=0),
        lambda x: Pixelate(0.5).deidentify(x, seed=0),
        lambda x: Jpeg().deidentify(x, seed=0),
        noisy,
        lambda x: torch.zeros_like(x),
    ],
    ids=["mild blur", "mosaic", "jpeg", "noise", "black"],
)  # fmt: skip
def test_treatment_is_seen_on_strangers(clean: Tensor, treat: Treatment) -> None:
    known, strangers = halves(lesson_of(clean, treat))
    assert told_apart(strangers, Detection().learn(known)) > 0.97


def test_nothing_is_seen_where_nothing_was_done(clean: Tensor) -> None:
    known, strangers = halves(lesson_of(clean, lambda x: x))
    assert told_apart(strangers, Detection().learn(known)) == 0.5


def test_shuffled_labels_teach_nothing(clean: Tensor) -> None:
    """Half of the pairs have their sides exchanged: there is nothing left to learn."""
    known, strangers = halves(lesson_of(clean, lambda x: Jpeg().deidentify(x, seed=0)))
    turned = torch.arange(len(known.clean)) % 2 == 0
    mixed = replace(
        known,
        clean=torch.where(turned[:, None, None, None], known.treated, known.clean),
        treated=torch.where(turned[:, None, None, None], known.clean, known.treated),
    )
    assert told_apart(strangers, Detection().learn(known)) > 0.97
    assert 0.1 < told_apart(strangers, Detection().learn(mixed)) < 0.9


def test_the_same_lesson_gives_the_same_detector(clean: Tensor) -> None:
    lesson = lesson_of(clean[:32], lambda x: Jpeg().deidentify(x, seed=0))
    one, other = (Detection().learn(lesson) for _ in range(2))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)
    assert all(value.dtype == np.float32 for value in one.values())


def test_a_batch_changes_no_score(clean: Tensor) -> None:
    lesson = lesson_of(clean[:32], lambda x: Jpeg().deidentify(x, seed=0))
    score = Detection().detector(Detection().learn(lesson))
    together = score(clean[:8] / 255)
    assert together.shape == (8,)
    alone = torch.cat([score(face[None] / 255) for face in clean[:8]])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_two_people_and_no_held_ones_are_enough(clean: Tensor) -> None:
    lesson = lesson_of(clean[:4], lambda x: torch.zeros_like(x))
    for held in (np.zeros(4, bool), np.ones(4, bool)):
        assert told_apart(lesson, Detection().learn(replace(lesson, held=held))) == 1


@given(side=st.integers(16, 60), level=st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_features_are_finite_on_any_face(side: int, level: float) -> None:
    flat = torch.full((2, 3, side, side), level)
    noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    for images in (flat, noise):
        features = _forensics.describe(images)
        assert len(features) == 2
        assert bool(torch.isfinite(features).all())


def test_histograms_are_those_of_numpy() -> None:
    pixels = torch.randint(
        -9, 10, (3, 3, 20, 20), generator=torch.Generator().manual_seed(1)
    ).float()
    found = _forensics._histogram(pixels, 7)
    for row, image in zip(found, pixels.numpy(), strict=True):
        counted, _ = np.histogram(np.clip(image, -7, 7), bins=np.arange(-7.5, 8))
        expected = np.log(counted / image.size + _forensics.FLOOR)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5)
