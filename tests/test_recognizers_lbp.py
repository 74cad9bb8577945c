"""Local binary patterns against the definition, written down pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deidbench import plugins
from deidbench.geometry import ARC112, chip_template
from deidbench.pairs import PairList, score
from deidbench.recognizers import lbp
from deidbench.recognizers.lbp import LBP
from deidbench.testing import BrokenPromiseError, check_recognizer

SIZE = 116  # of the crop: 7 windows of 16 px, and the radius on each side


def test_lbp_keeps_the_contract() -> None:
    recognizer = plugins.build("recognizers", "lbp")
    check_recognizer(recognizer)
    assert recognizer.name == "lbp"
    assert not recognizer.by_default and not recognizer.differentiable
    assert recognizer.to("cpu") is recognizer
    int(recognizer.weights_sha256, 16)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"differentiable": True}, "expected gradients that reach the image, but got none"),
        ({"similarity": "dot"}, "expected one of cosine, negative-euclidean, negative-chi-square"),
        ({"weights_sha256": ""}, "expected a sha256"),
    ],
)
def test_the_check_finds_a_broken_promise(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenPromiseError, match=message):
        check_recognizer(type("Broken", (LBP,), broken)())


def crops(count: int, seed: int = 0) -> Tensor:
    """Smooth textures in whole grey levels."""
    noise = torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return (smooth * 255).round().expand(-1, 3, -1, -1) / 255


def bits_at(grey: NDArray[np.float64], row: int, column: int) -> list[bool]:
    """Whether each of 8 neighbours at distance 2 is at least as bright as the middle."""
    found = []
    for k in range(8):
        y = round(row - 2 * math.sin(2 * math.pi * k / 8), 5)
        x = round(column + 2 * math.cos(2 * math.pi * k / 8), 5)
        top, left = math.floor(y), math.floor(x)
        dy, dx = y - top, x - left
        value = sum(
            share * grey[top + (i > 0), left + (j > 0)]
            for i, a in ((0, 1 - dy), (1, dy))
            for j, share in ((0, a * (1 - dx)), (1, a * dx))
            if share
        )
        found.append(value >= grey[row, column])
    return found


def naive_histograms(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of uniform patterns by (ones, rotation) in 7 x 7 windows; the rest is one bin."""
    names: dict[tuple[bool, ...], int] = {}
    counts = np.zeros((7, 7, 60))
    for row in range(112):
        for column in range(112):
            bits = bits_at(grey, row + 2, column + 2)
            changes = sum(bits[k] != bits[k - 1] for k in range(8))
            key = tuple(bits) if changes <= 2 else ()
            counts[row // 16, column // 16, names.setdefault(key, len(names))] += 1
    assert len(names) <= 59
    return counts.reshape(49, 60) / 256


def test_the_histograms_are_those_of_the_definition() -> None:
    """Up to the order of the patterns, which no distance sees."""
    given = crops(1)
    ours = LBP().describe(given).numpy().reshape(49, 59)
    naive = naive_histograms(given[0, 0].double().numpy() * 255)
    kept = naive[:, naive.sum(0) > 0]
    mine = ours[:, ours.sum(0) > 0]
    assert kept.shape[1] > 50
    np.testing.assert_array_equal(sorted(kept.T.tolist()), sorted(mine.T.tolist()))


def test_each_window_sums_to_one() -> None:
    windows = LBP().describe(crops(3)).reshape(3, 49, 59)
    torch.testing.assert_close(windows.sum(2), torch.ones(3, 49))


def test_a_window_sees_its_own_pixels_only() -> None:
    """A change of the third window in the fifth row, two pixels away from its neighbours."""
    before = crops(1)
    after = before.clone()
    top, left = 2 + 4 * 16, 2 + 2 * 16
    after[..., top + 2 : top + 14, left + 2 : left + 14] = (
        1 - before[..., top + 2 : top + 14, left + 2 : left + 14]
    )
    moved = (LBP().describe(before) != LBP().describe(after)).reshape(49, 59).any(1)
    assert moved.nonzero().flatten().tolist() == [4 * 7 + 2]


def test_brightness_and_contrast_change_nothing() -> None:
    grey = crops(2) * 0.5
    torch.testing.assert_close(
        LBP().describe((grey * 255).floor() / 255),
        LBP().describe(((grey * 255).floor() * 2 + 1) / 255),
    )


def test_grey_is_the_luma_of_the_colours() -> None:
    """A texture in one channel counts as that share of it in all three."""
    texture = crops(1)[:, :1]
    for channel, share in enumerate(lbp.GREY):
        colour = torch.zeros(1, 3, SIZE, SIZE)
        colour[:, channel] = texture[:, 0]
        grey = (texture.double() * 255 * share).round().float() / 255
        torch.testing.assert_close(
            LBP().describe(colour), LBP().describe(grey.expand(-1, 3, -1, -1))
        )


def test_no_faces_have_no_histograms() -> None:
    assert LBP().embed(torch.zeros(0, 3, 160, 160), torch.zeros(0, 5, 2)).shape == (0, 2891)


def test_the_crop_is_that_of_arcface_and_its_border() -> None:
    given = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    landmarks = (ARC112 + 2).expand(2, 5, 2)
    torch.testing.assert_close(LBP().embed(given, landmarks), LBP().describe(given))


def test_a_face_is_most_like_itself() -> None:
    chips = torch.rand(4, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    rows = LBP().embed(chips, chip_template().expand(4, 5, 2)).numpy()
    first, second = (side.astype(np.int32).ravel() for side in np.mgrid[:4, :4])
    zeros = np.zeros(16, np.int32)
    pairs = PairList("cross", first, second, first == second, zeros)
    scores = score(rows, rows, pairs, LBP.similarity).reshape(4, 4)
    np.testing.assert_array_equal(scores.argmax(1), np.arange(4))
    np.testing.assert_array_equal(np.diag(scores), 0)
