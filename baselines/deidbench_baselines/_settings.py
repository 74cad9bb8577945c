"""Settings that several methods check alike."""

from __future__ import annotations

from deidbench.errors import DeidbenchError


def checked_strength(method: str, strength: float | None) -> float:
    """The strength, 0.5 where none is given.

    Raises:
        DeidbenchError: it lies outside [0, 1].
    """
    strength = 0.5 if strength is None else strength
    if not 0 <= strength <= 1:
        raise DeidbenchError(f"{method}: strength must be in [0, 1], but got {strength}.")
    return strength


def checked_count(method: str, setting: str, value: int) -> int:
    """The value of a setting that counts something.

    Raises:
        DeidbenchError: it is no whole number of at least 1.
    """
    if not isinstance(value, int) or value < 1:
        raise DeidbenchError(
            f"{method}: {setting} must be a whole number of at least 1, but got {value!r}."
        )
    return value


def require_one(method: str, setting: str, strength: float | None, value: float | None) -> None:
    """Raise ``DeidbenchError`` if both a strength and the setting that it stands for are given."""
    if strength is not None and value is not None:
        raise DeidbenchError(
            f"{method}: strength sets {setting}, but got strength {strength} and {setting} "
            f"{value}; give one of them."
        )
