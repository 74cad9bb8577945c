"""A pytest fixture, ``deidbench``: a project's own tests measure its method and guard a release.

It is found by its entry point wherever deidbench is installed, and costs nothing where no test asks
for the fixture: nothing heavy is imported before a method is measured.
"""

from __future__ import annotations

import re
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api import Run
    from .compare import Comparison

UPDATE = "--deidbench-update"
RUNS = "--deidbench-runs"


@dataclass
class Bench:
    """What the fixture offers."""

    runs: Path
    """Where run folders go."""
    update: bool = False
    """Whether baselines are written instead of compared with (``--deidbench-update``)."""
    _known: dict[str, Run] = field(default_factory=dict, repr=False)

    def evaluate(self, method: str | Callable[..., Any], **settings: Any) -> Run:
        """Measure a method; the same call in the same session measures once.

        Args:
            method: as for ``deidbench.evaluate``: a name, or a function of faces (N, 3, H, W) in
                [0, 1] to the same. Stages of a function of a module are kept between sessions.
            settings: as there: ``dataset``, ``protocol``, ``recognizers``, ``limit_subjects``, ...

        Raises:
            DeidbenchError: it cannot be measured, in one line.
        """
        from . import evaluate

        spec = _spec(method)
        key = repr((spec, sorted(settings.items())))
        if key not in self._known:
            out = self.runs / _folder_name(spec)
            self._known[key] = evaluate(spec, **{"out": out, "quiet": True, **settings})
        return self._known[key]

    def compare(
        self,
        run: Run | Path | str,
        baseline: Path | str,
        *,
        fail_on: Sequence[str] = (),
        certain: bool = False,
    ) -> Comparison | None:
        """Fail the test where a run is a regression from a baseline; else return the comparison.

        With ``--deidbench-update`` the run becomes the baseline, and None is returned.

        Args:
            baseline: a run folder that is kept with the project.
            fail_on: rules such as ``worst_case.tar > +0.02``; none: the default rule.

        Raises:
            AssertionError: a rule was broken, or there is no baseline yet.
            DeidbenchError: the two cannot be compared.
        """
        __tracebackhide__ = True
        if self.update:
            self.store_baseline(run, baseline)
            return None
        if not Path(baseline).exists():
            raise AssertionError(
                f"there is no baseline at {baseline}. Write one with: pytest {UPDATE}"
            )
        from .compare import compare

        found = compare(Path(baseline), _folder(run), fail_on=fail_on, certain=certain)
        if found.regressions:
            raise AssertionError(_complaint(found, baseline, run))
        return found

    def store_baseline(self, run: Run | Path | str, baseline: Path | str) -> Path:
        """Keep a run as the baseline, in place of an older one. Faces are left out.

        Raises ``DeidbenchError`` when ``run`` is no whole run, or another thing is in the way.
        """
        return _store(_folder(run), Path(baseline))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options; both do nothing in a project that does not ask for the fixture."""
    group = parser.getgroup("deidbench", "deidbench")
    group.addoption(
        UPDATE, action="store_true", default=False,
        help="write baselines instead of comparing with them",
    )  # fmt: skip
    group.addoption(
        RUNS, metavar="DIR", default=None, help="keep run folders here (default: a temporary one)"
    )


@pytest.fixture(scope="session")
def deidbench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Measure de-identification methods and compare them with a baseline: ``docs/ci.md``."""
    wanted = request.config.getoption(RUNS)
    runs = Path(wanted).absolute() if wanted else tmp_path_factory.mktemp("deidbench")
    return Bench(runs, update=request.config.getoption(UPDATE))


def _spec(method: str | Callable[..., Any]) -> str | Callable[..., Any]:
    """'python:module:function' of a function that is found under that name; else as it is."""
    module, name = (getattr(method, key, "") for key in ("__module__", "__qualname__"))
    if isinstance(method, str) or getattr(sys.modules.get(module), name, None) is not method:
        return method
    return f"python:{module}:{name}"


def _folder_name(spec: str | Callable[..., Any]) -> str:
    name = spec if isinstance(spec, str) else getattr(spec, "__name__", "")
    readable = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:40] or "method"
    return f"{readable}-{uuid.uuid4().hex[:8]}"


def _folder(run: Run | Path | str) -> Path:
    return Path(run) if isinstance(run, str | Path) else run.folder


def _complaint(found: Comparison, baseline: object, run: Run | Path | str) -> str:
    lines = [f"  {one.told}" for one in found.regressions]
    return "\n".join(
        [
            f"{found.head.method} is a regression from {baseline} ({found.base.method}):",
            *lines,
            *(f"  note: {note}" for note in found.notes),
            f"the whole page: deidbench compare {baseline} {_folder(run)} --out page",
            f"if this is meant: pytest {UPDATE}",
        ]
    )


def _store(run: Path, baseline: Path) -> Path:
    """Write beside the place, then take it; only another run may be replaced."""
    from .errors import DeidbenchError
    from .results import store

    store.validate(run)
    if baseline.exists() and not (baseline / store.RUN).is_file():
        raise DeidbenchError(f"{baseline} is no run, so it is not replaced. Name another folder.")
    baseline.parent.mkdir(parents=True, exist_ok=True)
    new = baseline.parent / f".{baseline.name}-{uuid.uuid4().hex}"
    old = new.with_name(f"{new.name}-old")
    try:
        _copy(run, new)
        if baseline.exists():
            baseline.rename(old)
        try:
            new.rename(baseline)
        except OSError:
            old.rename(baseline)
            raise
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
    return baseline


def _copy(run: Path, new: Path) -> None:
    """Record, scores and images; no faces, which a repository should not keep."""
    from .results import store

    new.mkdir()
    record = store.read_run(run).model_copy(update={"examples": []})
    (new / store.RUN).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name in (store.SCORES, store.IMAGES):
        shutil.copyfile(run / name, new / name)
    store.validate(new)
