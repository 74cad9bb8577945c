"""The attacks of a finished run, rebuilt from its stored scores: the same numbers again, or others.

Thresholds are those of the record: the scores that fixed them, of other people, are not stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import plugins, statistics
from .measure import Attack, Before, Ruler, attack_rows, paired_rows
from .pairs import PairList
from .results import store
from .results.schema import MetricRow, PairKind, RunRecord, ThresholdRecord
from .split import EVAL
from .types import View

if TYPE_CHECKING:
    import pandas as pd

    from .types import IntArray


@dataclass(frozen=True)
class Stored:
    """What a run left of its attacks."""

    record: RunRecord
    subjects: IntArray
    """A number for each image's person, (N,); those that are measured come first, from 0."""
    n_measured: int
    """People who are measured."""
    scores: pd.DataFrame
    """The columns of ``store.SCORE_SCHEMA``."""

    def known(self) -> list[tuple[str, str, View]]:
        """Threat, recognizer and view of each attack, in the order of the record."""
        columns = self.scores[["threat", "recognizer", "view"]].drop_duplicates()
        return [(str(t), str(r), v) for t, r, v in columns.itertuples(index=False)]

    def attack(self, threat: str, recognizer: str, view: View = "landmarks") -> Attack | None:
        """An attack on different images (cross-image pairs or an official list), as measured."""
        table = self._table(threat, recognizer, view)
        if not len(table):
            return None
        return Attack(
            threat, recognizer, view, self._pairs(table), table["score"].to_numpy(np.float32),
            self._thresholds(threat, recognizer, view), self._before(threat, recognizer),
        )  # fmt: skip

    def ruler(self, metrics: Sequence[Any]) -> Ruler:
        """What the run's numbers were measured with: the same draws of people."""
        config = self.record.config
        weights = statistics.draw_weights(
            self.n_measured, draws=int(config["draws"]), seed=int(config["seed"])
        )
        return Ruler(metrics, self.subjects, weights)

    def _table(self, threat: str, recognizer: str, view: View) -> pd.DataFrame:
        table = self.scores
        chosen = (
            (table["threat"] == threat)
            & (table["recognizer"] == recognizer)
            & (table["view"] == view)
            & (table["reference"] != table["probe"])  # same-image pairs are kept with the others
        )
        return table[chosen]

    def _pairs(self, table: pd.DataFrame) -> PairList:
        reference, probe = (table[name].to_numpy(np.int32) for name in ("reference", "probe"))
        same = self.subjects[reference] == self.subjects[probe]
        kind: PairKind = "official" if self.record.config.get("pairs") == "official" else "cross"
        return PairList(kind, reference, probe, same, np.zeros(len(same), np.int64))

    def _before(self, threat: str, recognizer: str) -> Before | None:
        """The same comparisons of clean faces, where they were stored in the same order."""
        if threat == "T0":
            return None
        table = self._table("T0", recognizer, "landmarks")
        thresholds = self._thresholds("T0", recognizer, "landmarks")
        return Before(table["score"].to_numpy(np.float32), thresholds) if len(table) else None

    def _thresholds(self, threat: str, recognizer: str, view: View) -> list[ThresholdRecord]:
        wanted = (threat, recognizer, view)
        fixed = self.record.thresholds
        return [one for one in fixed if (one.threat, one.recognizer, one.view) == wanted]


def read_stored(folder: Path) -> Stored:
    """What a run folder holds of its attacks.

    Raises:
        DeidbenchError: it is no whole run.
    """
    record, images = store.read_run(folder), store.read_images(folder)
    measured = images.loc[images["part"] == EVAL, "subject"]
    names = list(dict.fromkeys([*measured, *images["subject"]]))
    number = {name: i for i, name in enumerate(names)}
    subjects = np.array([number[name] for name in images["subject"]], np.int32)
    scores = store.read_scores(folder).to_pandas()
    return Stored(record, subjects, measured.nunique(), scores)


def verification_metrics(names: Iterable[str]) -> list[Any]:
    """The installed metrics of comparisons among these names."""
    wanted = set(names)
    found = [plugins.build("metrics", name) for name in plugins.names("metrics") if name in wanted]
    return [metric for metric in found if metric.kind in ("verification", "paired")]


def rebuilt_rows(stored: Stored) -> Iterator[MetricRow]:
    """The rows of attacks on different images that the record claims, from its scores."""
    metrics = verification_metrics(row.metric for row in stored.record.rows)
    ruler = stored.ruler(metrics)
    for key in stored.known():
        attack = stored.attack(*key)
        if attack is not None:
            yield from attack_rows(attack, ruler)
            yield from paired_rows(attack, ruler)
