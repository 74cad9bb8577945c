"""T5: are two published faces of one person? Neither is clean, and each has a key of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from . import _maps
from ._learner import Learner, Way


class Linkage(Learner):
    """A treated face against another photo of the same person, treated with another key.

    The better one of T2 and T3 as far as they go without a clean face: the attacker compares the
    recognizer's embeddings as they are ("as T2"), centred ("parrot"), by a metric in which what
    varies within a person and between keys counts less ("whitened"), behind the linear map towards
    clean faces that T3 learns ("mapped"), by the weighted sum of these ("fused"), and with a small
    network behind each side ("fused mlp"). He learns and chooses as in T3.
    """

    id = "T5"
    title = "linkage"
    summary = "Treated faces against each other, another photo and another key."
    enrolled = "treated"
    probe = "treated"
    rekeys = True
    mapped_against = "treated"

    TRIED = ("whitened", "mapped")
    WAYS: ClassVar[Mapping[str, Way]] = {
        "as T2": lambda study: study.as_it_is("treated"),
        "parrot": lambda _: _maps.parrot,
        "whitened": lambda study: study.whitened,
        "mapped": lambda study: study.ridge,
        "fused": lambda study: study.fused,
        "fused mlp": lambda study: study.refined(study.fused),
    }
