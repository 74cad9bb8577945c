"""The part of a page that moves: curves as data, Plotly from its package, and who may run.

The page names each script that it allows by its hash (Content-Security-Policy). What comes from a
run is data in JSON: it is never part of a script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from scipy.special import ndtri

from deidbench.errors import DeidbenchError
from deidbench.results.schema import Curve, MetricRow

from . import charts, figures, frontier, numbers, reading
from .files import Output
from .reading import Run

PLOTLY = "plotly.min.js"
BANNER = b"plotly.js v"
"""Stands at the head of every file of Plotly's."""
LONGEST_NAME = 48
SHOWN_FIRST = 24
"""Lines that are drawn when a page of several runs opens: more is a tangle."""
EDGE = 1e-9


@dataclass(frozen=True)
class Script:
    """How a page gets at Plotly: from within, from a file (``path``, '/' between folders)."""

    way: str
    path: str = ""


NONE, EMBED = Script("none"), Script("embed")


def read_script(text: str) -> Script:
    """'embed', 'none', 'beside' (a file next to the page) or the relative path of that file.

    Raises:
        DeidbenchError: it is none of these.
    """
    if text in ("embed", "none"):
        return Script(text)
    path = PLOTLY if text == "beside" else text.replace(os.sep, "/")
    odd = not path.isprintable() or "\\" in path or ":" in path or path.startswith("/")
    if odd or not path.endswith(".js"):
        raise DeidbenchError(
            f"--script expects embed, beside, none or a relative path that ends in .js, "
            f"but got '{numbers.plain(text)}'."
        )
    return Script("beside", path)


@functools.cache
def plotly_source() -> str:
    """The script of the installed ``plotly`` package, which itself is not imported.

    Raises:
        DeidbenchError: there is none, or it cannot stand inside a page.
    """
    spec = importlib.util.find_spec("plotly")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder) / "package_data" / PLOTLY
        if path.is_file():
            text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
            if "</script" in text.lower() or "<!--" in text or BANNER.decode() not in text[:200]:
                raise DeidbenchError(
                    f"{path} cannot stand inside a page; use --script beside or none."
                )
            return text
    raise DeidbenchError(
        "interactive charts need the package plotly, which is not installed. "
        "Run: pip install plotly, or use --script none."
    )


def output(script: Script, folder: Path) -> Iterator[Output]:
    """The file of a script that stands beside the page, unless the same is there already."""
    if script.way != "beside":
        return
    target = Path(os.path.normpath(folder / script.path))  # as addresses are read: by their text
    content = plotly_source().encode()
    if not (target.is_file() and target.read_bytes() == content):
        yield Output(target, content, BANNER)


def address(script: Script) -> str:
    """The file beside the page as a relative address."""
    return quote(script.path)


def policy(script: Script, ours: str) -> str:
    """What the page allows itself: nothing of the network, no script but those of these hashes.

    A file beside the page has no hash that a browser would check without a server: it is loaded by
    our own script, which alone may do that ('strict-dynamic').
    """
    allowed = ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"]
    if script.way == "embed":
        allowed.append(f"script-src {_hash(plotly_source())} {_hash(ours)}")
    elif script.way == "beside":
        allowed.append(f"script-src 'strict-dynamic' {_hash(ours)}")
    return "; ".join([*allowed, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def as_json(data: object) -> str:
    """JSON that can stand in a script element: it holds no '<', '>' and '&'."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


# What is drawn


def data(runs: Sequence[Run], far: float | None) -> dict[str, Any]:
    """All curves and points of a page, with the words that stand beside them."""
    names = list(dict.fromkeys(name for run in runs for name in run.recognizers))
    return {
        "recognizers": [_short(name) for name in names],
        "threats": {t: reading.ATTACKS[t].partition(":")[0] for t in figures.THREATS},
        "dashes": {t: _dash(t) for t in figures.THREATS},
        "runs": [{"letter": run.letter, "label": _short(run.label), "ink": charts.ink(i)}
                 for i, run in enumerate(runs)],
        "curves": [_curve(run, i, k, curve, len(runs) > 1)
                   for i, run in enumerate(runs) for k, name in enumerate(names)
                   for curve in run.curves(name) if curve.threat in figures.THREATS],
        "first": _first(runs, far),
        "deviates": _deviates(),
        "spots": {key: _spots(runs, rate)
                  for key, rate in _charts(far)},
        "far": far,
    }  # fmt: skip


def _charts(far: float | None) -> Iterator[tuple[str, float | None]]:
    yield "trade", None
    if far is not None:
        yield "trade-tar", far


def _short(name: str) -> str:
    return numbers.shortened(numbers.plain(name), LONGEST_NAME)


def _first(runs: Sequence[Run], far: float | None) -> dict[str, Any]:
    """What is shown at first: the recognizer of the worst case, and what is not too much."""
    names = list(dict.fromkeys(name for run in runs for name in run.recognizers))
    worst = runs[0].worst(far) or next(iter(runs[0].ranked("T1", far)), None)
    shown = figures.THREATS if len(runs) == 1 else ("T1", "T1w", "T3")
    name = worst.recognizer if worst and worst.recognizer in names else None
    return {
        "recognizer": names.index(name) if name is not None else 0,
        "threats": list(shown),
        "runs": list(range(min(len(runs), SHOWN_FIRST // 3))),
    }


def _curve(run: Run, i: int, k: int, curve: Curve, many: bool) -> dict[str, Any]:
    fmr, tar = figures.thinned(curve)
    auc = run.success(curve.threat, curve.recognizer, None)
    told = f"AUC {numbers.value(auc)} {numbers.interval(auc)}" if auc else ""
    return {
        "run": i, "recognizer": k, "threat": curve.threat,
        "ink": charts.ink(i) if many else curve.threat,
        "fmr": [float(f"{x:.5g}") for x in fmr], "tar": [round(float(y), 5) for y in tar],
        "auc": told.replace(numbers.SPACE, " ").strip(),
        "at": list(_operating_points(run, curve)),
    }  # fmt: skip


def _operating_points(run: Run, curve: Curve) -> Iterator[dict[str, Any]]:
    """Where the attacker stands with the thresholds that were fixed on other people."""
    for row in run.headline(curve.threat, curve.recognizer, "tar"):
        far = row.params.get("far")
        threshold = run.threshold(curve.threat, curve.recognizer, _number(far))
        for own in run.headline(curve.threat, curve.recognizer, "fmr"):
            if own.params.get("far") == far and None not in (own.value, row.value, threshold):
                yield {"far": far, "fmr": own.value, "tar": row.value, "threshold": threshold,
                       "ends": frontier.interval(row)}  # fmt: skip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _dash(threat: str) -> str:
    """The dashes of a threat in Plotly's words: pixels on and off."""
    style = figures.DASHES[threat]
    if style == "-":
        return "solid"
    return ",".join(f"{2 * length:g}px" for length in style[1])


def _deviates() -> list[list[float]]:
    """Normal deviates of rates, at even steps of the log odds: the axes of a DET plot."""
    odds = np.linspace(np.log(EDGE), -np.log(EDGE), 421)
    found = ndtri(1 / (1 + np.exp(-odds)))
    return [[round(float(x), 4) for x in odds], [round(float(y), 5) for y in found]]


def _spots(runs: Sequence[Run], far: float | None) -> dict[str, Any]:
    found = frontier.spots(runs, far)
    return {
        "points": [_spot(spot, runs) for spot in found],
        "paths": [{"ink": ink, "letters": letters} for ink, letters in charts.paths(runs)],
        "guess": 0.5 if far is None else far,
        "clean": max((s.clean for s in found if s.clean is not None), default=None),
        "rate": far is not None,
    }


def _spot(spot: frontier.Spot, runs: Sequence[Run]) -> dict[str, Any]:
    run, row = spot.run, spot.row
    own = row.threat if row.threat in figures.THREATS else "T1"
    return {
        "letter": run.letter, "label": _short(run.label),
        "attack": _short(f"{row.threat}, {row.recognizer}"),
        "ink": own if len(runs) == 1 else charts.run_ink(run, runs),
        "x": _value(spot.change), "y": spot.at,
        "xe": frontier.interval(spot.change), "ye": spot.ends,
    }  # fmt: skip


def _value(row: MetricRow) -> float:
    return row.value or 0.0
