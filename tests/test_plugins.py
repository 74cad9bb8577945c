"""Plugins are found by name, loaded on use, and loud when something is wrong."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from deidbench_baselines import pixelate

import deidbench
from deidbench import plugins
from deidbench.errors import PluginError

OURS = [
    (kind, name)
    for kind in plugins.KINDS
    for name in plugins.names(kind)
    if any(
        point.dist is not None and point.dist.name == "deidbench"
        for point in entry_points(group=f"deidbench.{kind}", name=name)
    )
]
LOAD = """
from deidbench import plugins
from deidbench.errors import PluginError
try:
    print(plugins.load({kind!r}, {name!r}).__qualname__)
except PluginError as error:
    print("PluginError:", error)
"""


def put_package(site: Path, package: str, line: str, module: str = "", source: str = "") -> Path:
    """An installed package as pip leaves it: metadata with one entry point, and a module."""
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[deidbench.methods]\n{line}\n")
    if module:
        (site / f"{module}.py").write_text(source)
    return site


def python(code: str, *sites: Path) -> str:
    """What a fresh interpreter prints that finds these folders first on its path."""
    checkout = Path(str(deidbench.__file__)).parents[1]
    path = os.pathsep.join(map(str, (*sites, checkout)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names_are_those_of_the_entry_points() -> None:
    for kind in plugins.KINDS:
        installed = {point.name for point in entry_points(group=f"deidbench.{kind}")}
        assert plugins.names(kind) == sorted(installed)
        assert installed


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_part_of_ours_loads_and_knows_its_name(kind: plugins.Kind, name: str) -> None:
    part = plugins.load(kind, name)
    assert inspect.isclass(part)
    known: str = getattr(part, "id" if kind == "threats" else "name", name)
    assert known == name
    assert isinstance(getattr(part, "version", None), int)
    assert inspect.getdoc(part)


def test_an_unknown_name_brings_a_suggestion_and_the_list() -> None:
    with pytest.raises(PluginError) as caught:
        plugins.load("methods", "pixelat")
    assert str(caught.value).startswith(
        "no methods called 'pixelat'. Did you mean 'pixelate'? Installed: blackout, "
    )


def test_a_name_like_no_other_brings_no_suggestion() -> None:
    with pytest.raises(PluginError, match=r"no datasets called 'qqqq'\. Installed: celeba, folder"):
        plugins.load("datasets", "qqqq")


def test_where_nothing_is_installed_the_error_says_so() -> None:
    with pytest.raises(PluginError, match="Installed: none; run 'pip install' again"):
        plugins.load("cooks", "soup")  # type: ignore[arg-type]


def test_a_guest_is_listed_and_loaded_like_ours(tmp_path: Path) -> None:
    source = Path(pixelate.__file__).read_text("utf-8").replace('"pixelate"', '"mosaic"')
    site = put_package(tmp_path, "guest", "mosaic = guest_mosaic:Pixelate", "guest_mosaic", source)
    code = """
from deidbench import plugins
from deidbench.testing import check_method
assert {"mosaic", "pixelate"} <= set(plugins.names("methods"))
cls = plugins.load("methods", "mosaic")
check_method(cls())
print(cls.__module__, cls.name)
"""
    assert python(code, site) == "guest_mosaic mosaic"


def test_two_packages_that_claim_one_name_are_both_named(tmp_path: Path) -> None:
    site = put_package(tmp_path, "alpha", "smudge = alpha:Smudge")
    put_package(tmp_path, "beta", "smudge = beta:Smudge")
    assert python(LOAD.format(kind="methods", name="smudge"), site) == (
        "PluginError: two packages offer methods 'smudge': alpha, beta. Uninstall one."
    )


def test_a_guest_cannot_take_a_name_of_ours(tmp_path: Path) -> None:
    site = put_package(tmp_path, "alpha", "pixelate = alpha:Better", "alpha", "class Better: ...")
    assert python(LOAD.format(kind="methods", name="pixelate"), site) == (
        "PluginError: two packages offer methods 'pixelate': alpha, deidbench. Uninstall one."
    )


def test_a_clash_leaves_all_other_names_usable(tmp_path: Path) -> None:
    site = put_package(tmp_path, "alpha", "smudge = alpha:Smudge")
    put_package(tmp_path, "beta", "smudge = beta:Smudge")
    assert python(LOAD.format(kind="datasets", name="folder"), site) == "Folder"


def test_one_package_found_twice_is_no_clash(tmp_path: Path) -> None:
    source = "class Smudge: ..."
    sites = [
        put_package(tmp_path / place, "alpha", "smudge = alpha:Smudge", "alpha", source)
        for place in ("one", "two")
    ]
    assert python(LOAD.format(kind="methods", name="smudge"), *sites) == "Smudge"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("from deidbench.errors import NoSuchError", "cannot import name 'NoSuchError'"),
        ("class Other: ...", "module 'alpha' has no attribute 'Smudge'"),
    ],
)
def test_a_plugin_whose_import_fails_is_named_with_its_owner(
    tmp_path: Path, source: str, reason: str
) -> None:
    site = put_package(tmp_path, "guest", "smudge = alpha:Smudge", "alpha", source)
    printed = python(LOAD.format(kind="methods", name="smudge"), site)
    assert printed.startswith("PluginError: methods 'smudge' of guest cannot be loaded: ")
    assert reason in printed
    assert printed.endswith("Reinstall that package.")
    assert "\n" not in printed


def test_a_plugin_whose_module_is_gone_is_named_with_its_owner(tmp_path: Path) -> None:
    site = put_package(tmp_path, "guest", "smudge = vanished:Smudge")
    printed = python(LOAD.format(kind="methods", name="smudge"), site)
    assert printed.startswith("PluginError: methods 'smudge' of guest cannot be loaded: No module")


def test_listing_imports_no_plugin(tmp_path: Path) -> None:
    site = put_package(
        tmp_path, "guest", "smudge = alpha:Smudge", "alpha", "raise SystemExit('imported')"
    )
    code = "from deidbench import plugins; print('smudge' in plugins.names('methods'))"
    assert python(code, site) == "True"
