"""Who may import whom: the rules that keep each part replaceable."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import deidbench_baselines
import pytest

import deidbench
import fadenet

ROOTS = {
    package.__name__: Path(str(package.__file__)).parent
    for package in (deidbench, deidbench_baselines, fadenet)
}
LEAVES = {"types", "errors", "geometry", "assets", "images", "yunet"}
CLOSED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "geometry": set(),
    "assets": {"errors"},
    "images": {"errors"},
    "yunet": {"errors", "assets"},
    "photos": LEAVES | {"progress", "treatment"},
    "plugins": {"errors"},
    "protocols": {"errors", "cache"},
    "testing": {"types", "errors", "geometry"},
    "datasets": LEAVES,
    "methods": LEAVES,
    "recognizers": LEAVES,
    # An attacker who chooses between attacks scores and measures them.
    "threats": LEAVES | {"pairs", "statistics"},
    "metrics": LEAVES | {"statistics"},
    "results": LEAVES,
    "render": {"results", "types", "errors"},
    "deidbench_baselines": LEAVES,
    "fadenet": LEAVES,
}
EXTRA = {
    # The training half of fadenet loads data, aligns it, and meets recognizers by name.
    "fadenet.train": {"plugins"},
    "fadenet.losses": {"metrics"},  # what is minimised is what is measured
    "fadenet.validation": {"plugins"},
    "fadenet.samples": {"plugins", "alignment"},
    "fadenet.faces": {"plugins", "alignment"},
    # Methods that attack a recognizer meet it by name.
    "deidbench_baselines._adversarial": {"plugins"},
}
GUESTS = {"deidbench_baselines", "fadenet"}
OFF_LIMITS = {
    "cli": GUESTS,
    "__main__": GUESTS,
    "commands": GUESTS | {"cli"},
    "api": GUESTS | {"cli"},  # a run shows itself, so it renders
    # All others are the harness and its parts: plugins are met by name, never by import.
    "harness": GUESTS | {"cli", "render", "testing", "datasets", "recognizers", "metrics"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package, root in ROOTS.items():
        for path in root.rglob("*.py"):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def part(module: str) -> str:
    """The row of the table that a module belongs to: 'datasets' for deidbench.datasets.lfw."""
    package, *rest = module.split(".")
    return rest[0] if package == "deidbench" and rest else package


def imported(module: str, source: str, *, is_package: bool) -> Iterator[str]:
    """Full names of all modules that a module imports, wherever in its text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = module.split(".")[: len(module.split(".")) - node.level + is_package]
            base = ".".join([*(up if node.level else []), *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def violations(module: str, source: str, *, is_package: bool = False) -> set[str]:
    """The parts of ours that a module imports against the rules."""
    own = part(module)
    used = {
        part(name)
        for name in imported(module, source, is_package=is_package)
        if name.split(".")[0] in ROOTS
    } - {own, "deidbench"}  # the bare package holds nothing but the version
    if own in CLOSED:
        return used - CLOSED[own] - EXTRA.get(module, set())
    return used & OFF_LIMITS.get(own, OFF_LIMITS["harness"])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_place_allows(module: str) -> None:
    path = MODULES[module]
    source = path.read_text("utf-8")
    wrong = violations(module, source, is_package=path.name == "__init__.py")
    assert not wrong, f"{module} must not import {sorted(wrong)}"


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("deidbench.harness", "import fadenet.model", {"fadenet"}),
        ("deidbench.harness", "from .metrics.auc import AreaUnderCurve", {"metrics"}),
        ("deidbench.stages", "def f():\n    from deidbench import cli", {"cli"}),
        ("deidbench.types", "from . import errors", {"errors"}),
        ("deidbench.datasets.lfw", "from ..plugins import load", {"plugins"}),
        ("deidbench.datasets.lfw", "from .. import plugins, errors", {"plugins"}),
        ("deidbench.datasets.lfw", "from ._scan import scan", set()),
        ("deidbench.render.report", "from deidbench.geometry import warp", {"geometry"}),
        ("deidbench.cli", "from .harness import evaluate", set()),
        (
            "deidbench.cli",
            "if True:\n    import deidbench_baselines.blackout",
            GUESTS - {"fadenet"},
        ),
        ("fadenet.train", "from deidbench import plugins", set()),
        ("fadenet.model", "from deidbench import plugins", {"plugins"}),
        ("fadenet.model", "import torch, numpy as np", set()),
        ("deidbench.harness", "from . import __version__", set()),
    ],
)
def test_the_rules_catch_what_they_forbid(module: str, source: str, wrong: set[str]) -> None:
    assert violations(module, source) == wrong


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("deidbench.datasets", "from ..plugins import load", {"plugins"}),
        ("deidbench.datasets", "from .lfw import LFW", set()),
        ("deidbench.datasets.synthid", "from ...cli import main", {"cli"}),
        ("deidbench.datasets.synthid", "from .._scan import scan", set()),
        ("deidbench.render", "from ..results import store", set()),
    ],
)
def test_a_relative_import_in_a_package_starts_at_the_package(
    module: str, source: str, wrong: set[str]
) -> None:
    assert violations(module, source, is_package=True) == wrong


def test_the_command_line_is_imported_by_nobody() -> None:
    importers = {
        module
        for module, path in MODULES.items()
        for name in imported(module, path.read_text("utf-8"), is_package=path.stem == "__init__")
        if name == "deidbench.cli" or name.startswith("deidbench.cli.")
    }
    assert {name for name in importers if part(name) != "cli"} <= {"deidbench.__main__"}


@pytest.mark.parametrize(
    ("kind", "package", "root"),
    [
        *(
            (kind, f"deidbench.{kind}", ROOTS["deidbench"] / kind)
            for kind in ("datasets", "methods", "recognizers", "threats", "metrics")
        ),
        ("methods", "deidbench_baselines", ROOTS["deidbench_baselines"]),
    ],
)
def test_every_module_in_a_plugin_folder_has_an_entry_point(
    kind: str, package: str, root: Path
) -> None:
    offered = {point.module for point in entry_points(group=f"deidbench.{kind}")}
    public = {name for _, name, _ in pkgutil.iter_modules([str(root)]) if not name.startswith("_")}
    assert public, f"no modules found in {root}"
    forgotten = {name for name in public if f"{package}.{name}" not in offered}
    assert not forgotten, f"add a line to pyproject.toml and install again for {sorted(forgotten)}"


@pytest.mark.parametrize("package", ["plugins", "render", "results", "datasets"])
def test_names_reports_and_records_need_no_torch(package: str) -> None:
    names = [name for name in sorted(MODULES) if f"{name}.".startswith(f"deidbench.{package}.")]
    assert names
    check = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"deidbench.{package} imports torch"
