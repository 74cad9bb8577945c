"""deidbench from Python and in notebooks: measure a method, open a run, look at it.

Light until something is asked for: everything heavy loads inside the functions.
"""

from __future__ import annotations

import inspect
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .checks import refuse_unknown, refuse_unwritable
from .config import RunConfig
from .errors import ControlError, DeidbenchError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from torch import Tensor

    from .render import reading
    from .results.schema import Curve, MetricRow, RunRecord
    from .types import FileMethod, Method

__all__ = ["ControlError", "DeidbenchError", "Run", "evaluate", "open_run"]

Setting = bool | int | float | str
PROMISED = ("name", "version", "strength", "trained_against")
"""What each method says of itself."""
ROOM = 48
"""Letters of a foreign name that are shown: a table and a legend have no more room."""
INK = {
    "T0": "#6d7480", "T1": "#c44e00", "T1w": "#a8447f", "P": "#7d6200", "T2": "#0069a8",
    "T3": "#00785a", "T3f": "#b3202c", "T4": "#5b4bb3", "T5": "#24788f",
}  # fmt: skip
"""Colours of the threats, as in reports; all of them also differ in their dashes."""
GENUINE, IMPOSTOR, SOFT = "#0069a8", "#c44e00", "#808080"


def evaluate(  # noqa: PLR0913 -- the settings of a run, each by its name
    method: str | Callable[..., Tensor] | Method | FileMethod,
    *,
    strength: float | None = None,
    settings: Mapping[str, bool | int | float | str] | None = None,
    weights: str | Path | None = None,
    dataset: str = "synthid",
    protocol: str | Path = "standard-v1",
    recognizers: str | Sequence[str] = (),
    metrics: str | Sequence[str] = (),
    pairs: Literal["cross", "official"] = "cross",
    aligned: bool = False,
    chip_size: int = 160,
    seed: int = 0,
    draws: int = 2000,
    limit_subjects: int | None = None,
    leave_out_trained: bool = False,
    adults_only: bool = True,
    strict: bool = False,
    device: str = "auto",
    batch_size: int = 32,
    out: str | Path | None = None,
    show_faces: bool = False,
    quiet: bool = False,
) -> Run:
    """Attack faces treated by a method, and measure what is left of them.

    The same as ``deidbench evaluate`` on the command line: the same cache, the same record, the
    same refusals. A call that was interrupted goes on where it was when it is made again.

    ```python
    import deidbench

    run = deidbench.evaluate("gaussian-blur", strength=0.8, recognizers="sface")
    run.summary()
    ```

    Args:
        method: ``NAME`` or ``NAME:ARGUMENT`` of an installed method (``deidbench list methods``),
            or a function of faces: float32 RGB (N, 3, H, W) in [0, 1] to the same. One with a
            parameter ``seed`` gets the seed, and must take all its randomness from there. Or a
            method as it was built, with its settings (the contract ``deidbench.types.Method``).
            Both treat all faces anew each time, as nothing says whether they are still the same;
            ``python:module:function`` names a function in a file, and keeps what it gave.
        strength: In [0, 1], larger = stronger; None is the method's own default.
        settings: Other settings of the method, by name.
        weights: Another file of weights, for a method that takes one.
        dataset: ``NAME`` or ``NAME:ARGUMENT``, as ``folder:faces``.
        protocol: Which attacks: a name (``deidbench protocols list``) or a TOML file.
        recognizers: Attackers' eyes, in a sequence or by comma; ``all`` for each that can be had.
            Empty means those that attack by default.
        metrics: More metrics, besides the default ones; written as recognizers are.
        pairs: ``cross`` for all pairs of different images, ``official`` for the dataset's list.
        aligned: The images are face chips already: do not warp them.
        chip_size: Side of a face chip in pixels, a multiple of 8 from 112 to 512.
        seed: Of the parts, of keys and noise, and of the bootstrap.
        draws: Bootstrap draws of people, 100 or more.
        limit_subjects: Only this many people, drawn by ``seed``; None for all.
        leave_out_trained: Leave out people that the method was trained on, instead of refusing.
        adults_only: Leave out children, where a dataset says who is one.
        strict: Stop at the first image that fails, instead of counting it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        batch_size: Faces at a time, 1 to 4096.
        out: The new run folder; None is ``runs/ID`` below the current folder.
        show_faces: Keep faces of real people in the run and its report.
        quiet: No progress on stderr.

    Returns:
        The run, as it lies in its folder.

    Raises:
        DeidbenchError: A name is unknown, a value out of range or the input of no use. Names and
            values are looked at before anything costs time.
        ControlError: An attack failed where its outcome is known, so that nothing can be trusted.
    """
    spec, given = (method, None) if isinstance(method, str) else ("", _given(method))
    if given is not None:
        _refuse_settings(strength=strength, settings=settings, weights=weights)
        spec, strength, settings = given.name, given.strength, getattr(given, "parameters", None)
    config = RunConfig(
        method=spec, strength=strength,
        settings=_settings(settings or {}), weights=_path(weights), dataset=dataset,
        protocol=str(protocol), recognizers=_names(recognizers), metrics=_names(metrics),
        pairs=pairs, aligned=aligned, chip_size=chip_size, seed=seed, draws=draws,
        limit_subjects=limit_subjects, leave_out_trained=leave_out_trained,
        adults_only=adults_only, strict=strict, device=device, batch_size=batch_size,
        out=_path(out), show_faces=show_faces,
    )  # fmt: skip
    refuse_unknown(config, named=given is None)
    refuse_unwritable(config.out or Path("runs") / "new")
    from .harness import evaluate as run
    from .progress import Progress

    with warnings.catch_warnings():
        # Of a library whose bars nobody shows; a notebook would tell its reader to install one.
        warnings.filterwarnings("ignore", message="IProgress not found")
        folder, record = run(config, Progress(quiet=quiet), given)
    return Run(record, folder)


def open_run(folder: str | Path) -> Run:
    """Open a run folder that ``evaluate`` or the command line has left.

    Args:
        folder: The folder that holds ``run.json``.

    Returns:
        The run. Its tables are read when they are asked for.

    Raises:
        DeidbenchError: It is no run, or one of another schema version.
    """
    from .results.store import read_run

    return Run(read_run(Path(folder)), Path(folder))


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished run: its record, its tables, its charts. A notebook shows its findings.

    Tables are read once, when they are first asked for. Numbers of the headline are those that
    reports begin with: attackers who know where the face is, comparing different photographs.
    """

    record: RunRecord
    """All that ``run.json`` holds."""
    folder: Path
    """Where the run lies."""

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every comparison, a row each.

        Columns ``threat``, ``recognizer`` and ``view`` (categories); ``reference`` and ``probe``,
        row numbers of ``images``, equal where an image was compared with its own treated version;
        ``score``, a similarity, NaN where a face was lost; ``genuine``, whether both show one
        person.
        """
        from .results.store import read_scores

        table: pd.DataFrame = read_scores(self.folder).to_pandas()
        subject = self.images["subject"].astype("category").cat.codes.to_numpy()
        sides = (subject[table[side].to_numpy()] for side in ("reference", "probe"))
        reference, probe = sides
        return table.assign(genuine=reference == probe)

    @cached_property
    def images(self) -> pd.DataFrame:
        """Every image, a row each, in the order that scores number them by.

        Its id, person and part; whether its face was found, treated and found again; what went
        wrong; image metrics; labels.
        """
        from .results.store import read_images

        return read_images(self.folder)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Every number of the record, a row each, with its interval from ``low`` to ``high``.

        Settings of a metric have columns of their own (``far``, ``region``, ``batch``, ...). A
        number that could not be had has a ``value`` of NaN and a ``note`` that says why.
        """
        import pandas as pd

        from .results.schema import MetricRow

        fields = [name for name in MetricRow.model_fields if name != "params"]
        rows = []
        for row in self.record.rows:
            told = {name: getattr(row, name) for name in fields}
            more = {k if k not in told else f"{k}_setting": v for k, v in row.params.items()}
            rows.append(told | more)
        settings = sorted({name for row in rows for name in row} - {*fields})
        place = fields.index("value")
        table = pd.DataFrame(rows, columns=[*fields[:place], *settings, *fields[place:]])
        return table.astype(dict.fromkeys(("value", "low", "high"), "float64"))

    @property
    def worst_case(self) -> MetricRow | None:
        """The attack with the largest upper bound of success, which the method is judged by.

        At a false accept rate of 0.01 where that is defined, else at the smallest one that is, or
        by AUC. None where nothing could be measured.
        """
        return self._reading.worst(self._far)

    def summary(self) -> list[str]:
        """The findings in plain sentences, the worst case first."""
        from .render import reading

        return reading.summary(self._reading, self._far)

    def plot_roc(self, ax: Axes | None = None, *, recognizer: str | None = None) -> Axes:
        """Draw the share of genuine pairs that is accepted over the false match rate (log axis).

        One curve a threat: that of a recognizer, or else of the one that does best.

        Args:
            ax: What to draw on; None for a new figure.
            recognizer: Whose curves; None for the strongest one of each threat.

        Raises:
            DeidbenchError: The run has no curve of that recognizer, or none at all.
        """
        curves = self._curves(recognizer)
        floor = min([0.1, *(rate for one in curves for rate in one.fmr if rate > 0)])
        axes = _canvas(ax)
        chance = [floor * (1 / floor) ** (step / 50) for step in range(51)]
        axes.plot(chance, chance, color=SOFT, linewidth=1, label="guessing")
        for one in curves:
            axes.plot(one.fmr, one.tar, **self._pen(one))
        axes.set(xscale="log", xlim=(floor, 1), ylim=(-0.02, 1.02))
        axes.set(xlabel="false match rate", ylabel="genuine pairs accepted")
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        self._finish(axes, "ROC")
        return axes

    def plot_det(self, ax: Axes | None = None, *, recognizer: str | None = None) -> Axes:
        """Draw the detection error trade-off: errors of both kinds, on axes of normal deviates.

        A recognizer whose scores are normal gives a straight line, and guessing the diagonal. The
        data of the axes are rates. (Martin et al. 1997, Eurospeech.)

        Args:
            ax: What to draw on; None for a new figure.
            recognizer: Whose curves; None for the strongest one of each threat.

        Raises:
            DeidbenchError: The run has no curve of that recognizer, or none at all.
        """
        curves = self._curves(recognizer)
        low, high = _error_range(curves)
        axes = _canvas(ax)
        _deviate_axes(axes, low, high)
        steps = [low + (high - low) * step / 100 for step in range(101)]
        axes.plot(steps, [1 - x for x in steps], color=SOFT, linewidth=1, label="guessing")
        for one in curves:
            made = [(x, t) for x, t in zip(one.fmr, one.tar, strict=True) if low <= x <= high]
            missed = [min(max(1 - t, low), high) for _, t in made]
            axes.plot([x for x, _ in made], missed, **self._pen(one))
        axes.set(xlabel="false match rate", ylabel="false non-match rate")
        self._finish(axes, "DET")
        return axes

    def plot_scores(
        self, ax: Axes | None = None, *, threat: str | None = None, recognizer: str | None = None
    ) -> Axes:
        """Draw how scores of one person's pairs and of two people's pairs are spread.

        The further the heaps lie apart, the better the attacker tells people apart.

        Args:
            ax: What to draw on; None for a new figure.
            threat: Whose scores; None for those of the worst case.
            recognizer: By whom; None for the worst case's, or the one that does best.

        Raises:
            DeidbenchError: The run has no such attack.
        """
        one = self._attack(threat, recognizer)
        axes = _canvas(ax)
        for counts, ink, label in (
            (one.impostor_histogram, IMPOSTOR, "two people"),
            (one.genuine_histogram, GENUINE, "one person"),
        ):
            shares = [count / max(sum(counts), 1) for count in counts]
            axes.stairs(shares, one.histogram_edges, fill=True, color=ink, alpha=0.3)
            axes.stairs(shares, one.histogram_edges, color=ink, label=label)
        threshold = self._reading.threshold(one.threat, one.recognizer, self._far)
        if threshold is not None:
            axes.axvline(threshold, color=SOFT, linestyle=":", label=f"at FAR {self._far:g}")
        axes.set(xlabel="similarity score", ylabel="share of comparisons")
        axes.set_ylim(bottom=0)
        self._finish(axes, f"{one.threat} by {_brief(one.recognizer)}")
        return axes

    def report(self, out: str | Path | None = None, *, show_faces: bool = False) -> Path:
        """Write the HTML page about this run, which opens offline.

        Args:
            out: Folder of the page; None for ``report`` in the run's own.
            show_faces: Show faces of real people, where the run has them.

        Returns:
            The path of the page.

        Raises:
            DeidbenchError: The page cannot be written, or another file has its name.
        """
        from .render.report import write_report

        folder = self.folder / "report" if out is None else Path(out)
        return write_report([self.folder], folder, show_faces=show_faces)

    def __repr__(self) -> str:
        return f"<Run: {self._title}; {self._worst_in_short}>\n{self.folder}"

    def _repr_html_(self) -> str:
        """What a notebook shows: no script, no colour that needs a light or a dark page."""
        import jinja2

        from .render import numbers

        said = numbers.title("auc" if self._far is None else "tar", self._far)
        more = [] if self._far is None else ["AUC"]
        page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        return page.from_string(_HTML).render(
            title=self._title, findings=self.summary(), footnote=self._footnote(),
            head=["Attack", "Recognizer", said, "", *more, "EER"],
            lines=[self._line(threat) for threat in self._reading.threats],
        )  # fmt: skip

    @cached_property
    def _reading(self) -> reading.Run:
        from .render import reading

        return reading.Run(self.record, self.folder)

    @cached_property
    def _far(self) -> float | None:
        """The false accept rate of the headline; None where none is defined."""
        from .render import reading

        return reading.headline_far([self._reading])

    @property
    def _method(self) -> str:
        method = self.record.method
        strength = "" if method.strength is None else f" (strength {method.strength:g})"
        return f"{_brief(method.name)}{strength}"

    @property
    def _faces(self) -> str:
        dataset = self.record.dataset
        kind = "synthetic" if dataset.synthetic else "real"
        return f"{_brief(dataset.label)} ({kind} faces), {_brief(self.record.protocol)}"

    @property
    def _title(self) -> str:
        return f"{self._method} on {self._faces}"

    @property
    def _worst_in_short(self) -> str:
        from .render import numbers

        row = self.worst_case
        if row is None:
            return "no worst case"
        what = numbers.title("auc" if self._far is None else "tar", self._far)
        value = f"{numbers.value(row)} {numbers.interval(row)}".rstrip()
        told = f"worst case {row.threat} by {_brief(row.recognizer or '?')}: {what} {value}"
        return told.replace(numbers.SPACE, " ")

    def _line(self, threat: str) -> dict[str, Any] | None:
        """The strongest recognizer under a threat; None where a threat names no people."""
        from .render import numbers, reading

        ranked = self._reading.ranked(threat, self._far)
        if not ranked:
            return None
        name = ranked[0].recognizer or ""
        auc = self._reading.success(threat, name, None)
        eer = next(iter(self._reading.headline(threat, name, "eer")), None)
        others = [] if self._far is None else [_told(auc)]
        short = reading.ATTACKS.get(threat, "").partition(":")[0]
        return {
            "names": [f"{_brief(threat)} {short}".strip(), _brief(name)],
            "success": _told(ranked[0]), "bar": _bar(ranked[0]),
            "others": [*others, numbers.value(eer) if eer else numbers.DASH],
        }  # fmt: skip

    def _footnote(self) -> str:
        """What it cost, what is unknown, and which run this is."""
        from .render import numbers

        whole = self._reading.rows(metric="ssim", threat=None)
        ssim = [row for row in whole if row.params.get("region") == "chip"]
        cost = [
            f"{numbers.title(row.metric)} {numbers.value(row)}"
            for row in (*self._reading.lpips(), *ssim)
        ]
        record = self.record
        lost = [f"{n} {name.replace('_', ' ')}" for name, n in record.failures.items() if n]
        parts = [*cost, f"{record.dataset.n_subjects} people, {record.dataset.n_samples} images"]
        parts += [f"images lost: {', '.join(lost)}"] if lost else []
        parts += [f"{len(record.controls)} controls held"] if record.controls else []
        parts.append(f"{len(record.not_measured)} things not measured, see the report")
        return numbers.plain(f"{'; '.join(parts)}. Run {record.run_id}.")

    def _curves(self, recognizer: str | None) -> list[Curve]:
        """The headline curves to draw, in the order of the ladder."""
        run = self._reading
        if recognizer is not None:
            found = run.curves(recognizer)
        else:
            ranked = [run.ranked(threat, self._far) for threat in run.threats]
            best = {(rows[0].threat, rows[0].recognizer) for rows in ranked if rows}
            known = (curve for name in run.recognizers for curve in run.curves(name))
            found = [one for one in known if (one.threat, one.recognizer) in best]
        if not found:
            whose = "any recognizer" if recognizer is None else f"'{recognizer}'"
            raise DeidbenchError(f"this run has no curve of {whose}. {self._had()}")
        order = list(run.threats)
        return sorted(found, key=lambda one: order.index(one.threat))

    def _attack(self, threat: str | None, recognizer: str | None) -> Curve:
        """The headline curve of one attack."""
        run, worst = self._reading, self.worst_case
        if threat is None and recognizer is None and worst is not None:
            threat, recognizer = worst.threat, worst.recognizer
        wanted = [threat] if threat else list(run.threats)[::-1]
        ranked = [row for one in wanted for row in run.ranked(one, self._far)]
        known = {(c.threat, c.recognizer): c for name in run.recognizers for c in run.curves(name)}
        for row in ranked:
            key = (row.threat or "", row.recognizer or "")
            if recognizer in (None, row.recognizer) and key in known:
                return known[key]
        asked = f"{threat or 'any threat'} by {recognizer or 'any recognizer'}"
        raise DeidbenchError(f"this run has no scores of {asked}. {self._had()}")

    def _had(self) -> str:
        run = self._reading
        return f"It has: {', '.join(run.recognizers)}; {', '.join(run.threats)}."

    def _pen(self, curve: Curve) -> dict[str, Any]:
        """Colour, dashes and name of a curve."""
        from .render.figures import DASHES

        return {
            "color": INK.get(curve.threat, SOFT), "linestyle": DASHES.get(curve.threat, "-"),
            "label": f"{_brief(curve.threat)} by {_brief(curve.recognizer)}",
        }  # fmt: skip

    def _finish(self, axes: Axes, what: str) -> None:
        import matplotlib as mpl

        axes.grid(visible=True, alpha=0.3)
        title = f"{what}: {self._method}\n{self._faces}"
        axes.set_title(title, fontsize="medium", parse_math=False)
        with mpl.rc_context({"text.parse_math": False}):  # names are text, never formulas
            axes.legend(fontsize="small")


# What is given in Python


class _Given:
    """A method as it was built, of which nothing is kept for the next run.

    Its text does not tell what it reads besides: two closures share their file, and the names of a
    notebook change from cell to cell.
    """

    def __init__(self, method: Method | FileMethod) -> None:
        self._method = method
        self.fingerprint = secrets.token_hex(16)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy asks for these before it has a method
            raise AttributeError(name)
        return getattr(self._method, name)


def _given(method: Callable[..., Tensor] | Method | FileMethod) -> Any:
    """A method, or a function as one.

    Raises:
        DeidbenchError: it is neither.
    """
    if inspect.isclass(method) or not (_acts(method) or callable(method)):
        what = f"the class {method.__name__}" if inspect.isclass(method) else f"{method!r:.60}"
        raise DeidbenchError(
            f"evaluate: a method is a name, a function of faces or a method as it was built, but "
            f"got {what}. Give one of these."
        )
    if not _acts(method):
        from .methods.python import Python

        return _Given(Python(cast("Callable[..., Tensor]", method)))
    lacking = [name for name in PROMISED if not hasattr(method, name)]
    if lacking:
        raise DeidbenchError(
            f"evaluate: {type(method).__name__} is no method, as it lacks {', '.join(lacking)}. "
            "Add what deidbench.types.Method asks for."
        )
    return _Given(cast("Method", method))


def _acts(method: object) -> bool:
    return hasattr(method, "deidentify") or hasattr(method, "treat")


def _refuse_settings(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise DeidbenchError(
                f"evaluate: {name}={value!r} is for a method that is named. Build yours with it."
            )


def _settings(given: Mapping[str, Setting]) -> tuple[tuple[str, Setting], ...]:
    for name in ("strength", "weights"):
        if name in given:
            raise DeidbenchError(f"settings: {name} is a parameter of its own. Write {name}=...")
    return tuple(given.items())


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    """'dlib, sface' or a sequence of names."""
    listed = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in listed if name.strip())


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


# How things are shown


_HTML = """\
{% macro cell(text, tag="td") -%}
<{{ tag }} style="text-align:left;padding:.1em .8em .1em 0"><bdi>{{ text }}</bdi></{{ tag }}>
{%- endmacro -%}
{% macro bar(start, length, value) -%}
<td aria-hidden="true" style="padding:0 .8em 0 0">
<div style="position:relative;width:8em;height:.8em;background:rgba(128,128,128,.25)">
<div style="position:absolute;top:0;bottom:0;left:{{ start }}%;width:{{ length }}%;\
background:#d9730d;opacity:.5"></div>
<div style="position:absolute;top:-.1em;bottom:-.1em;left:{{ value }}%;width:3px;\
margin-left:-1px;background:#d9730d"></div></div></td>
{%- endmacro -%}
<div style="max-width:60em;overflow-x:auto;overflow-wrap:anywhere">
<p style="margin:.4em 0"><strong>{{ title }}</strong></p>
{% for finding in findings[:1] %}<p style="margin:.4em 0">{{ finding }}</p>{% endfor %}
<table style="margin:.6em 0;font-size:inherit">
<thead><tr>{% for one in head %}{{ cell(one, "th" if one else "td") }}{% endfor %}</tr></thead>
<tbody>{% for line in lines if line %}
<tr>{% for name in line.names %}{{ cell(name) }}{% endfor %}
{{ cell(line.success) }}{{ bar(*line.bar) }}
{% for other in line.others %}{{ cell(other) }}{% endfor %}</tr>{% endfor %}
</tbody>
</table>
<details><summary>All findings</summary>
<ul>{% for finding in findings[1:] %}<li>{{ finding }}</li>{% endfor %}</ul></details>
<p style="margin:.4em 0;font-size:smaller">{{ footnote }}</p>
</div>"""


def _brief(text: str) -> str:
    """A name from outside, cut in the middle: names of a family differ at their ends."""
    from .render import numbers

    name = numbers.plain(text)
    return name if len(name) <= ROOM else f"{name[: ROOM // 2]}…{name[-ROOM // 2 + 1 :]}"


def _told(row: MetricRow | None) -> str:
    from .render import numbers

    if row is None:
        return numbers.DASH
    return f"{numbers.value(row)}{numbers.SPACE}{numbers.interval(row, digits=2)}".rstrip()


def _bar(row: MetricRow) -> list[float]:
    """Where an interval begins, how long it is, and where the value lies, in percent."""
    value = row.value or 0.0
    ends = [100 * min(max(value if x is None else x, 0), 1) for x in (row.low, row.high, value)]
    return [round(x, 1) for x in (ends[0], ends[1] - ends[0], ends[2])]


def _canvas(ax: Axes | None) -> Axes:
    """What to draw on."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def _error_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """The rates that both axes of a DET plot run between."""
    rates = [0.01, 0.9, *(x for one in curves for x in (*one.fmr, *(1 - t for t in one.tar)))]
    between = [rate for rate in rates if 0 < rate < 1]
    return max(min(between), 1e-4), min(max(between), 0.995)


def _deviate_axes(axes: Axes, low: float, high: float) -> None:
    """Space both axes by the normal deviate of a rate."""
    from matplotlib.ticker import FixedLocator, NullLocator
    from scipy.special import ndtr, ndtri

    ticks = [rate for rate in (1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99) if low <= rate <= high]
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set_xscale("function", functions=(ndtri, ndtr))
    axes.set_yscale("function", functions=(ndtri, ndtr))
    axes.set(xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda rate, _: f"{100 * rate:g} %")
