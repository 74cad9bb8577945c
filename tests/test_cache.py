from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deidbench.cache import Cache, digest, file_digest
from deidbench.errors import DeidbenchError


def compute() -> dict[str, np.ndarray]:
    return {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}


def test_what_is_stored_comes_back_bit_for_bit(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get("stage", "ab12", compute)
    again = cache.get("stage", "ab12", lambda: pytest.fail("computed twice"))
    np.testing.assert_array_equal(again["a"], compute()["a"])
    assert again["a"].dtype == np.float32
    assert again["b"].tolist() == [True, False]
    assert cache.misses == 1


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_entry_is_computed_anew(tmp_path: Path, damage: bytes | None) -> None:
    cache = Cache(tmp_path)
    cache.get("stage", "ab12", compute)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert cache.get("stage", "ab12", compute)["b"].tolist() == [True, False]
    assert cache.misses == 2


def test_a_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> dict[str, np.ndarray]:
        raise ValueError

    with pytest.raises(ValueError):
        Cache(tmp_path).get("stage", "ab12", fail)
    assert not list(tmp_path.rglob("*.*"))


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DeidbenchError, match="DEIDBENCH_HOME"):
        Cache(tmp_path / "file").get("stage", "ab12", compute)


def test_digests_tell_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1})


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="cannot read"):
        file_digest(tmp_path / "missing.jpg")
