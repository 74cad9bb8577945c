"""The pytest fixture and the GitHub Action, on a small user's project: real runs, real exits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from deidbench.errors import DeidbenchError
from deidbench.pytest_plugin import Bench
from deidbench.results.store import read_run, validate
from tests import sample_run

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PROJECT = Path(__file__).parent / "sample_project"
INSTALLED = any(point.name == "deidbench" for point in entry_points(group="pytest11"))


def copied(target: Path) -> Path:
    """The user's project, as the user has it."""
    shutil.copytree(PROJECT, target, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))  # fmt: skip
    (target / "conftest.py").unlink()  # keeps it out of our own tests
    return target


def weaken(project: Path, strength: float = 0.2) -> None:
    source = (project / "veil.py").read_text()
    (project / "veil.py").write_text(source.replace("STRENGTH = 0.9", f"STRENGTH = {strength}"))


# The plugin


def test_the_plugin_is_found_by_its_entry_point() -> None:
    found = {point.value for point in entry_points(group="pytest11") if point.name == "deidbench"}
    assert found == {"deidbench.pytest_plugin"}


def test_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pandas", "pyarrow", "pydantic", "jinja2", "rich")
    check = f"import sys, deidbench.pytest_plugin; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.fixture
def own(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs pytest in a process of its own, with the plugin as an installed user has it."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    plugin = () if INSTALLED else ("-p", "deidbench.pytest_plugin")

    def run(*words: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(
            *plugin, "-p", "no:cacheprovider", "-W", "error", *words
        )

    return run


def test_a_project_that_does_not_use_it_notices_nothing(
    pytester: pytest.Pytester, own: Any
) -> None:
    pytester.makepyfile(
        """
        import sys

        import pytest

        @pytest.fixture
        def deidbench():
            return "a fixture of the project's own"

        def test_it(deidbench):
            assert deidbench == "a fixture of the project's own"
            assert "torch" not in sys.modules
        """
    )
    result = own("--strict-config", "--strict-markers")
    result.assert_outcomes(passed=1)
    own("--help").stdout.fnmatch_lines(["*--deidbench-update*", "*--deidbench-runs=DIR*"])


@pytest.mark.slow
def test_a_project_guards_its_releases(home: Path, pytester: pytest.Pytester, own: Any) -> None:
    project = copied(pytester.path)
    guard = "tests/test_privacy.py::test_people_are_protected_as_before"
    result = own(guard)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no baseline at *pytest --deidbench-update*"])

    own("--deidbench-update").assert_outcomes(passed=2)
    baseline = project / "privacy" / "baseline"
    record = validate(baseline)
    assert (record.examples, record.method.name) == ([], "python:veil")
    assert sorted(file.name for file in baseline.iterdir()) == [
        "images.parquet", "run.json", "scores.parquet"
    ]  # fmt: skip

    result = own("--deidbench-runs", "kept")
    result.assert_outcomes(passed=2)
    assert len(list((project / "kept").iterdir())) == 1

    weaken(project)
    result = own(guard)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "*AssertionError: python:veil is a regression from *baseline*",
        "*worst_case.auc: * surely worse*",
        "*T1.sface.auc: * rule: T1.auc > +0.05*",
        "*the whole page: deidbench compare *",
    ])  # fmt: skip
    assert "pytest_plugin.py" not in result.stdout.str()  # nobody wants our lines in his traceback
    assert validate(baseline).run_id == record.run_id

    own(guard, "--deidbench-update").assert_outcomes(passed=1)
    assert validate(baseline).run_id != record.run_id
    own(guard).assert_outcomes(passed=1)


def test_a_baseline_replaces_only_a_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    run = tmp_path / "run"
    sample_run.write(run)
    kept = bench.store_baseline(run, tmp_path / "kept" / "baseline")
    assert validate(kept).examples == []
    assert not (kept / "examples").exists()
    other = sample_run.record(run_id="another")
    sample_run.write(tmp_path / "other", other)
    bench.store_baseline(str(tmp_path / "other"), kept)
    assert read_run(kept).run_id == "another"
    assert [path.name for path in kept.parent.iterdir()] == ["baseline"]

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DeidbenchError, match="is no run, so it is not replaced"):
        bench.store_baseline(run, tmp_path / "mine")
    with pytest.raises(DeidbenchError, match=r"run.json is missing"):
        bench.store_baseline(tmp_path / "nothing", kept)
    assert read_run(kept).run_id == "another"


# The Action


@pytest.fixture(scope="module")
def action() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    found: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    return found


EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def expressions(node: Any) -> list[str]:
    """All ``${{ ... }}`` and conditions below a node."""
    if isinstance(node, dict):
        conditions = [str(node["if"])] if "if" in node else []
        return conditions + [one for value in node.values() for one in expressions(value)]
    if isinstance(node, list):
        return [one for value in node for one in expressions(value)]
    return EXPRESSION.findall(str(node))


def test_every_input_is_used_and_every_used_one_exists(action: dict[str, Any]) -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", " ".join(expressions(action["runs"]))))
    assert used == set(action["inputs"])
    assert all(one.get("description") for one in action["inputs"].values())
    required = {name for name, one in action["inputs"].items() if one.get("required")}
    assert required == {"method"}
    assert all("default" in one for name, one in action["inputs"].items() if name not in required)


def test_no_text_of_a_user_becomes_a_script(action: dict[str, Any]) -> None:
    scripts = [step for step in action["runs"]["steps"] if "run" in step]
    assert len(scripts) == 4
    for step in scripts:
        assert "${{" not in step["run"], step["name"]
        assert step["shell"] == "bash"
        given = set(step.get("env", {}))
        named = set(re.findall(r"\$\{?([A-Z_]+)", step["run"]))
        runner = {"RUNNER_TEMP", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ACTION_PATH"}
        assert named - runner <= given, step["name"]
        assert given - {"DEIDBENCH_HOME"} <= named, step["name"]
        assert not re.search(r"\beval\b|\bbash -c\b", step["run"])


def test_the_documented_inputs_are_those_of_the_action(action: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    table = text.partition("| input | default | meaning |")[2].partition("\n\n")[0]
    told = {
        name
        for line in table.splitlines()[1:]
        for name in re.findall(r"`([\w-]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert told == set(action["inputs"])


def test_the_workflows_shown_give_inputs_that_exist(action: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    shown = re.search(r"```yaml\n(name: privacy\n.*?)```", text, re.DOTALL)
    assert shown
    workflow = (PROJECT / ".github" / "workflows" / "privacy.yml").read_text("utf-8")
    for source in (shown[1], workflow):
        steps = yaml.safe_load(source)["jobs"]["privacy"]["steps"]
        ours = [step for step in steps if "deidbench@" in step["uses"]]
        assert len(ours) == 1
        assert set(ours[0]["with"]) <= set(action["inputs"])


class Runner:
    """Runs the steps of the Action as GitHub's runner does; only ``uses`` steps are left out."""

    def __init__(self, action: dict[str, Any], work: Path, environment: dict[str, str]) -> None:
        self.action, self.work, self.environment = action, work, environment
        self.outputs: dict[str, dict[str, str]] = {}
        self.used: list[dict[str, Any]] = []
        self.summary = work / "summary.md"
        self.summary.write_text("")
        (work / "temp").mkdir()

    def run(self, cwd: Path, *, skip: tuple[str, ...] = (), **given: str) -> int:
        """The exit code of the step that failed, or 0."""
        known = {name: str(one.get("default", "")) for name, one in self.action["inputs"].items()}
        self.inputs = known | {name.replace("_", "-"): value for name, value in given.items()}
        failed = 0
        for step in self.action["runs"]["steps"]:
            condition = str(step.get("if", "success()"))
            if (failed and "always()" not in condition) or not self._holds(condition):
                continue
            if "uses" in step:
                self.used.append({**step, "with": self._filled(step["with"])})
            elif step["name"] not in skip:
                failed = self._script(step, cwd) or failed
        return failed

    def _script(self, step: dict[str, Any], cwd: Path) -> int:
        output = self.work / "output"
        output.write_text("")
        script = self.work / "step.sh"
        script.write_text(step["run"])
        environment = {
            **self.environment, **self._filled(step.get("env", {})),
            "RUNNER_TEMP": str(self.work / "temp"), "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_ACTION_PATH": str(self.work / "action"),
        }  # fmt: skip
        folder = cwd / self._text(step.get("working-directory", "."))
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            env=environment, cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
        self.said = done.stdout + done.stderr
        pairs = [line.partition("=") for line in output.read_text().splitlines()]
        self.outputs[step.get("id", step["name"])] = {key: value for key, _, value in pairs}
        return done.returncode

    def _filled(self, values: dict[str, str]) -> dict[str, str]:
        return {name: self._text(value) for name, value in values.items()}

    def _text(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self._value(found[1].strip()), str(text))

    def _value(self, name: str) -> str:
        context, _, rest = name.partition(".")
        if context == "inputs":
            return self.inputs[rest]
        if context == "steps":
            step, _, output = rest.partition(".outputs.")
            return self.outputs.get(step, {}).get(output, "")
        return {"runner.temp": str(self.work / "temp"), "runner.os": "Linux",
                "github.run_id": "1"}[name]  # fmt: skip

    def _holds(self, condition: str) -> bool:
        for part in condition.split("&&"):
            found = re.fullmatch(r"\s*([\w.-]+)\s*(==|!=)\s*'(.*)'\s*", part)
            if found and (self._value(found[1]) == found[3]) != (found[2] == "=="):
                return False
            assert found or part.strip() in ("success()", "always()"), part
        return True


@pytest.fixture
def runner(action: dict[str, Any], home: Path, tmp_path: Path) -> Runner:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "runner").mkdir()
    return Runner(action, tmp_path / "runner", environment)


QUICK = {"method": "python:veil:veil", "protocol": "quick-v1", "recognizers": "sface",
         "limit_subjects": "9", "draws": "200"}  # fmt: skip
NO_INSTALL = ("Install deidbench",)


@pytest.mark.slow
def test_the_action_measures_compares_and_fails(runner: Runner, tmp_path: Path) -> None:
    project = copied(tmp_path / "project")
    assert runner.run(project, skip=NO_INSTALL, upload_run="true", **QUICK) == 0, runner.said
    report = Path(runner.outputs["evaluate"]["report"])
    assert runner.outputs["evaluate"]["outcome"] == "measured"
    assert sorted(path.name for path in report.iterdir()) == ["evaluation", "run"]
    assert runner.used[-1]["with"] == {"name": "deidbench", "path": str(report)}
    Bench(tmp_path).store_baseline(report / "run", project / "privacy" / "baseline")

    rules = "default\n\nT1.auc > +0.05\n"
    compared = {**QUICK, "baseline": "privacy/baseline", "fail_on": rules}
    assert runner.run(project, skip=NO_INSTALL, **compared) == 0, runner.said
    assert runner.outputs["compare"] == {"outcome": "same or better", "code": "0"}
    assert "No regression" in runner.summary.read_text()

    weaken(project)
    runner.summary.write_text("")
    assert runner.run(project, skip=NO_INSTALL, **compared) == 1, runner.said
    assert runner.outputs["compare"] == {"outcome": "regression", "code": "1"}
    assert re.search(r"❌ Regression: .*`T1.sface.auc: ", runner.summary.read_text(), re.DOTALL)
    report = Path(runner.used[-1]["with"]["path"])  # it is kept although the job fails
    assert sorted(path.name for path in report.iterdir()) == ["comparison", "evaluation"]
    content = json.loads((report / "comparison" / "comparison.json").read_text())
    assert content["rules"] == ["default", "T1.auc > +0.05"]

    runner.summary.write_text("")
    assert runner.run(project, skip=NO_INSTALL, **{**compared, "seed": "1"}) == 2
    assert "cannot compare: another" in runner.summary.read_text()
    assert "outcome" not in runner.outputs["compare"]


@pytest.mark.slow
def test_hostile_inputs_are_text_to_the_action(runner: Runner, tmp_path: Path) -> None:
    project = copied(tmp_path / "project")
    planted = tmp_path / "planted"
    evil = f"$(touch {planted})`touch {planted}`; touch {planted} #\" ' --seed=5"
    for name in ("method", "strength", "settings", "weights", "dataset", "protocol",
                 "recognizers", "limit_subjects", "seed", "draws"):  # fmt: skip
        assert runner.run(project, skip=NO_INSTALL, **{**QUICK, name: evil}) == 2, name
        assert "Traceback" not in runner.said
    step = next(one for one in runner.action["runs"]["steps"] if one.get("id") == "compare")
    given = {"baseline": evil, "fail-on": evil, "certain": evil}
    runner.inputs.update(given)
    runner.outputs["evaluate"] = {"run": str(tmp_path), "report": str(tmp_path)}
    assert runner._script(step, project) == 0  # the last step says what came out
    assert runner.outputs["compare"]["code"] == "2"
    assert "is no rule" in runner.summary.read_text()
    assert not planted.exists()


@pytest.mark.slow
def test_the_action_installs_deidbench_as_it_is_itself(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment of its own, which borrows the libraries of this one."""
    kept = ("pyproject.toml", "README.md", "LICENSE", "deidbench", "baselines", "fadenet")
    if not all((ROOT / name).exists() for name in kept) or find_spec("setuptools") is None:
        pytest.skip("needs a checkout, and setuptools to build it with")
    place = runner.work / "action"
    place.mkdir()
    for name in kept:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "venv" / "lib" / version / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    runner.environment |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
                           "PIP_NO_BUILD_ISOLATION": "1", "PIP_NO_DEPS": "1"}  # fmt: skip
    install = next(s for s in runner.action["runs"]["steps"] if s["name"] in NO_INSTALL)
    runner.inputs = {"package": ""}
    assert runner._script(install, tmp_path) == 0, runner.said
    assert (site / "deidbench" / "compare" / "rules.py").is_file()
    done = subprocess.run(
        [scripts / "deidbench", "compare", "--help"], capture_output=True, text=True
    )
    assert "--fail-on" in done.stdout, done.stdout + done.stderr
