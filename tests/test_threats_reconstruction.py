from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from deidbench_baselines.gaussian_blur import GaussianBlur
from deidbench_baselines.pixelate import Pixelate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, linalg, ndimage
from torch import Tensor

from deidbench import plugins
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.images import read_image
from deidbench.threats import _blocks, _deconvolution
from deidbench.threats._unet import Schedule, UNet, loss_of
from deidbench.threats.reconstruction import GUESSES, RESTORERS, Reconstruction
from deidbench.types import FaceLesson

QUICK = Schedule(steps=150, batch=4, rate=4e-3, width=8, looks=3)
relaxed = settings(deadline=None, max_examples=25)  # a first call of torch is slow


def rendered_faces(count: int, step: int = 4) -> Tensor:
    """uint8 (count, 3, S, S), S = 224 / step, of several people."""
    samples = SynthID().samples()
    chosen = samples[:: len(samples) // count][:count]
    pixels = [read_image(sample.path)[::step, ::step].copy() for sample in chosen]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def lesson_of(
    treat: Callable[[Tensor], Tensor], count: int = 24, step: int = 4, seed: int = 0
) -> FaceLesson:
    clean = rendered_faces(count, step)
    treated = (treat(clean / 255).clamp(0, 1) * 255).round().byte()
    people = np.arange(count) // 2
    return FaceLesson(
        clean=clean, treated=treated, landmarks=torch.zeros(count, 5, 2), subjects=people,
        held=people % 4 == 0, seed=seed, device="cpu", progress=lambda line: None,
    )  # fmt: skip


def blur(sigma: float) -> Callable[[Tensor], Tensor]:
    def treat(faces: Tensor) -> Tensor:
        done = ndimage.gaussian_filter(faces.numpy(), (0, 0, sigma, sigma), mode="reflect")
        return torch.from_numpy(done)

    return treat


def pixelated(faces: Tensor) -> Tensor:
    return Pixelate(0.6).deidentify(faces, seed=0)


def error(threat: Reconstruction, lesson: FaceLesson, memory: Any = None) -> float:
    """Mean squared error of the one restorer on the held faces, over that of doing nothing."""
    (restorer,) = threat.restorers(threat.learn(lesson) if memory is None else memory)
    clean, treated = lesson.clean[lesson.held] / 255, lesson.treated[lesson.held] / 255
    left = (restorer(treated) - clean).square().mean()
    return float(left / (treated - clean).square().mean())


def shuffled(lesson: FaceLesson) -> FaceLesson:
    """A lesson that pairs each treated face with somebody else."""
    return replace(lesson, clean=lesson.clean.roll(5, 0))


# The threat


def test_it_is_found_by_name_and_keeps_the_contract() -> None:
    threat = plugins.build("threats", "T4")
    assert (threat.id, threat.kind, threat.views) == ("T4", "images", ("landmarks",))
    assert (threat.enrolled, threat.probe) == ("clean", "treated")


def test_an_unknown_restorer_is_refused() -> None:
    with pytest.raises(DeidbenchError, match="no restorer called 'magic'"):
        Reconstruction(only="magic")


def test_all_four_restorers_of_a_mosaic_and_of_a_blur_are_learned() -> None:
    names = set()
    for treat in (blur(1.5), pixelated):
        threat = Reconstruction(schedule=replace(QUICK, steps=2))
        restorers = threat.restorers(threat.learn(lesson_of(treat, 8)))
        names |= {one.name for one in restorers}
        assert "unet" in {one.name for one in restorers}
    assert names == set(RESTORERS)


@pytest.mark.parametrize(
    ("only", "treat"),
    [
        ("wiener", blur(1.5)),
        ("richardson-lucy", blur(1.5)),
        ("super-resolution", pixelated),
        ("unet", blur(1.5)),
        ("unet", pixelated),
    ],
)
def test_each_restorer_alone_keeps_the_contract(
    only: str, treat: Callable[[Tensor], Tensor]
) -> None:
    threat, lesson = Reconstruction(only, replace(QUICK, steps=6)), lesson_of(treat, 8)
    memory = threat.learn(lesson)
    assert all(one.dtype.kind in "biuf" for one in memory.values()), "a cache holds numbers only"
    (restorer,) = threat.restorers(memory)
    assert restorer.name == only
    faces = lesson.treated / 255
    before = faces.clone()
    done = restorer.to("cpu")(faces)
    assert done.shape == faces.shape
    assert done.dtype == torch.float32
    assert bool(((done >= 0) & (done <= 1)).all())
    assert torch.equal(faces, before)
    (again,) = threat.restorers(Reconstruction(only, replace(QUICK, steps=6)).learn(lesson))
    assert again.fingerprint == restorer.fingerprint
    assert torch.equal(again(faces), done)
    torch.testing.assert_close(restorer(faces[3:4]), done[3:4], rtol=0, atol=1e-5)
    assert restorer(faces[:0]).shape == faces[:0].shape


@pytest.mark.parametrize(
    ("only", "treat", "most"),
    [
        ("wiener", blur(1.5), 0.5),
        ("richardson-lucy", blur(1.5), 0.7),
        ("super-resolution", pixelated, 0.8),
        ("unet", blur(1.5), 0.8),
    ],
)
def test_each_restorer_mends_what_it_is_for(
    only: str, treat: Callable[[Tensor], Tensor], most: float
) -> None:
    assert error(Reconstruction(only, replace(QUICK, steps=200)), lesson_of(treat)) < most


@pytest.mark.parametrize("only", RESTORERS)
def test_nothing_is_learned_from_no_faces(only: str) -> None:
    lesson = lesson_of(pixelated, 4)
    lesson = replace(lesson, held=np.ones(4, bool))
    threat = Reconstruction(only, replace(QUICK, steps=2))
    assert [one.name for one in threat.restorers(threat.learn(lesson))] in ([], [only])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_faces_that_are_all_treated_alike_give_finite_faces(level: float) -> None:
    lesson = lesson_of(lambda faces: torch.full_like(faces, level), 6)
    threat = Reconstruction(schedule=replace(QUICK, steps=4))
    for restorer in threat.restorers(threat.learn(lesson)):
        done = restorer(lesson.treated / 255)
        assert bool(torch.isfinite(done).all())
        # What is alike before is alike after: no restorer may know who is who.
        torch.testing.assert_close(done, done[:1].expand_as(done), rtol=0, atol=1e-5)


def test_two_people_are_enough() -> None:
    lesson = lesson_of(blur(1.5), 4)
    threat = Reconstruction(schedule=replace(QUICK, steps=3))
    assert len(threat.restorers(threat.learn(lesson))) >= 2


def test_pairs_of_strangers_teach_worse_than_nothing() -> None:
    lesson = lesson_of(blur(1.5))
    wrong = Reconstruction("unet", replace(QUICK, steps=150)).learn(shuffled(lesson))
    assert error(Reconstruction("unet"), lesson, wrong) > 1


def test_a_filter_that_fits_nothing_is_left_out() -> None:
    for lesson in (lesson_of(lambda faces: faces), shuffled(lesson_of(blur(1.5)))):
        for only in ("wiener", "richardson-lucy", "super-resolution"):
            learned = Reconstruction(only).learn(lesson)
            if lesson.clean.equal(lesson.treated):
                assert learned == {}
            assert Reconstruction(only).restorers(learned) == [] or only == "wiener"


# Deconvolution


@given(sigma=st.floats(0.4, 5), height=st.integers(8, 30), width=st.integers(8, 30))
@relaxed
def test_the_scales_of_cosines_are_a_gaussian_blur(sigma: float, height: int, width: int) -> None:
    face = np.random.default_rng(height * 31 + width).random((height, width))
    size = (height, width)
    scaled = _deconvolution.to_cosines(torch.from_numpy(face)) * _deconvolution.transfer(
        sigma, size
    )
    radius = max(int(4 * sigma + 0.5), 1)
    oracle = ndimage.gaussian_filter(face, sigma, mode="reflect", radius=radius)
    np.testing.assert_allclose(_deconvolution.from_cosines(scaled), oracle, atol=1e-6)


def test_the_cosine_transform_is_that_of_scipy() -> None:
    faces = torch.rand(2, 3, 11, 16, dtype=torch.float64)
    coefficients = _deconvolution.to_cosines(faces)
    oracle = fft.dctn(faces.numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(coefficients, oracle, atol=1e-6)
    torch.testing.assert_close(_deconvolution.from_cosines(coefficients), faces, rtol=0, atol=1e-6)


def test_wiener_is_the_dense_solution_of_least_squares() -> None:
    """The regularised system |B x - y|^2 + n^2 x' P^-1 x, solved pixel by pixel."""
    side, sigma, noise = 9, 1.3, 0.05
    faces = torch.rand(1, 1, side, side, dtype=torch.float64)
    power = 1 / (1 + torch.arange(side).double()[:, None] ** 2 + torch.arange(side).double() ** 2)
    line = np.stack(
        [ndimage.gaussian_filter1d(row, sigma, mode="reflect", radius=5) for row in np.eye(side)]
    ).T
    blurring = np.kron(line, line)
    basis = np.kron(*[fft.dct(np.eye(side), axis=0, norm="ortho")] * 2)
    stiff = noise**2 * basis.T @ np.diag(1 / power.numpy().ravel()) @ basis
    oracle = linalg.solve(blurring.T @ blurring + stiff, blurring.T @ faces.numpy().ravel())
    gain = _deconvolution.wiener_gain(_deconvolution.transfer(sigma, (side, side)), power, noise)
    done = _deconvolution.from_cosines(_deconvolution.to_cosines(faces) * gain)
    np.testing.assert_allclose(done.numpy().ravel(), oracle, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_the_search_finds_the_width_of_a_blur(sigma: float) -> None:
    lesson = lesson_of(blur(sigma))
    memory = Reconstruction("wiener").learn(lesson)
    assert float(memory["wiener/sigma"]) == pytest.approx(sigma, rel=0.03)


def test_the_error_of_a_gain_is_that_of_the_filtered_faces() -> None:
    clean, treated = rendered_faces(4) / 255, blur(1.0)(rendered_faces(4) / 255)
    gain = torch.rand(56, 56, dtype=torch.float64)
    told = _deconvolution.spectra(clean, treated).error(gain)
    done = _deconvolution.from_cosines(_deconvolution.to_cosines(treated.double()) * gain)
    assert told == pytest.approx(float((done - clean).square().mean()), rel=1e-6)


def test_more_steps_of_richardson_lucy_explain_a_blurred_face_better() -> None:
    clean = rendered_faces(1) / 255
    face = blur(1.5)(clean)
    left = []
    for steps in (0, 3, 10, 30):
        memory = {"sigma": np.array(1.5), "steps": np.array(steps)}
        left.append(float((_deconvolution.RichardsonLucy(memory)(face) - clean).square().mean()))
    assert left == sorted(left, reverse=True)
    assert left[0] == pytest.approx(float((face - clean).square().mean()))


def test_richardson_lucy_without_acceleration_is_the_textbook_step() -> None:
    face = (rendered_faces(1) / 255).clamp(0.05, 1)
    memory = {"sigma": np.array(1.5), "steps": np.array(1)}
    blurred = blur(1.5)(face).clamp(min=1e-4)
    oracle = face * blur(1.5)(face / blurred)
    done = _deconvolution.RichardsonLucy(memory)(face)
    torch.testing.assert_close(done, oracle.clamp(0, 1), rtol=0, atol=1e-4)


def test_the_method_of_the_harness_is_undone_at_its_borders_too() -> None:
    lesson = lesson_of(lambda faces: GaussianBlur(0.3).deidentify(faces, seed=0))
    (restorer,) = Reconstruction("wiener").restorers(Reconstruction("wiener").learn(lesson))
    clean, treated = lesson.clean / 255, lesson.treated / 255
    for border in (np.s_[..., :4, :], np.s_[..., -4:]):
        before = (treated - clean)[border].square().mean()
        assert (restorer(treated) - clean)[border].square().mean() < 0.6 * before


# Super-resolution


def mosaic(faces: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    done = faces.clone()
    for top, bottom in zip(rows, [*rows[1:], faces.shape[-2]], strict=True):
        for left, right in zip(columns, [*columns[1:], faces.shape[-1]], strict=True):
            block = done[..., top:bottom, left:right]
            block[:] = block.mean((-1, -2), keepdim=True)
    return done


def starts(size: int, phase: int, side: int) -> list[int]:
    return sorted({0, *range(phase, side, size)})


@given(data=st.data(), size=st.integers(2, 12), jpeg_noise=st.booleans())
@relaxed
def test_every_planted_grid_is_found(data: st.DataObject, size: int, jpeg_noise: bool) -> None:
    phases = [data.draw(st.integers(0, size - 1)) for _ in range(2)]
    rows, columns = (starts(size, phase, 48) for phase in phases)
    generator = torch.Generator().manual_seed(size)
    faces = mosaic(torch.rand(6, 3, 48, 48, generator=generator), rows, columns)
    if jpeg_noise:
        faces = faces + 0.002 * torch.randn(faces.shape, generator=generator)
    found = _blocks.find_grid(faces)
    assert found is not None
    assert [one.tolist() for one in found] == [rows, columns]


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.62, 0.8, 1.0])
@pytest.mark.parametrize("side", [112, 160])
def test_the_grid_of_the_harness_is_found_at_every_strength(strength: float, side: int) -> None:
    faces = torch.nn.functional.interpolate(rendered_faces(6) / 255, side, mode="bilinear")
    treated = Pixelate(strength).deidentify(faces, seed=0)
    count = round(4 / strength**2)
    own = sorted({int(np.ceil(i * side / count)) for i in range(count)})
    found = _blocks.find_grid((treated * 255).round() / 255)
    assert found is not None
    assert found[0].tolist() == found[1].tolist() == own


@pytest.mark.parametrize("treat", [lambda x: x, blur(2.0), torch.zeros_like])
def test_no_grid_is_found_where_there_is_none(treat: Callable[[Tensor], Tensor]) -> None:
    assert _blocks.find_grid(treat(rendered_faces(6) / 255)) is None


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_pictures_have_no_grid(side: int) -> None:
    assert _blocks.find_grid(torch.rand(2, 3, side, side)) is None


@given(size=st.integers(2, 9), phase=st.integers(0, 8), side=st.integers(12, 40))
@relaxed
def test_an_enlarged_line_keeps_the_means_and_straight_lines(
    size: int, phase: int, side: int
) -> None:
    begin = np.array(starts(size, min(phase, size - 1), side))
    blocks = np.split(np.arange(side), begin[1:])
    enlarging = _blocks.enlarging(begin, side)
    means = np.random.default_rng(size).random(len(begin))
    back = [float((enlarging @ means)[block].mean()) for block in blocks]
    np.testing.assert_allclose(back, means, atol=0.02)
    ramp = np.linspace(0.2, 0.7, side)
    told = np.array([ramp[block].mean() for block in blocks])
    if len(begin) > 1:
        np.testing.assert_allclose(enlarging @ told, ramp, atol=1e-6)
    np.testing.assert_allclose(enlarging @ np.ones(len(begin)), 1, atol=1e-6)


# The U-Net


def test_the_untrained_network_changes_nothing() -> None:
    faces = torch.rand(2, 3, 40, 40)
    assert torch.equal(UNet(4)(faces, faces), faces)


def test_it_learns_an_offset() -> None:
    threat = Reconstruction("unet", replace(QUICK, steps=120))
    assert error(threat, lesson_of(lambda faces: faces * 0.8 + 0.1)) < 0.1


def test_held_faces_are_not_learned_from() -> None:
    """Only the choice of a moment may depend on them, and with one look there is no choice."""
    once = replace(QUICK, steps=4, looks=1)
    lesson = lesson_of(blur(1.5), 8)
    spoiled = lesson.clean.clone()
    spoiled[lesson.held] = 255 - spoiled[lesson.held]
    for only in ("wiener", "unet"):
        mine, theirs = (
            Reconstruction(only, once).learn(one)
            for one in (lesson, replace(lesson, clean=spoiled))
        )
        assert all((mine[key] == theirs[key]).all() for key in mine)


def test_the_seed_decides_and_the_caller_keeps_his_own() -> None:
    short = replace(QUICK, steps=4)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, other = (
        Reconstruction("unet", short).learn(lesson_of(blur(1.5), 8, seed=seed)) for seed in (0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert any((one[key] != other[key]).any() for key in one)


def test_the_fingerprint_changes_with_every_weight() -> None:
    threat = Reconstruction(schedule=replace(QUICK, steps=2))
    memory = threat.learn(lesson_of(blur(1.5), 8))
    own = {one.name: one.fingerprint for one in threat.restorers(memory)}
    for key in ("unet/leave.bias", "wiener/gain", "richardson-lucy/steps"):
        changed = {**memory, key: memory[key] + 1}
        others = {one.name: one.fingerprint for one in threat.restorers(changed)}
        moved = {name for name in own if own[name] != others[name]}
        # A U-Net that starts from another guess is another restorer.
        assert moved == {"unet/leave.bias": {"unet"}, "wiener/gain": {"wiener", "unet"}}.get(
            key, {"richardson-lucy"}
        )


def test_the_loss_is_zero_for_the_face_itself_alone() -> None:
    faces = torch.rand(2, 3, 8, 8)
    assert float(loss_of(faces, faces)) == 0
    assert float(loss_of(faces + 0.1, faces)) == pytest.approx(0.1, rel=1e-4)
    edge = faces.clone()
    edge[..., 4:] += 0.1
    assert float(loss_of(edge, faces)) == pytest.approx(0.05 + 0.1 / 7, rel=1e-3)


@pytest.mark.slow
def test_a_longer_lesson_of_rendered_faces_beats_the_filter_it_starts_from() -> None:
    lesson = lesson_of(lambda faces: Pixelate(0.5).deidentify(faces, seed=0), 96, step=2)
    threat = Reconstruction(schedule=Schedule(steps=300, width=16))
    memory = threat.learn(lesson)
    assert GUESSES[int(memory["guess"][0])] == "super-resolution"
    clean, treated = lesson.clean[lesson.held] / 255, lesson.treated[lesson.held] / 255
    left = {
        one.name: float((one(treated) - clean).square().mean()) for one in threat.restorers(memory)
    }
    assert left["unet"] < 0.97 * left["super-resolution"] < left["wiener"]
