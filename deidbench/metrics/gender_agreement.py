"""Whether a face keeps the gender that deepface reads in it."""

from __future__ import annotations

from ._deepface import DeepFaceAttribute


class GenderAgreement(DeepFaceAttribute):
    """1 where deepface reads the same of two genders before and after, else 0; higher is better.

    A model's guess by looks: what a demographic count over treated images would lose.
    """

    name = "gender-agreement"
    unit = "fraction"
    higher_is_better = True
    model = "Gender"
