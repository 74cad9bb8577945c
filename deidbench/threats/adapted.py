"""T3: the attacker has the method as an oracle, and learns on other faces what it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from . import _maps
from ._learner import Learner, Way


class Adapted(Learner):
    """Treated probes against a gallery of which the attacker has both versions.

    He learns from pairs (x, m(x)) of other people how to compare. ``WAYS``, the simplest first:

    - "as T1", "as T2": nothing is adapted, the recognizer's own similarity. All others: cosine.
    - "naive": clean against treated, each side centred: what a treatment does to all faces alike is
      taken away. "parrot": the same, treated against treated.
    - "whitened": treated against treated, where what varies within a person counts less.
    - "ridge": clean against g(treated), g linear with g(treated) ~ clean.
    - "fused": the weighted sum of naive, ridge and whitened; both versions are enrolled.
    - "network", "mlp", "fused mlp": naive, ridge and fused, with a small network behind each side.

    Penalties, shrinkages, weights and how long a network learns are chosen by folds over the people
    who are not held, the way among the held people; then it is fitted again on all.
    """

    id = "T3"
    title = "adapted"
    summary = "As T1 and T2, by an attacker who learned on other faces what the method does."
    enrolled = "both"
    probe = "treated"
    mapped_against = "clean"

    TRIED = ("ridge", "network")
    WAYS: ClassVar[Mapping[str, Way]] = {
        "as T1": lambda study: study.as_it_is("clean"),
        "as T2": lambda study: study.as_it_is("treated"),
        "naive": lambda _: _maps.naive,
        "parrot": lambda _: _maps.parrot,
        "whitened": lambda study: study.whitened,
        "ridge": lambda study: study.ridge,
        "fused": lambda study: study.fused,
        "network": lambda study: study.refined(_maps.naive),
        "mlp": lambda study: study.refined(study.ridge),
        "fused mlp": lambda study: study.refined(study.fused),
    }
