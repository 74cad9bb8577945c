"""A method that fails on a face loses that face, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deidbench.errors import DeidbenchError
from deidbench.treatment import FittedMethods, in_pieces, treat_faces

SIDE = 8


class Treatment:
    name = "treatment"
    version = 1
    strength = None
    trained_against = ()

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function
        self.seeds: list[int] = []

    def deidentify(self, faces: Tensor, *, seed: int) -> Any:
        self.seeds.append(seed)
        return self.function(faces)


def numbered(count: int) -> Tensor:
    """Faces that are told apart by their value."""
    return torch.linspace(0.1, 0.9, count)[:, None, None, None].expand(count, 3, SIDE, SIDE).clone()


def spoilt(rows: set[int], count: int, value: float) -> Callable[[Tensor], Tensor]:
    """A treatment that gives some of the numbered faces an impossible value."""
    bad = numbered(count)[sorted(rows), 0, 0, 0]

    def treat(faces: Tensor) -> Tensor:
        output = faces * 0.5
        output[torch.isin(faces[:, 0, 0, 0], bad), 0, 0, 0] = value
        return output

    return treat


def choosy(rows: set[int], count: int, error: Exception) -> Callable[[Tensor], Tensor]:
    """A treatment that raises when one of some numbered faces is in the batch."""
    bad = numbered(count)[sorted(rows), 0, 0, 0]

    def treat(faces: Tensor) -> Tensor:
        if bool(torch.isin(faces[:, 0, 0, 0], bad).any()):
            raise error
        return faces * 0.5

    return treat


def check(output: Tensor, problems: list[str], rows: set[int], count: int) -> None:
    """The faces at fault are black and have a reason; the others are treated and have none."""
    assert {row for row, problem in enumerate(problems) if problem} == rows
    expected = numbered(count) * 0.5
    expected[sorted(rows)] = 0
    assert torch.equal(output, expected)


few = st.integers(1, 12).flatmap(
    lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1)))
)


@settings(deadline=None, max_examples=40)
@given(few, st.sampled_from([torch.nan, torch.inf, -torch.inf, 1.001, -0.001]))
def test_an_impossible_value_spoils_its_own_face_alone(
    case: tuple[int, set[int]], value: float
) -> None:
    count, rows = case
    output, problems = treat_faces(Treatment(spoilt(rows, count, value)), numbered(count), seed=1)
    check(output, problems, rows, count)


@settings(deadline=None, max_examples=40)
@given(few)
def test_the_face_that_a_method_raises_on_is_found(case: tuple[int, set[int]]) -> None:
    count, rows = case
    method = Treatment(choosy(rows, count, ValueError("no\nnose")))
    output, problems = treat_faces(method, numbered(count), seed=1)
    check(output, problems, rows, count)
    assert {problem for problem in problems if problem} <= {"raised ValueError: no nose"}
    assert len(set(method.seeds)) == len(method.seeds), "two parts of a batch shared their noise"


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_a_batch_that_memory_does_not_hold_is_halved(limit: int) -> None:
    def treat(faces: Tensor) -> Tensor:
        if len(faces) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return faces * 0.5

    output, problems = treat_faces(Treatment(treat), numbered(7), seed=0)
    check(output, problems, set(), 7)
    assert torch.equal(in_pieces(treat, numbered(7)), numbered(7) * 0.5)


def test_one_face_that_memory_does_not_hold_is_one_line() -> None:
    def treat(faces: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(DeidbenchError, match="--device cpu"):
        in_pieces(treat, numbered(3))
    _, problems = treat_faces(Treatment(treat), numbered(2), seed=0)
    assert all("CUDA out of memory" in problem for problem in problems)


def test_pieces_keep_several_inputs_together() -> None:
    def add(one: Tensor, other: Tensor) -> Tensor:
        if len(one) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return one + other

    one, other = torch.arange(5.0), torch.arange(5.0) * 10
    assert torch.equal(in_pieces(add, one, other), one + other)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda faces: faces[:, :1], r"got \(1, 8, 8\)"),
        (lambda faces: faces[..., :4], r"got \(3, 8, 4\)"),
        (lambda faces: faces.double(), "float64"),
        (lambda faces: faces[:-1], "shape"),
        (lambda faces: faces.numpy(), "ndarray"),
        (lambda faces: None, "NoneType"),
        (lambda faces: (faces * 255).byte(), "uint8"),
    ],
)
def test_a_batch_of_another_kind_fails_as_a_whole(
    wrong: Callable[[Tensor], Any], words: str
) -> None:
    output, problems = treat_faces(Treatment(wrong), numbered(3), seed=0)
    assert not output.any()
    assert len(problems) == 3
    assert all("broke its contract" in problem for problem in problems)
    assert re.search(words, problems[0])


def test_a_method_that_cannot_work_at_all_stops_the_run() -> None:
    def treat(faces: Tensor) -> Tensor:
        raise DeidbenchError("weights are missing. Fetch them.")

    with pytest.raises(DeidbenchError, match="weights are missing"):
        treat_faces(Treatment(treat), numbered(4), seed=0)


def test_ctrl_c_is_no_fault_of_a_face() -> None:
    def treat(faces: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        treat_faces(Treatment(treat), numbered(4), seed=0)


class Average:
    """A method that needs its set: all faces become the mean of those that it was fitted on."""

    name = "average"
    version = 1
    strength = None
    trained_against = ()
    people: tuple[str, ...] = ()

    def fit(self, faces: Tensor, subjects: list[str]) -> None:
        self.mean, self.people = faces.mean(0), tuple(subjects)

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        return self.mean.expand_as(faces).clone()


def test_a_method_is_fitted_once_on_each_part_alone() -> None:
    asked = []

    def faces_of(part: str) -> tuple[Tensor, list[str]]:
        asked.append(part)
        return (numbered(4), ["a", "b", "c", "d"]) if part == "eval" else (numbered(2), ["x", "y"])

    method = Average()
    fitted = FittedMethods(method, faces_of)
    assert fitted.of("eval").people == ("a", "b", "c", "d")  # type: ignore[attr-defined]
    assert fitted.of("calibration").people == ("x", "y")  # type: ignore[attr-defined]
    assert fitted.of("eval") is fitted.of("eval")
    assert asked == ["eval", "calibration"]
    assert method.people == ()
