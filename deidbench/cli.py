"""The command line: thin. Heavy modules load inside the commands, so that --help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, plugins
from .checks import refuse_unknown, refuse_unwritable
from .commands import bench, compare, leaderboard, report
from .commands._shared import examples, names, settings, show_markdown, show_rows, split_names
from .config import PROTOCOL, RunConfig
from .errors import ControlError, DeidbenchError

if TYPE_CHECKING:
    from .assets import Asset
    from .results.schema import RunRecord

EXIT_ERROR, EXIT_CONTROL, EXIT_INTERRUPTED = 2, 3, 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  deidbench evaluate --method fadenet",
)
@click.version_option(__version__, prog_name="deidbench")
def cli() -> None:
    """Measure how well a face de-identification method protects people, and what it costs."""


def main() -> None:
    """Entry point: expected failures are one line and exit code 2; a failed control is 3."""
    try:
        cli.main(prog_name="deidbench", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_ERROR)
    except DeidbenchError as error:
        click.echo(f"deidbench: {error}", err=True)
        sys.exit(EXIT_CONTROL if isinstance(error, ControlError) else EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ndeidbench: interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe left: nobody wants the rest
    except OSError as error:
        click.echo(f"deidbench: {error}. Check the path, its permissions and free space.", err=True)
        sys.exit(EXIT_ERROR)


@cli.command()
@click.option("--method", required=True, shell_complete=names("methods"),
              help="What to measure; see 'deidbench list methods'.")  # fmt: skip
@click.option("--strength", type=float, help="In [0, 1], larger = stronger; default: its own.")
@click.option("--sweep", metavar="NAME=LOW:HIGH:COUNT",
              help="Several strengths, or values of a setting, and one report.")  # fmt: skip
@click.option("--set", "settings", multiple=True, callback=settings, metavar="NAME=VALUE",
              help="A setting of the method; may be given several times.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path),
              help="Weights of your own training, for a method that takes them.")  # fmt: skip
@click.option("--dataset", default="synthid", show_default=True, shell_complete=names("datasets"),
              help="NAME or NAME:ARGUMENT: folder:DIR (subject/image), lfw:DIR, ...")  # fmt: skip
@click.option("--protocol", default=PROTOCOL, show_default=True, metavar="NAME|FILE",
              help="Which attacks; see 'deidbench protocols list'.")  # fmt: skip
@click.option("--adults-only/--with-children", "adults_only", default=True, show_default=True,
              help="Whether to leave out children, where a dataset says who is one.")  # fmt: skip
@click.option("--recognizers", callback=split_names, shell_complete=names("recognizers"),
              help="Attackers' eyes, by comma, or 'all'; see 'deidbench list'.")  # fmt: skip
@click.option("--metrics", callback=split_names, shell_complete=names("metrics"),
              help="More metrics, by comma, or 'all', besides the default ones.")  # fmt: skip
@click.option("--pairs", type=click.Choice(["cross", "official"]), default="cross",
              show_default=True, help="All cross-image pairs or the dataset's list.")  # fmt: skip
@click.option("--aligned", is_flag=True, help="The images are face chips: do not warp them.")
@click.option("--chip-size", type=int, default=160, show_default=True, help="Side, in pixels.")
@click.option("--limit-subjects", type=int, help="Only this many people, drawn by --seed.")
@click.option("--leave-out-trained", is_flag=True, help="Skip people the method was trained on.")
@click.option("--strict", is_flag=True, help="Stop at the first image that fails.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--draws", type=int, default=2000, show_default=True, help="Bootstrap draws.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="New run folder; default: runs/ID.")
@click.option("--show-faces", is_flag=True,
              help="Keep faces of real people in the run and its report.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The whole record on stdout, nothing else.")
@click.option("--quiet", is_flag=True, help="No progress.")
@examples(
    "deidbench evaluate --method fadenet",
    "deidbench evaluate --method gaussian-blur --strength 0.8 --recognizers dlib,sface",
    "deidbench evaluate --method fadenet --sweep strength=0:1:6",
    "deidbench evaluate --method pixelate --dataset folder:faces --limit-subjects 100",
    "deidbench evaluate --method identity --dataset lfw:lfw --pairs official",
    "deidbench evaluate --method folder-output:treated --dataset folder:faces",
    "deidbench evaluate --method 'command:blur --in {in} --out {out}' --dataset folder:faces",
)
def evaluate(as_json: bool, quiet: bool, sweep: str | None, **options: Any) -> None:
    """Attack faces treated by a method, and measure what is left of them.

    A stopped evaluation goes on where it was when the same command runs again.
    """
    config = RunConfig(**options)
    refuse_unknown(config)
    if sweep is not None:
        _evaluate_sweep(config, sweep, as_json=as_json, quiet=quiet)
        return
    refuse_unwritable(config.out or Path("runs") / "new")
    folder, record = _measure(config, quiet=quiet)
    page = _write_report([folder], folder / "report", show_faces=config.show_faces)
    if as_json:
        click.echo(record.model_dump_json(indent=1))
        return
    from rich.console import Console

    from .render.terminal import summary_table

    console = Console()
    console.print(summary_table(record, console.width))
    click.echo(f"run:    {folder}\nreport: {page}")


def _measure(config: RunConfig, *, quiet: bool) -> tuple[Path, RunRecord]:
    from .harness import evaluate as run
    from .progress import Progress

    try:
        return run(config, Progress(quiet=quiet))
    except KeyboardInterrupt:
        click.echo("\nWhat is done is kept. Run the same command again to go on.", err=True)
        raise


def _evaluate_sweep(config: RunConfig, text: str, *, as_json: bool, quiet: bool) -> None:
    """Measure the points that are not there yet, then show them side by side."""
    from .sweep import measured, points, read_sweep

    swept = read_sweep(text)
    name, _ = plugins.split_argument(config.method)
    folder = config.out or Path("runs") / f"sweep-{name}-{swept.name}"
    refuse_unwritable(folder / "new")
    runs = points(config, swept, folder)
    known = [measured(point) for point in runs]  # what stands in the way is found before the work
    records: list[RunRecord] = []
    for value, point, record in zip(swept.values, runs, known, strict=True):
        if not quiet:
            click.echo(f"{swept.name} {value:g} ({len(records) + 1}/{len(runs)})", err=True)
        records.append(record or _measure(point, quiet=quiet)[1])
    folders = [point.out for point in runs if point.out]
    page = _write_report(folders, folder / "report", show_faces=config.show_faces)
    if as_json:
        click.echo("[" + ",\n".join(one.model_dump_json(indent=1) for one in records) + "]")
        return
    from rich.console import Console

    from .render.terminal import sweep_table

    Console().print(sweep_table(records, swept.name, swept.values))
    click.echo(f"runs:   {folder}\nreport: {page}")


@cli.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--schema", is_flag=True, help="Print the JSON Schema of run.json instead.")
@examples("deidbench validate runs/*", "deidbench validate --schema > run.schema.json")
def validate(runs: tuple[Path, ...], schema: bool) -> None:
    """Check that RUNS are whole and follow the published format."""
    from .render.seal import seal
    from .results.schema import json_schema
    from .results.store import validate as check

    if schema:
        import json

        click.echo(json.dumps(json_schema(), indent=1))
        return
    if not runs:
        raise DeidbenchError("no run is named. Name some run folders, or use --schema.")
    for folder in runs:
        record = check(folder)
        told = f"{len(record.rows)} rows, schema {record.schema_version}"
        click.echo(f"{folder}: valid, {told}, sha256 {seal(folder).sha256}")


@cli.command("list")
@click.argument("kind", required=False, type=click.Choice(plugins.KINDS))
@click.option("-v", "--verbose", is_flag=True, help="Load each part and say more about it.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@examples("deidbench list methods", "deidbench list recognizers -v")
def list_parts(kind: plugins.Kind | None, verbose: bool, as_json: bool) -> None:
    """Say which methods, datasets, recognizers, metrics and threats there are; what is missing."""
    kinds = [kind] if kind else list(plugins.KINDS)
    parts = {
        k: [entry for name in plugins.names(k) for entry in _describe(k, name, verbose)]
        for k in kinds
    }
    if as_json:
        import json

        click.echo(json.dumps(parts, indent=1))
        return
    for heading, entries in parts.items():
        click.echo(heading)
        for entry in entries:
            click.echo(f"  {entry['name']}")
            for key, value in list(entry.items())[1:]:
                click.echo(f"      {key.replace('_', ' ')}: {value}")


@cli.group()
def datasets() -> None:
    """Say more about the datasets that are installed."""


@datasets.command("card")
@click.argument("name", shell_complete=names("datasets"))
@examples("deidbench datasets card synthid", "deidbench datasets card synthid > synthid.md")
def datasets_card(name: str) -> None:
    """Print the datasheet of the dataset NAME.

    On a terminal it is laid out; a file or another program gets the Markdown.
    """
    name, _ = plugins.split_argument(name)
    card = getattr(plugins.load("datasets", name), "card", None)
    if card is None:
        raise DeidbenchError(
            f"dataset '{name}' has no card. See docs/datasets.md, or ask whoever made it."
        )
    show_markdown(card())


@datasets.command("check")
@click.argument("dataset", shell_complete=names("datasets"))
@click.option("--adults-only/--with-children", "adults_only", default=True, show_default=True,
              help="Whether to leave out children, where a dataset says who is one.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw of parts.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@examples("deidbench datasets check faces", "deidbench datasets check lfw:lfw --json")
def datasets_check(dataset: str, adults_only: bool, seed: int, as_json: bool) -> None:
    """Say what would be read of DATASET, a path or NAME:ARGUMENT, and what can be measured.

    Every image is opened. What a run would refuse is one line here too, with exit code 2.
    """
    from .progress import Progress
    from .survey import rows, survey

    found = survey(dataset, adults_only=adults_only, seed=seed, progress=Progress())
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(found), indent=1))
        return
    show_rows(rows(found))


@cli.group("protocols")
def protocols_group() -> None:
    """Say which attacks a run carries out."""


@protocols_group.command("list")
def protocols_list() -> None:
    """Name the protocols, each with what it is for."""
    from . import protocols

    show_rows(
        [(name, " ".join(protocols.load(name).summary.split())) for name in protocols.names()]
    )


@protocols_group.command("show")
@click.argument("protocol", metavar="NAME|FILE")
@examples(
    "deidbench protocols show standard-v1", "deidbench protocols show quick-v1 > mine-v1.toml"
)
def protocols_show(protocol: str) -> None:
    """Print a protocol, in the form that --protocol reads.

    To change one, save it, give it another name, and pass the file with --protocol.
    """
    from . import protocols

    found = protocols.load(protocol)  # a file with a fault is not shown as if it were good
    is_file = protocol.endswith(protocols.SUFFIX)
    click.echo(
        Path(protocol).read_text("utf-8") if is_file else protocols.text(found.name), nl=False
    )


@cli.group()
def assets() -> None:
    """Manage the weights that live outside the package."""


@assets.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def assets_list(as_json: bool) -> None:
    """Show each asset, its licence, and whether it is on this machine."""
    from . import assets as store

    entries = [
        {"name": one.asset.name, "present": one.path is not None, "licence": one.asset.licence,
         "description": one.asset.description, "citation": one.asset.citation,
         "hash": store.hash_note(one.asset.name), "problem": one.problem}
        for one in store.status()
    ]  # fmt: skip
    if as_json:
        import json

        click.echo(json.dumps(entries, indent=1))
        return
    for entry in entries:
        state = entry["problem"] or ("here" if entry["present"] else "not here")
        note = f"\n  {entry['hash']}" if entry["hash"] else ""
        click.echo(f"{entry['name']:<22}{state:<10}{entry['licence']}")
        click.echo(f"  {entry['description']}{note}")


@assets.command("fetch")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All weights; not the datasets.")
@examples("deidbench assets fetch dlib-resnet29 sface-int8")
def assets_fetch(names: tuple[str, ...], everything: bool) -> None:
    """Download assets by NAMES, so that later runs need no network."""
    from . import assets as store

    if not names and not everything:
        raise DeidbenchError("no asset is named. Name some, or use --all.")
    failures = []
    for name in names or store.weights():
        try:
            click.echo(f"{name}: {store.fetch(name)}")
        except DeidbenchError as error:
            failures.append(str(error))
    if failures:
        raise DeidbenchError(" ".join(failures))


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Hash the assets of this machine again (all, or by NAMES)."""
    from . import assets as store

    present = [one.asset.name for one in store.status() if one.path is not None or one.problem]
    if not names and not present:
        click.echo("no asset is on this machine yet")
    for name in names or present:
        note = store.hash_note(name)
        click.echo(f"{name}: good, {store.verify(name)}{f' ({note})' if note else ''}")


@cli.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--method", required=True, shell_complete=names("methods"),
              help="How to treat faces; see 'deidbench list methods'.")  # fmt: skip
@click.option("--strength", type=float, help="In [0, 1], larger = stronger; default: its own.")
@click.option("--set", "settings", multiple=True, callback=settings, metavar="NAME=VALUE",
              help="A setting of the method; may be given several times.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path),
              help="Weights of your own training, for a method that takes them.")  # fmt: skip
@click.option("--fast", is_flag=True, help="A single search for faces, at one size.")
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be treated.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="All that was done, as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
@examples(
    "deidbench deidentify photo.jpg treated.jpg --method fadenet",
    "deidbench deidentify photos treated --method pixelate --strength 0.8",
    "deidbench deidentify film.mp4 treated.mp4 --method gaussian-blur --fast",
)
def deidentify(source: Path, target: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Treat every face in a photograph, a video or a folder of them.

    IN stays as it is. OUT is a new file, or a folder; nothing is overwritten, and a stopped run
    over a folder goes on where it was. Exit code 4: a face may still show; 2: a file could not be
    treated, and is not in OUT.
    """
    settings = dict(options["settings"])
    settings.update((name, options[name]) for name in ("strength", "weights"))
    plugins.require("methods", plugins.split_argument(options["method"])[0])
    from .photos.run import Treatment
    from .photos.run import deidentify as run
    from .progress import Progress
    from .setup import choose_device, load_method

    treatment = Treatment(
        load_method(options["method"], **settings), fast=options["fast"], seed=options["seed"],
        device=choose_device(options["device"]),
    )  # fmt: skip
    try:
        report = run(source, target, treatment, options["strict"], Progress(quiet=quiet))
    except KeyboardInterrupt:
        click.echo("\nWhat is done is kept. Run the same command again to go on.", err=True)
        raise
    click.echo(report.as_json() if as_json else report.as_text())
    sys.exit(report.exit_code)


@cli.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), help="A TOML file.")
@click.option("--data", type=click.Path(path_type=Path), help="Training faces: subject/image.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Checkpoint folder.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
@click.option("--start", metavar="NAME|FILE", help="Go on from weights: of a method, or a file.")
@click.option("--steps", type=int, help="Instead of the number in the configuration.")
@click.option("--seed", type=int, help="Instead of the seed in the configuration.")
@click.option("--device", default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="No progress.")
@examples("deidbench train --config fadenet/configs/fadenet.toml --data faces --out training")
def train(config: Path, data: Path | None, out: Path, device: str, **options: Any) -> None:
    """Train FaDeNet from a configuration file."""
    from .setup import choose_device

    # The trainer is found by its entry point, like any other part.
    trainer = plugins.load("trainers", "fadenet")
    trainer(config, data=data, out=out, device=choose_device(device), **options)


cli.add_command(bench.bench)
cli.add_command(compare.compare)
cli.add_command(leaderboard.leaderboard)
cli.add_command(report.report)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@examples('eval "$(deidbench completion bash)"')
def completion(shell: str) -> None:
    """Print the completion script of a SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise DeidbenchError(f"no completion for '{shell}'. Use bash, zsh or fish.")
    click.echo(kind(cli, {}, "deidbench", "_DEIDBENCH_COMPLETE").source())


def _describe(kind: plugins.Kind, name: str, verbose: bool) -> list[dict[str, Any]]:
    """A part, or each of its variants: its name, what it lacks, and more about it on request."""
    from . import assets as store

    needed = store.needed_by(f"{kind}/{name}") or {name: []}
    about = _about(kind, name) if verbose else {}
    return [{"name": full, **_lacking(files), **about} for full, files in needed.items()]


def _lacking(files: Sequence[Asset]) -> dict[str, str]:
    """What a part needs that is not on this machine, and how to get it."""
    from importlib.util import find_spec

    from . import assets as store

    absent = [asset.name for asset in files if not store.is_here(asset)]
    extras = {asset.extra for asset in files if asset.extra and find_spec(asset.extra) is None}
    lacking = {}
    if extras:
        lacking["not installed"] = f"run: pip install 'deidbench[{','.join(sorted(extras))}]'"
    if absent:
        lacking["not here yet"] = f"run: deidbench assets fetch {' '.join(absent)}"
    return lacking


def _about(kind: plugins.Kind, name: str) -> dict[str, Any]:
    part = plugins.load(kind, name)
    doc = (part.__doc__ or "").strip().splitlines()
    about = {"version": part.version, "about": doc[0] if doc else ""}
    if not getattr(part, "by_default", True):
        about["used"] = "when it is named"
    if kind == "methods":
        about["trained_against"] = ", ".join(_trained_against(part)) or "nothing"
    return about


def _trained_against(method: Any) -> Sequence[str]:
    """Of a class; of a method that only knows it once it is built, by its own defaults."""
    known: Sequence[str] | None = getattr(method, "trained_against", None)
    return method().trained_against if known is None else known


def _write_report(runs: list[Path], out: Path, *, show_faces: bool) -> Path:
    from .render.report import write_report

    return write_report(runs, out, show_faces=show_faces)
