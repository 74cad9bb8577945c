"""T1w: as T1, by a recognizer that the method was trained against. Never averaged with T1."""

from __future__ import annotations

from collections.abc import Sequence

from ._embedded import EmbeddedThreat


class WhiteBox(EmbeddedThreat):
    """Treated probes, clean gallery, a recognizer from the method's own training."""

    id = "T1w"
    title = "white box"
    summary = "As T1, but by a recognizer the method was trained against: the method's home game."
    enrolled = "clean"
    probe = "treated"

    def applies(self, recognizer: str, trained_against: Sequence[str]) -> bool:
        """Only recognizers of the method's training."""
        return recognizer in trained_against
