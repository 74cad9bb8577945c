"""A release must not protect people less than the one before."""

from __future__ import annotations

from pathlib import Path

from veil import veil

BASELINE = Path(__file__).parents[1] / "privacy" / "baseline"


def test_people_are_protected_as_before(deidbench):
    run = deidbench.evaluate(
        veil, protocol="quick-v1", recognizers=["sface"], limit_subjects=9, draws=200
    )
    deidbench.compare(run, BASELINE, fail_on=["default", "T1.auc > +0.05", "lpips > +0.02"])


def test_a_run_is_measured_once_a_session(deidbench):
    again = deidbench.evaluate(
        veil, protocol="quick-v1", recognizers=["sface"], limit_subjects=9, draws=200
    )
    assert len(list(again.folder.parent.iterdir())) == 1
    assert again.record.method.name == "python:veil"
