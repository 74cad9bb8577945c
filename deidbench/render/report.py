"""One HTML page about one or several runs: a single file that opens offline.

Everything that comes from a run is text to be escaped. The page forbids itself scripts and any
contact with the network (Content-Security-Policy), should an escape ever be missed.
"""

from __future__ import annotations

import base64
import io
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from deidbench.errors import DeidbenchError
from deidbench.results import store
from deidbench.results.schema import MetricRow

from . import figures, numbers, reading, tables
from .reading import Run

GENERATOR = "deidbench report"
MAX_FACES = 24


@dataclass(frozen=True)
class Panel:
    """A chart with its heading; ``svg`` is ours and needs no escaping."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Face:
    """One person: pictures with captions, the untreated one first."""

    name: str
    pictures: list[tuple[str, str]]


def write_report(runs: Sequence[Path], out: Path, *, show_faces: bool = False) -> Path:
    """Write ``out/index.html`` about one or several run folders; returns its path.

    Faces of real people are shown only on request. An older page of ours is replaced at once;
    any other file of that name is left alone.

    Raises:
        DeidbenchError: a run cannot be read, the runs cannot stand side by side, or ``out``
            cannot be written.
    """
    read = reading.open_runs([(store.read_run(folder), folder) for folder in runs])
    page = _environment().get_template("report.html.j2").render(_content(read, show_faces))
    target = Path(out) / "index.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(target)
        _replace(target, page)
    except OSError as error:
        raise DeidbenchError(f"cannot write the report to {target}: {error.strerror}.") from error
    return target


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("deidbench.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _content(runs: list[Run], show_faces: bool) -> dict[str, Any]:
    """What the template prints."""
    far = reading.headline_far(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.recognizers))
    searches = [(name, tables.search(name, runs, i)) for i, name in enumerate(names)]
    return {
        "generator": GENERATOR,
        "runs": runs,
        "many": len(runs) > 1,
        "title": _title(runs),
        "protocol": runs[0].record.protocol,
        "summaries": [(run, reading.summary(run, far)) for run in runs],
        "differences": reading.differences(runs),
        "meanings": _meanings(runs),
        "cards": _cards(runs[0], far) if len(runs) == 1 else [],
        "glance": tables.glance(runs, far),
        "legend": _legend(runs),
        "roc": [_roc(runs, name, i) for i, name in enumerate(names)],
        "cmc": list(_cmc(runs, names)),
        "det": [_det(runs, name, i) for i, name in enumerate(names)],
        "histograms": list(_histograms(runs, names, far)),
        "trade_off": _trade_off(runs),
        "by_worst": _by_worst(runs),
        "flattered": _trained_on_lpips(runs),
        "attacks": [(name, tables.recognizer(name, runs, i)) for i, name in enumerate(names)],
        "searches": [(name, table) for name, table in searches if table.groups],
        "linkage": tables.linkage(runs, far),
        "learned": tables.learned(runs),
        "controls": [(run, tables.controls(run)) for run in runs],
        "restored": tables.restored(runs),
        "views": tables.views(runs, far),
        "detection": tables.other(
            runs, _about_detection, "detection", "How often a detector finds a face."
        ),
        "utility": tables.utility(runs),
        "trained": list(_trained(runs)),
        "anatomy": tables.other(
            runs,
            lambda row: not (_about_detection(row) or _about_speed(row)),
            "anatomy",
            "What is left of the face: where its parts are, how it is turned, what it expresses.",
        ),
        "speed": tables.other(
            runs, _about_speed, "speed", "Speed and memory on the machine named below."
        ),
        "worst_groups": tables.worst_groups(runs, far),
        "groups": tables.groups(runs, far),
        "unmeasured": [(run, _unmeasured(run)) for run in runs],
        "faces": _faces([run for run in runs if _may_show(run, show_faces)], many=len(runs) > 1),
        "hidden": [run for run in runs if not _may_show(run, show_faces)],
        "details": [(run, _details(run), tables.thresholds(run)) for run in runs],
        "commands": [(run, command(run)) for run in runs],
        "plain": numbers.plain,
    }


# Parts of the page


def _title(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return runs[0].label
    names = list(dict.fromkeys(numbers.plain(run.record.method.name) for run in runs))
    return f"{_listed(names)} compared" if names[1:] else f"{names[0]}: {len(runs)} runs compared"


def _meanings(runs: Sequence[Run]) -> str:
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
    for threat, title in titles.items():
        for row in run.ranked(threat, far)[:1]:
            clean = run.success("T0", row.recognizer or "", far)
            if threat == "T1" and clean and clean.value is not None:
                remark = f"{numbers.interval(clean)} {clean.recognizer}"
                yield "Untreated faces", _of(clean, far), remark, "T0"
            remark = f"{numbers.interval(row)} {row.recognizer}{_auc(run, row, far)}"
            yield title, _of(row, far), remark, threat


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


def _legend(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Colour, dashes and meaning of each line of the charts."""
    threats = [t for t in _drawn(runs) if any(t in run.threats for run in runs)]
    if len(runs) == 1:
        return [(t, t, f"{t} {reading.ATTACKS[t]}") for t in threats]
    lines = [(_ink(i), "T1", f"{run.letter}  {run.label}") for i, run in enumerate(runs)]
    return lines + [("soft", t, f"{t} {reading.ATTACKS[t]}") for t in threats]


def _drawn(runs: Sequence[Run]) -> tuple[str, ...]:
    """Threats that have lines: of several runs only some, since each has a colour per run."""
    return figures.THREATS if len(runs) == 1 else ("T0", "T1", "T1w", "T2", "T3")


def _lines(runs: Sequence[Run], name: str) -> list[figures.Line]:
    return [
        figures.Line(curve, curve.threat if len(runs) == 1 else _ink(i))
        for i, run in enumerate(runs)
        for curve in run.curves(name)
        if curve.threat in _drawn(runs)
    ]


def _roc(runs: Sequence[Run], name: str, index: int) -> Panel:
    lines = _lines(runs, name)
    label = f"ROC curves of {numbers.plain(name)} under {_under(lines)}"
    return Panel(name, Markup(figures.roc(lines, key=f"roc{index}", label=label)))  # noqa: S704


def _det(runs: Sequence[Run], name: str, index: int) -> Panel:
    lines = _lines(runs, name)
    label = f"DET curves of {numbers.plain(name)} under {_under(lines)}"
    return Panel(name, Markup(figures.det(lines, key=f"det{index}", label=label)))  # noqa: S704


def _cmc(runs: Sequence[Run], names: Sequence[str]) -> Iterator[Panel]:
    for index, name in enumerate(names):
        lines = [
            figures.RankLine(curve, curve.threat if len(runs) == 1 else _ink(i))
            for i, run in enumerate(runs)
            for curve in run.searches(name)
            if curve.threat in _drawn(runs)
        ]
        if lines:
            label = f"CMC curves of {numbers.plain(name)} under {_under(lines)}"
            svg = figures.cmc(lines, key=f"cmc{index}", label=label)
            yield Panel(name, Markup(svg))  # noqa: S704


def _under(lines: Sequence[figures.Line | figures.RankLine]) -> str:
    drawn = ", ".join(dict.fromkeys(line.curve.threat for line in lines)) or "nothing"
    return f"{drawn}; the tables hold the numbers"


def _histograms(runs: Sequence[Run], names: Sequence[str], far: float | None) -> Iterator[Panel]:
    for i, run in enumerate(runs):
        for k, name in enumerate(names):
            panels = [
                (f"{curve.threat} {reading.ATTACKS[curve.threat]}", curve)
                for curve in run.curves(name)
                if curve.threat in ("T0", "T1", "T1w")  # one threshold, fixed on clean faces
            ]
            if not panels:
                continue
            fixed = run.record.thresholds
            wanted = ("T0", name, far)
            at = next((t.value for t in fixed if (t.threat, t.recognizer, t.far) == wanted), None)
            title = f"{run.letter} {name}" if len(runs) > 1 else name
            label = f"Score histograms of {numbers.plain(title)}: genuine and impostor pairs"
            svg = figures.histograms(panels, at, key=f"hist{i}-{k}", label=label)
            yield Panel(title, Markup(svg))  # noqa: S704


def _trade_off(runs: Sequence[Run]) -> Panel | None:
    """AUC, which needs no threshold, of the strongest attacker over the image's change."""
    points, clean = [], []
    for i, run in enumerate(runs):
        worst = _strongest(run, _by_worst(runs))
        change = run.lpips()
        if not worst or not change:
            continue
        x, y = change[0], worst[0]
        own = y.threat if y.threat in figures.THREATS else "T1"  # a guest's has no colour
        ink = own if len(runs) == 1 else _ink(i)
        at, ends = _either_way(y)
        points.append(figures.Point(run.letter, ink, x.value or 0, at, _ends(x), ends))
        control = run.success("T0", y.recognizer or "", None)
        clean += [control.value] if control and control.value is not None else []
    if not points:
        return None
    listed = "; ".join(f"{p.letter}: LPIPS {p.x:.3g}, AUC {p.y:.3g}" for p in points)
    label = f"Attacker's AUC over change of the image. {listed}"
    svg = figures.trade_off(points, clean=max(clean, default=None), key="trade", label=label)
    return Panel("Privacy and utility", Markup(svg))  # noqa: S704


def _by_worst(runs: Sequence[Run]) -> bool:
    """Whether every run knows its worst case; else only the naive attackers can be compared."""
    return all(run.worst(None) for run in runs)


def _strongest(run: Run, by_worst: bool) -> list[MetricRow]:
    worst = run.worst(None) if by_worst else None
    return [worst] if worst else run.ranked("T1", None) or run.ranked("T1w", None)


def _either_way(row: MetricRow) -> tuple[float, tuple[float, float] | None]:
    """An AUC and its interval; below 0.5 an attacker turns the score around."""
    at, ends = row.value or 0.0, _ends(row)
    if not reading.flipped(row):
        return at, ends
    return 1 - at, ends and (1 - ends[1], 1 - ends[0])


def _trained(runs: Sequence[Run]) -> Iterator[str]:
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
        trained = _listed([numbers.title(name) for name in seen])
        yield numbers.plain(f"{_named(run, runs)} was trained on {trained}: {advice}.")


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


def _unmeasured(run: Run) -> list[tuple[str, str]]:
    """What a reader may miss, each with its reason."""
    record = run.record
    found = {_named_threat(one.what): one.why for one in record.not_measured}
    told = " ".join(found).lower()
    for one in record.recognizers:
        if one.status == "unavailable" and one.name.lower() not in told:
            found[f"recognizer {one.name}"] = one.reason or "unavailable"
    for limit in record.thresholds:
        lost = limit.value is None and limit.view == "landmarks"
        if lost and limit.recognizer.lower() not in told:
            found[f"{limit.recognizer} at FAR {limit.far:g}"] = limit.note or "undefined"
    if "human" not in told:
        found["human observers"] = "not measured: only people can tell"
    if not reading.adapted(record) and not any(word in told for word in ("t3", "adapt")):
        found["adapted attackers (T3 and above)"] = "not run"
    return [(numbers.plain(what), numbers.plain(why)) for what, why in found.items()]


def _named_threat(what: str) -> str:
    """'T5' alone says little: 'T5 linkage'."""
    return f"{what} {reading.ATTACKS[what].partition(':')[0]}" if what in reading.ATTACKS else what


def _faces(runs: Sequence[Run], *, many: bool) -> list[Face]:
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


def _details(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Environment, hashes, configuration: titled lists of names and values."""
    record = run.record
    machine = [(key, str(value)) for key, value in record.machine.model_dump().items() if value]
    hashes = [("dataset", record.dataset.sha256), ("split", record.split.sha256)]
    hashes += [("method weights", record.method.weights_sha256 or "no weights")]
    hashes += [(f"{one.name} weights", one.weights_sha256) for one in record.recognizers
               if one.weights_sha256]  # fmt: skip
    versions = [
        ("deidbench", record.deidbench_version),
        (record.method.name, record.method.version),
    ]
    versions += [(record.dataset.name, record.dataset.version)]
    versions += [(one.name, one.version) for one in record.recognizers]
    versions += [(one.id, one.version) for one in record.threats]
    metrics = {row.metric: row.version for row in record.rows}
    split = [(part, f"{n} subjects, {record.split.images.get(part, 0)} images")
             for part, n in record.split.subjects.items()]  # fmt: skip
    timings = [(t.stage, f"{numbers.number(t.seconds)} s, {t.images} images, {t.cached} cached")
               for t in record.timings]  # fmt: skip
    parts: list[tuple[str, list[tuple[str, Any]]]] = [
        ("Machine", machine), ("Versions", versions), ("Metric versions", list(metrics.items())),
        ("SHA-256", hashes), ("Configuration", list(record.config.items())),
        ("Protocol", list(record.protocol_settings.items())), ("Split", split),
        ("Faces lost", list(record.failures.items())), ("Timings", timings),
    ]  # fmt: skip
    return [(title, [(numbers.plain(k), numbers.plain(str(v))) for k, v in rows])
            for title, rows in parts if rows]  # fmt: skip


def command(run: Run) -> str:
    """The command that makes the same numbers again, given the same files."""
    config = {"method": run.record.method.name, "seed": run.record.seed, **run.record.config}
    words = ["deidbench", "evaluate"]
    if config.pop("adults_only", True) is False:
        words.append("--with-children")
    for name, value in dict(config.pop("settings", {})).items():
        words += ["--set", f"{name}={value}"]
    for key, value in config.items():
        flag = "--" + key.replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, ",".join(map(str, value))] if value else []
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return numbers.plain(shlex.join(words))


# Small helpers


def _about_detection(row: MetricRow) -> bool:
    return "detect" in row.metric or "found" in row.metric


def _about_speed(row: MetricRow) -> bool:
    return row.metric in ("images-per-second", "latency", "peak-memory")


def _ends(row: MetricRow) -> tuple[float, float] | None:
    return None if row.low is None or row.high is None else (row.low, row.high)


def _ink(index: int) -> str:
    return f"run{index % 8}"


def _picture(image: Image.Image) -> str:
    """A face as a data address: drawn anew from its pixels, so that nothing else comes along."""
    buffer = io.BytesIO()
    image.thumbnail((224, 224))
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _refuse_foreign(target: Path) -> None:
    """An older page of ours may be replaced, nothing else."""
    if not target.exists():
        return
    with target.open("rb") as file:
        ours = f'content="{GENERATOR}"'.encode() in file.read(2048)
    if not ours:
        raise DeidbenchError(f"{target} was not written by deidbench; name another folder.")


def _replace(target: Path, page: str) -> None:
    """Write beside the target, then take its place at once."""
    handle, name = tempfile.mkstemp(prefix=".index-", suffix=".html", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
