"""T1: the attacker holds a clean gallery and knows nothing of the method."""

from __future__ import annotations

from collections.abc import Sequence

from ._embedded import EmbeddedThreat


class Naive(EmbeddedThreat):
    """Treated probes, clean gallery, a recognizer that the method never saw in training."""

    id = "T1"
    title = "naive"
    summary = "Treated probes against a clean gallery, by a recognizer off the shelf."
    enrolled = "clean"
    probe = "treated"

    def applies(self, recognizer: str, trained_against: Sequence[str]) -> bool:
        """Only recognizers outside the method's training; those inside are T1w."""
        return recognizer not in trained_against
