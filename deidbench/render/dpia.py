"""An appendix on technical measures for a data protection impact assessment (DPIA) of one run.

It says who was assumed to attack, with what, what they still achieve, and what nobody measured. It
shows no faces and holds no scripts, and is tied to the run's files by their hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deidbench.errors import DeidbenchError
from deidbench.results.schema import MetricRow

from . import details, numbers, reading, tables
from .files import GENERATOR, Output
from .reading import Run
from .seal import CHECK, Seal, seal
from .tables import Table

HEAD = f'content="{GENERATOR}"'.encode()


@dataclass(frozen=True)
class Attacker:
    """An attacker that was assumed, and whether he was let loose on the faces."""

    id: str
    title: str
    summary: str
    means: str


@dataclass(frozen=True)
class Appendix:
    """What both forms of the appendix print."""

    run: Run
    seal: Seal
    attackers: list[Attacker]
    absent: details.Pairs
    parameters: details.Pairs
    risks: list[tuple[str, list[str]]]
    ladder: Table
    thresholds: Table
    controls: Table
    groups: Table
    unmeasured: details.Pairs
    split: details.Pairs
    command: str
    check: str = CHECK
    generator: str = GENERATOR


def appendices(runs: Sequence[Run], out: Path) -> Iterator[Output]:
    """``dpia.html`` and ``dpia.md``; of several runs one pair each, named by letter."""
    from .exports import md, md_table
    from .report import environment

    templates = environment()
    plain = environment()
    plain.autoescape = False  # Markdown has escapes of its own
    plain.filters |= {"md": md, "table": md_table}
    for run in runs:
        content = {"a": appendix(run), "plain": numbers.plain}
        name = f"dpia-{run.letter}" if len(runs) > 1 else "dpia"
        page = templates.get_template("dpia.html.j2").render(content)
        text = plain.get_template("dpia.md.j2").render(content)
        yield Output(out / f"{name}.html", page.encode(), HEAD)
        yield Output(out / f"{name}.md", text.encode())


def appendix(run: Run) -> Appendix:
    """All that the appendix says about a run.

    Raises:
        DeidbenchError: the run has no folder, or is not whole, so that nothing ties it to files.
    """
    if run.folder is None:
        raise DeidbenchError("an appendix for a DPIA needs a run folder, whose hash it names.")
    far = reading.headline_far([run])
    return Appendix(
        run, seal(run.folder), list(_attackers(run)), list(_absent(run)), list(_parameters(run)),
        [(title, texts) for title, texts in _risks(run, far) if texts], _ladder(run, far),
        tables.thresholds(run), tables.controls(run), tables.worst_groups([run], far),
        details.unmeasured(run), details.plain_pairs(details.split(run)), details.command(run),
    )  # fmt: skip


# Who attacks


def _attackers(run: Run) -> Iterator[Attacker]:
    for threat in run.record.threats:
        names = [name for name in run.recognizers if run.success(threat.id, name, None)]
        means = f"with {', '.join(names)}" if names else "without a recognizer of faces"
        taught = any(one.threat == threat.id for one in run.record.learned)
        people = run.record.split.subjects.get("attacker-train", 0)
        more = f", after learning from {people} other people" if taught and people else ""
        yield Attacker(
            numbers.plain(threat.id), numbers.plain(threat.title), numbers.plain(threat.summary),
            numbers.plain(f"{means}{more}"),
        )  # fmt: skip


def _absent(run: Run) -> Iterator[tuple[str, str]]:
    """Rungs of the ladder that nobody climbed."""
    there = {threat.id for threat in run.record.threats}
    told = reading.not_run(run.record)
    for threat, title in reading.ATTACKS.items():
        if threat not in there:
            reasons = [why for ids, why in told.items() if threat in ids.split(", ")]
            why = reasons[0] if reasons else "not part of this protocol"
            yield f"{threat} {title.partition(':')[0]}", numbers.plain(why)


def _parameters(run: Run) -> Iterator[tuple[str, str]]:
    """What was measured, with what settings, on whom."""
    record, method, data = run.record, run.record.method, run.record.dataset
    seen = ", ".join(method.trained_against) or "no recognizer"
    strength = "" if method.strength is None else f", strength {method.strength:g}"
    found = {
        "method": f"{method.name}, version {method.version}{strength}",
        "its settings": ", ".join(f"{k} = {v}" for k, v in method.parameters.items()) or "none",
        "its weights (SHA-256)": method.weights_sha256 or "no weights",
        "trained against": seen,
        "trained on image metrics": ", ".join(method.trained_on_metrics) or "none",
        "faces": f"{data.label}, {'synthetic' if data.synthetic else 'real people'}; "
                 f"{data.n_subjects:,} people in {data.n_samples:,} images",
        "faces (SHA-256)": data.sha256,
        "split (SHA-256)": record.split.sha256,
        "face chip": f"{record.chip_size} pixels wide and high",
        "protocol": record.protocol,
        "false accept rates": ", ".join(f"{far:g}" for far in reading.fars([run])) or "none",
        "pairs": tables.PAIR_TITLES[run.pairs],
        "intervals": f"95 %, bootstrap over people, {record.config.get('draws', '?')} draws, "
                     f"seed {record.seed}",
    }  # fmt: skip
    for name, value in found.items():
        yield name, numbers.plain(value)


# What is left of the risk


def _risks(run: Run, far: float | None) -> Iterator[tuple[str, list[str]]]:
    """By the three questions of Opinion 05/2014 on anonymisation techniques (WP 216)."""
    yield "Overall", list(_overall(run, far))
    yield "Singling out: can a person be recognised?", reading.summary(run, far)
    yield "Linkability: can two treated photos of a person be linked?", list(_linked(run, far))
    yield "Inference: what can still be read from a treated face?", list(_inferred(run))
    yield "Groups: who is protected least?", list(_groups(run, far))
    yield "Lost faces", list(_lost(run))


def _overall(run: Run, far: float | None) -> Iterator[str]:
    worst = run.worst(far) or next(iter(run.ranked("T1", far)), None)
    if worst is None or worst.value is None:
        yield "No attack has a number, so nothing can be said of the risk that is left."
        return
    name = numbers.plain(f"{worst.threat}, {worst.recognizer}")
    if far is None:
        yield (f"The strongest attack that was run ({name}) reaches an AUC of {_told(worst)}: "
               "0.5 is guessing, 1 is certainty.")  # fmt: skip
    else:
        yield (f"Of 100 comparisons of a treated photo with another photo of the same person, the "
               f"strongest attack that was run ({name}) accepts about "
               f"{_hundred(worst.value)}{_between(worst)}, while it takes another person for them "
               f"in 1 comparison of {1 / far:,.0f}.")  # fmt: skip
    yield from _against_untreated(run, worst, far)
    adapted = reading.adapted(run.record)
    yield (
        "This is a lower bound: whoever has more data, better recognizers or several photos of a "
        "person can do better." + ("" if adapted else " No attacker learned from treated faces.")
    )
    yield "Treated faces are pseudonymous at best; nothing here shows that they are anonymous."


def _against_untreated(run: Run, worst: MetricRow, far: float | None) -> Iterator[str]:
    clean = run.success("T0", worst.recognizer or "", far)
    if clean is None or clean.value is None or worst.value is None:
        return
    verb = "lowers" if worst.value < clean.value else "does not lower"
    said = f"{_told(clean)} without treatment, {_told(worst)} with it"
    what = "the AUC" if far is None else "the share of pairs accepted"
    yield f"Against this attack treatment {verb} {what}: {said}."


def _hundred(share: float) -> str:
    points = 100 * share
    return f"{points:.0f}" if points >= 1 or points == 0 else "fewer than 1"


def _between(row: MetricRow) -> str:
    if row.low is None or row.high is None:
        return ""
    return f" ({100 * row.low:.0f} to {100 * row.high:.0f} with 95 % confidence)"


def _told(row: MetricRow) -> str:
    return f"{numbers.value(row)} {numbers.interval(row)}".rstrip()


def _linked(run: Run, far: float | None) -> Iterator[str]:
    found = [row for name in run.recognizers for row in run.headline("T5", name, "d-sys")]
    ranked = sorted((row for row in found if row.value is not None), key=lambda r: -(r.value or 0))
    for row in run.ranked("T5", far)[:1]:
        what = "an AUC of" if far is None else "accepts"
        tail = "" if far is None else f" of the pairs that show one person, at {numbers.odds(far)}"
        yield f"T5 with {numbers.plain(row.recognizer or '')}: {what} {_told(row)}{tail}."
    for row in ranked[:1]:
        yield f"D_sys {_told(row)}: 0 where nothing can be linked, 1 where everything can."
    if not ranked and not run.ranked("T5", far):
        yield "Not measured."


def _inferred(run: Run) -> Iterator[str]:
    """Attributes that a model reads from treated faces as it does from the originals."""
    wanted = ("expression-agreement", "gender-agreement", "age-difference", "expression-accuracy")
    rows = [row for name in wanted for row in run.rows(metric=name, threat=None)]
    for row in rows:
        if row.value is not None:
            yield f"{tables.setting(row)}: {_told(row)}."
    if not any(row.value is not None for row in rows):
        yield "Age, gender and expression: not measured."
    noticed = run.detection("auc")
    if noticed:
        yield f"That a face was treated is told with an AUC of {_told(noticed)} (T6)."


def _groups(run: Run, far: float | None) -> Iterator[str]:
    if not any(row.group for row in run.record.rows):
        yield "The faces carry no labels of groups, so nobody knows who is protected least."
    else:
        yield "The table of groups below names, for each attack, the group it recognises best."


def _lost(run: Run) -> Iterator[str]:
    lost = [f"{n} {stage}" for stage, n in details.failures(run) if n]
    yield numbers.plain(f"Images lost: {', '.join(lost)}." if lost else "No image was lost.")


def _ladder(run: Run, far: float | None) -> Table:
    """The strongest recognizer of each attack."""
    rate = [] if far is None else [far]
    heads = tables.titles("attack", "recognizer", *(numbers.title("tar", f) for f in rate), "AUC")
    about = "Each attack with the recognizer that achieves most; the worst case is marked."
    table = Table("ladder", about, heads)
    worst = run.worst(far)
    for threat in run.threats:
        for row in run.ranked(threat, far)[:1]:
            name = row.recognizer or ""
            marked = bool(worst and (worst.threat, worst.recognizer) == (threat, name))
            title = f"{threat} {reading.ATTACKS.get(threat, '').partition(':')[0]}"
            cells = [table.cell(run.success(threat, name, f)) for f in (*rate, None)]
            flag = tables.Cell(numbers.plain(name), flag="worst case" if marked else "")
            table.extend("", [tables.head(title), flag, *cells])
    return table
