"""A report in other forms: Markdown, a LaTeX table, a CSV of all numbers; and all forms at once.

Texts of a run are escaped for each form, so that a name can neither format, link nor compute.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deidbench.errors import DeidbenchError
from deidbench.results.schema import MetricRow

from . import details, dpia, numbers, papers, reading, report, tables
from .files import GENERATOR, Output, write_outputs
from .interactive import EMBED, Script
from .reading import Run
from .tables import Cell, Table

FORMATS = ("html", "md", "latex", "csv", "figures", "dpia")
MARKDOWN, LATEX, CSV, FIGURES = "report.md", "table.tex", "metrics.csv", "figures"


def export(
    folders: Sequence[Path],
    out: Path,
    formats: Sequence[str] = ("html",),
    *,
    show_faces: bool = False,
    script: Script = EMBED,
) -> list[Path]:
    """Write a report about one or several run folders in these forms; returns the files.

    Args:
        formats: of ``FORMATS``. show_faces, script: of the HTML page alone.

    Raises:
        DeidbenchError: an unknown form, a run that cannot be read or stand beside the others, or
            a place that cannot be written to.
    """
    for unknown in [one for one in formats if one not in FORMATS]:
        raise DeidbenchError(
            f"--format expects {', '.join(FORMATS)}, but got '{numbers.plain(unknown)}'."
        )
    runs, out = report.read_runs(folders), Path(out)
    makers: dict[str, Callable[[], Iterator[Output]]] = {
        "html": lambda: report.page(runs, out, show_faces=show_faces, script=script),
        "md": lambda: iter([Output(out / MARKDOWN, markdown(runs).encode())]),
        "latex": lambda: iter([Output(out / LATEX, latex(runs).encode())]),
        "csv": lambda: iter([Output(out / CSV, metrics_csv(runs).encode(), _head().encode())]),
        "figures": lambda: papers.paper_figures(runs, out / FIGURES),
        "dpia": lambda: dpia.appendices(runs, out),
    }
    return write_outputs([one for name in dict.fromkeys(formats) for one in makers[name]()])


# Markdown


def markdown(runs: Sequence[Run]) -> str:
    """The report as Markdown: findings, attacks, trade-off, gaps; no charts and no faces."""
    far = reading.headline_far(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.recognizers))
    many = len(runs) > 1
    parts = [f"<!-- {GENERATOR} -->", f"# {md(report.title(runs))}: face de-identification report"]
    parts += [f"> {md(text)}" for text in reading.differences(runs)]
    for run in runs:
        about = _about(run)
        parts.append(f"## {md(f'{run.letter} {run.label}')}" if many else "## Findings")
        parts += [about, *_bullets(reading.summary(run, far))]
    parts += ["## What each attacker still achieves", md(report.meanings(runs))]
    parts += [md_table(table) for table in (tables.heat(runs, far), tables.linkage(runs, far))]
    parts += ["## Privacy and utility", md_table(tables.trade_off(runs, far))]
    parts += [md_table(tables.utility(runs)), *_bullets(list(report.trained(runs)))]
    parts += ["## All numbers, by recognizer"]
    for i, name in enumerate(names):
        parts += [f"### {md(name)}", md_table(tables.recognizer(name, runs, i))]
    parts += ["## Lost faces", md_table(tables.failures(runs)), md_table(tables.views(runs, far))]
    for run in runs:
        parts += list(_end(run, many))
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(run: Run) -> str:
    data = run.record.dataset
    kind = "synthetic faces" if data.synthetic else "real faces"
    people = f"{data.n_subjects:,} people in {data.n_samples:,} images"
    return md(f"{data.label} ({kind}), {people}; protocol {run.record.protocol}; "
              f"run {run.record.run_id}, made {run.record.created[:10]}.")  # fmt: skip


def _end(run: Run, many: bool) -> Iterator[str]:
    """Gaps, controls, hashes and the command of a run."""
    named = f" of {run.letter}" if many else ""
    gaps = [f"**{md(what)}:** {md(why)}" for what, why in details.unmeasured(run)]
    yield f"## What was not measured{md(named)}"
    yield "\n".join(f"- {gap}" for gap in gaps)
    yield f"{len(run.record.controls)} controls were tried, and all held." if (
        run.record.controls) else "The protocol tried no controls."  # fmt: skip
    yield f"## Details{md(named)}"
    for title, rows in details.details(run):
        if title in ("Machine", "SHA-256 of the files", "SHA-256 of what was used", "Split"):
            yield f"### {md(title)}"
            yield "\n".join(f"- {md(name)}: {md(value)}" for name, value in rows)
    yield f"To do it again: {md(details.command(run))}"


def _bullets(texts: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {md(text)}" for text in texts)] if texts else []


def md(text: str) -> str:
    """Text that Markdown shows as it is: no tags, links, emphasis or tables."""
    plain = numbers.plain(text).strip()
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*_{}|~#$])", r"\\\1", plain)
    plain = re.sub(r"\](?=[(\[:])", r"\\]", plain)
    plain = re.sub(r"(?<=[A-Za-z]):(?=//)", r"&#58;", plain)
    plain = re.sub(r"(?i)\bwww\.", "www&#46;", plain)
    plain = plain.replace("@", "&#64;")
    plain = re.sub(r"^([-+=])", r"\\\1", plain)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", plain)


def md_table(table: Table) -> str:
    """A table of the page as a pipe table, with its caption above and notes below."""
    if not table.groups:
        return ""
    heads = [md(f"{name} {setting}".strip()) for name, setting in table.head]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for title, rows in table.groups:
        if title:
            lines.append(_line([f"**{md(title)}**", *[""] * (len(heads) - 1)]))
        lines += [_line([_md_cell(cell) for cell in row]) for row in rows]
    notes = [f"{i}. {md(note)}" for i, note in enumerate(table.notes, 1)]
    parts = [md(table.caption), "\n".join(lines), "\n".join(notes)]
    parts += [md(remark) for remark in table.remarks]
    return "\n\n".join(part for part in parts if part)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md_cell(cell: Cell) -> str:
    marks = "".join(f"^{mark}^" for mark in cell.marks)
    parts = [md(cell.text) + marks, md(cell.interval), md(cell.more)]
    parts += [f"**{md(cell.flag)}**"] if cell.flag else []
    return " ".join(part for part in parts if part)


# LaTeX

TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}", "'": r"{\textquotesingle}",
    numbers.MINUS: r"$-$",
    numbers.DASH: r"\textendash{}", numbers.SPACE: "~", "…": r"\dots{}", "\u2032": r"$'$",
}  # fmt: skip
"""Signs that LaTeX reads as its own."""
LAST_LATIN = 0x24F
LONGEST = 40


def tex(text: str) -> str:
    """Text that LaTeX sets as it is; letters that its fonts lack become '?'."""
    signs = (
        TEX.get(sign, sign if ord(sign) <= LAST_LATIN else "?") for sign in numbers.plain(text)
    )
    return re.sub(r"-(?=-)", "-{}", "".join(signs))


def latex(runs: Sequence[Run]) -> str:
    """A table for a paper (package booktabs): a method a row, intervals below the numbers."""
    far = reading.headline_far(runs)
    threats = [t for t in reading.LADDER if t not in ("T0", "T6")
               and any(run.ranked(t, far) for run in runs)]  # fmt: skip
    heads = ["Method", "Worst case", *threats, "LPIPS", "SSIM"]
    body = [line for run in runs for line in _tex_rows(_tex_cells(run, threats, far))]
    what = "AUC" if far is None else f"Genuine pairs accepted (\\%) at FAR {far:g}"
    sources = [
        numbers.plain(f"% run {run.record.run_id}, protocol {run.record.protocol}") for run in runs
    ]
    return "\n".join([
        f"% {GENERATOR}; needs \\usepackage{{booktabs}} and \\usepackage{{textcomp}}", *sources,
        r"\begin{table*}", r"\centering", r"\small",
        f"\\caption{{{what} by the strongest recognizer of each attack, with 95\\,\\% intervals"
        f"{_of_faces(runs)}. Lower is more private; LPIPS and SSIM are of the whole face chip.}}",
        r"\label{tab:deidbench}",
        f"\\begin{{tabular}}{{l{'c' * (len(heads) - 1)}}}", r"\toprule",
        " & ".join(map(tex, heads)) + r" \\", r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}", r"\end{table*}", "",
    ])  # fmt: skip


def _of_faces(runs: Sequence[Run]) -> str:
    labels = dict.fromkeys(
        f"{run.record.dataset.label}{' (synthetic faces)' if run.record.dataset.synthetic else ''}"
        for run in runs
    )
    return f", on {tex(', '.join(labels))}"


def _tex_cells(run: Run, threats: Sequence[str], far: float | None) -> list[tuple[str, str]]:
    """Value and interval of each column."""
    worst = run.worst(far)
    found = [worst, *(next(iter(run.ranked(t, far)), None) for t in threats)]
    found += [next(iter(run.lpips()), None), _chip(run, "ssim")]
    name = tex(numbers.shortened(run.label, LONGEST))
    # After the end of the row above, '[' and '*' would be its options.
    named = (re.sub(r"^\s*([\[*])", r"{\1}", name), "")
    return [named, *(("--", "") if row is None else _tex_number(row) for row in found)]


def _tex_number(row: MetricRow) -> tuple[str, str]:
    text = numbers.value(row).removesuffix(f"{numbers.SPACE}%")  # the caption says percent
    return tex(text), tex(numbers.interval(row))


def _chip(run: Run, metric: str) -> MetricRow | None:
    rows = run.rows(metric=metric, threat=None)
    return next((row for row in rows if row.params.get("region") == "chip"), None)


def _tex_rows(cells: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield " & ".join(value for value, _ in cells) + r" \\"
    ends = [f"{{\\footnotesize {interval}}}" if interval else "" for _, interval in cells]
    if any(ends):
        yield " & ".join(ends) + r" \\[2pt]"


# CSV

OF_RUN = ("run_id", "created", "protocol", "method", "method_version", "strength", "dataset",
          "synthetic")  # fmt: skip
OF_ROW = ("threat", "recognizer", "pairs", "view", "group", "metric", "metric_version", "far", "k",
          "fpir", "region", "other_params", "value", "low", "high", "unit", "higher_is_better",
          "n_genuine", "n_impostor", "n_failed", "n", "note")  # fmt: skip
OWN_PARAMS = ("far", "k", "fpir", "region")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How texts begin that a spreadsheet would compute."""


def metrics_csv(runs: Sequence[Run]) -> str:
    """All numbers of all runs, one row each, in full precision; what is missing is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*OF_RUN, *OF_ROW])
    for run in runs:
        about = _run_cells(run)
        for row in run.record.rows:
            writer.writerow([csv_cell(value) for value in (*about, *_row_cells(row))])
    return buffer.getvalue()


def _head() -> str:
    return ",".join([*OF_RUN, *OF_ROW])


def _run_cells(run: Run) -> list[object]:
    record = run.record
    return [
        record.run_id, record.created, record.protocol, record.method.name, record.method.version,
        record.method.strength, record.dataset.label, record.dataset.synthetic,
    ]  # fmt: skip


def _row_cells(row: MetricRow) -> list[object]:
    others = {key: value for key, value in row.params.items() if key not in OWN_PARAMS}
    told = "; ".join(f"{key}={value}" for key, value in others.items())
    cells: dict[str, object] = {**row.model_dump(), "metric_version": row.version,
                                "other_params": told}  # fmt: skip
    cells |= {name: row.params.get(name) for name in OWN_PARAMS}
    return [cells[name] for name in OF_ROW]


def csv_cell(value: object) -> object:
    """A cell as it is written: numbers as they are, texts so that no spreadsheet computes them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    plain = numbers.plain(value)
    return f"'{plain}" if plain.lstrip().startswith(FORMULA) or value[:1] in FORMULA else plain
