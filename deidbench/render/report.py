"""One HTML page about one or several runs: a single file that opens offline.

Everything that comes from a run is text to be escaped. The page forbids itself any contact with
the network, and all scripts but its own (Content-Security-Policy), should an escape ever be missed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from deidbench.results import store
from deidbench.results.schema import MetricRow

from . import charts, details, frontier, interactive, numbers, reading, tables
from .files import GENERATOR, Output, write_outputs
from .interactive import EMBED, Script
from .reading import Run

MAX_FACES = 24
PAGE = "index.html"
HEAD = f'content="{GENERATOR}"'.encode()


@dataclass(frozen=True)
class Face:
    """One person: pictures with captions, the untreated one first."""

    name: str
    pictures: list[tuple[str, str]]


def write_report(
    runs: Sequence[Path], out: Path, *, show_faces: bool = False, script: Script = EMBED
) -> Path:
    """Write ``out/index.html`` about one or several run folders; returns its path.

    Faces of real people are shown only on request. An older page of ours is replaced at once;
    any other file of that name is left alone.

    Raises:
        DeidbenchError: a run cannot be read, the runs cannot stand side by side, or ``out``
            cannot be written.
    """
    read = read_runs(runs)
    write_outputs(list(page(read, Path(out), show_faces=show_faces, script=script)))
    return Path(out) / PAGE


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Runs by their folders, checked to be comparable."""
    return reading.open_runs([(store.read_run(folder), folder) for folder in folders])


def page(
    runs: list[Run], out: Path, *, show_faces: bool = False, script: Script = EMBED
) -> Iterator[Output]:
    """The page, and the script beside it where it asks for one."""
    content = {**_content(runs, show_faces), **_moving(runs, script)}
    text = environment().get_template("report.html.j2").render(content)
    yield from interactive.output(script, out)
    yield Output(out / PAGE, text.encode(), HEAD)


def environment() -> jinja2.Environment:
    """Templates that escape whatever they print."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("deidbench.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _moving(runs: list[Run], script: Script) -> dict[str, Any]:
    """Scripts, their data, and what the page allows itself."""
    ours = _source("report.js.j2")
    moves = script.way != "none"
    found = interactive.data(runs, reading.headline_far(runs)) if moves else {}
    return {
        "policy": interactive.policy(script, ours),
        "moves": moves,
        "plotly": Markup(interactive.plotly_source()) if script.way == "embed" else "",  # noqa: S704
        "beside": interactive.address(script),
        "script": Markup(ours),  # noqa: S704
        "chart_data": Markup(interactive.as_json(found)),  # noqa: S704
    }


def _source(name: str) -> str:
    """A template as it stands."""
    return jinja2.PackageLoader("deidbench.render").get_source(environment(), name)[0]


def _content(runs: list[Run], show_faces: bool) -> dict[str, Any]:
    """What the template prints."""
    far = reading.headline_far(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.recognizers))
    return {
        "generator": GENERATOR,
        "runs": runs,
        "many": len(runs) > 1,
        "title": title(runs),
        "protocol": runs[0].record.protocol,
        "summaries": [(run, reading.summary(run, far)) for run in runs],
        "differences": reading.differences(runs),
        "cards": _cards(runs[0], far) if len(runs) == 1 else [],
        **_attacks(runs, names, far),
        **_charts(runs, names, far),
        **_cost(runs),
        "unmeasured": [(run, details.unmeasured(run)) for run in runs],
        "faces": _faces([run for run in runs if _may_show(run, show_faces)]),
        "hidden": [run for run in runs if not _may_show(run, show_faces)],
        "details": [(run, details.details(run), tables.thresholds(run)) for run in runs],
        "commands": [(run, details.command(run)) for run in runs],
        "plain": numbers.plain,
    }


def _attacks(runs: list[Run], names: Sequence[str], far: float | None) -> dict[str, Any]:
    """Tables of who recognises whom."""
    searches = [(name, tables.search(name, runs, i)) for i, name in enumerate(names)]
    return {
        "meanings": meanings(runs),
        "heat": tables.heat(runs, far),
        "glance": tables.glance(runs, far),
        "attacks": [(name, tables.recognizer(name, runs, i)) for i, name in enumerate(names)],
        "searches": [(name, table) for name, table in searches if table.groups],
        "linkage": tables.linkage(runs, far),
        "learned": tables.learned(runs),
        "controls": [(run, tables.controls(run)) for run in runs],
        "views": tables.views(runs, far),
        "failures": tables.failures(runs),
        "worst_groups": tables.worst_groups(runs, far),
        "groups": tables.groups(runs, far),
    }


def _charts(runs: list[Run], names: Sequence[str], far: float | None) -> dict[str, Any]:
    weighed = [charts.trade_off(runs, rate) for rate in dict.fromkeys([None, far])]
    return {
        "legend": charts.legend(runs),
        "roc": [charts.roc(runs, name, i) for i, name in enumerate(names)],
        "cmc": list(charts.cmc(runs, names)),
        "det": [charts.det(runs, name, i) for i, name in enumerate(names)],
        "histograms": list(charts.histograms(runs, names, far)),
        "trade_off": [panel for panel in weighed if panel],
        "frontier": tables.trade_off(runs, far),
        "by_worst": frontier.by_worst(runs),
        "sweeps": frontier.sweeps(runs),
        "flattered": _trained_on_lpips(runs),
    }


def _cost(runs: list[Run]) -> dict[str, Any]:
    """Tables of what is left of the picture, and of speed."""
    return {
        "restored": tables.restored(runs),
        "detection": tables.other(
            runs, _about_detection, "detection", "How often a detector finds a face."
        ),
        "utility": tables.utility(runs),
        "trained": list(trained(runs)),
        "anatomy": tables.other(
            runs,
            lambda row: not (_about_detection(row) or _about_speed(row)),
            "anatomy",
            "What is left of the face: where its parts are, how it is turned, what it expresses.",
        ),
        "speed": tables.other(
            runs, _about_speed, "speed", "Speed and memory on the machine named below."
        ),
    }


# Parts of the page


def title(runs: Sequence[Run]) -> str:
    """The method, or the methods that are compared."""
    if len(runs) == 1:
        return runs[0].label
    names = list(dict.fromkeys(numbers.plain(run.record.method.name) for run in runs))
    return f"{_listed(names)} compared" if names[1:] else f"{names[0]}: {len(runs)} runs compared"


def meanings(runs: Sequence[Run]) -> str:
    """What the attackers have and know: those of the first protocol always, others where run."""
    met = {"T0", "T1", "T2", "T1w", *(threat for run in runs for threat in run.threats)}
    return " ".join(meaning for threat, meaning in reading.MEANINGS.items() if threat in met)


def _cards(run: Run, far: float | None) -> list[tuple[str, str, str, str]]:
    """The key figures, the worst case first: title, value, interval or remark, tone."""
    cards = [*_worst_card(run, far), *_attack_cards(run, far), *_other_cards(run)]
    return [(title, value, numbers.plain(remark), tone) for title, value, remark, tone in cards]


def _worst_card(run: Run, far: float | None) -> Iterator[tuple[str, str, str, str]]:
    row = run.worst(far)
    if row is not None:
        who = f"{row.threat} {reading.ATTACKS.get(row.threat or '', '').partition(':')[0]}"
        remark = f"{numbers.interval(row)} {who}, {row.recognizer}{_auc(run, row, far)}"
        yield "Worst case", _of(row, far), remark, f"worst-card {row.threat}"


def _attack_cards(run: Run, far: float | None) -> Iterator[tuple[str, str, str, str]]:
    titles = {
        "T1": "Naive attacker, worst", "T2": "Parrot attacker, worst",
        "T3": "Adapted attacker, worst", "T3f": "Fine-tuned attacker, worst",
    }  # fmt: skip
    for threat, heading in titles.items():
        for row in run.ranked(threat, far)[:1]:
            clean = run.success("T0", row.recognizer or "", far)
            if threat == "T1" and clean and clean.value is not None:
                remark = f"{numbers.interval(clean)} {clean.recognizer}"
                yield "Untreated faces", _of(clean, far), remark, "T0"
            remark = f"{numbers.interval(row)} {row.recognizer}{_auc(run, row, far)}"
            yield heading, _of(row, far), remark, threat


def _other_cards(run: Run) -> Iterator[tuple[str, str, str, str]]:
    noticed = run.detection("auc")
    if noticed:
        remark = f"{numbers.interval(noticed)} treated or not (T6)"
        yield "Treatment noticed", f"AUC {numbers.value(noticed)}", remark, "plain"
    for row in run.lpips():
        yield "Change of the image", numbers.value(row), "LPIPS, whole chip", "plain"
    for row in run.rows(metric="detection-rate"):
        if row.params.get("images") == "treated":
            yield "Treated faces found", numbers.value(row), numbers.interval(row), "plain"


def _auc(run: Run, row: MetricRow, far: float | None) -> str:
    """The AUC beside a rate: a threshold can fail an attacker who could set another."""
    auc = run.success(row.threat or "", row.recognizer or "", None)
    return f", AUC {numbers.value(auc)}" if auc and far is not None else ""


def _of(row: MetricRow, far: float | None) -> str:
    return f"AUC {numbers.value(row)}" if far is None else numbers.value(row)


def trained(runs: Sequence[Run]) -> Iterator[str]:
    """What each method was trained on among the image metrics, and what to read instead."""
    for run in runs:
        seen = run.record.method.trained_on_metrics
        if not seen:
            continue
        measured = dict.fromkeys(
            row.metric for row in run.rows(threat=None) if row.params.get("region") == "face"
        )  # what looks at the face alone as well compares pixels
        others = [numbers.title(name) for name in measured if name not in seen]
        advice = f"read {_listed(others)} beside it" if others else "they flatter it"
        names = _listed([numbers.title(name) for name in seen])
        yield numbers.plain(f"{_named(run, runs)} was trained on {names}: {advice}.")


def _trained_on_lpips(runs: Sequence[Run]) -> list[str]:
    """Names of the runs that the trade-off chart flatters: LPIPS is its axis."""
    found = [run for run in runs if "lpips" in run.record.method.trained_on_metrics]
    return [_named(run, runs) for run in found]


def _named(run: Run, runs: Sequence[Run]) -> str:
    return f"{run.letter} {run.label}" if len(runs) > 1 else run.label


def _listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _faces(runs: Sequence[Run]) -> list[Face]:
    """Faces before and after; treated by every run that shows the same person."""
    shown: dict[tuple[str, str], Face] = {}
    for run in runs:
        if run.folder is None:
            continue
        for name in run.record.examples[:MAX_FACES]:
            key = (run.record.dataset.sha256, name)
            if key not in shown:
                before = _picture(store.read_example(run.folder, name, "before"))
                shown[key] = Face(name, [("original", before)])
            after = _picture(store.read_example(run.folder, name, "after"))
            caption = (
                f"{run.letter} {run.label}" if run.letter != "A" or len(runs) > 1 else run.label
            )
            shown[key].pictures.append((caption, after))
    return list(shown.values())


def _may_show(run: Run, show_faces: bool) -> bool:
    return show_faces or run.record.dataset.synthetic


# Small helpers


def _about_detection(row: MetricRow) -> bool:
    return "detect" in row.metric or "found" in row.metric


def _about_speed(row: MetricRow) -> bool:
    return row.metric in ("images-per-second", "latency", "peak-memory")


def _picture(image: Image.Image) -> str:
    """A face as a data address: drawn anew from its pixels, so that nothing else comes along."""
    buffer = io.BytesIO()
    image.thumbnail((224, 224))
    image.save(buffer, format="PNG", compress_level=7)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
