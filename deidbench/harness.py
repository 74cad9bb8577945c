"""Runs an evaluation from a configuration to a run folder."""

from __future__ import annotations

import platform
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from . import __version__, controls, plugins
from .alignment import to_float
from .attackers import Assault, Attacker, School, detect, detected_rows, restored_rows
from .cache import digest
from .config import RunConfig
from .errors import MetricUndefinedError
from .groups import group_attacks, worst_group
from .identification import (
    cmc_curve,
    open_searches,
    open_set_rows,
    rank_rows,
    search,
    search_same_image,
)
from .measure import (
    Attack,
    attack_rows,
    curve,
    fold_accuracy_rows,
    fold_rows,
    paired_rows,
    worst_rows,
)
from .progress import Progress
from .resident import peak_bytes
from .results import schema, store
from .setup import Job, prepare
from .split import EVAL
from .stages import UNREADABLE, images_per_second, listed
from .truth import truth_rows
from .types import FileMethod, Method, Recognizer, Sample
from .utility import detection_rows, groups, image_values, set_rows, value_rows

if TYPE_CHECKING:
    from .types import BoolArray
    from .utility import Regions

N_EXAMPLES = 8
GROUP_METRICS = ("auc", "tar")
SMALLEST_FPIR = 0.01
"""Of the open set: below it, no set that fits on a disk has the searches (rule of 30)."""
ADAPTIVE = ("T3", "T4", "T5", "T6", "P")
HUMANS = schema.NotMeasured(
    what="human observers", why="only people can tell; LPIPS and SSIM are proxies"
)


@dataclass(frozen=True)
class Faces:
    """What the stages left for all N samples."""

    found: BoolArray
    """Whether the photograph's face was found, (N,)."""
    treated: BoolArray
    """Whether the method gave a treated version of a face that was found, (N,)."""
    redetected: BoolArray
    """Whether a detector finds the face on the treated chip, (N,)."""
    utility: Mapping[str, Regions]
    """By metric and region, (N,)."""
    truth: Sequence[schema.MetricRow]
    """Rows of what the dataset knows to be true."""


@dataclass
class Findings:
    """What the attacks and comparisons yielded."""

    rows: list[schema.MetricRow] = field(default_factory=list)
    curves: list[schema.Curve] = field(default_factory=list)
    thresholds: list[schema.ThresholdRecord] = field(default_factory=list)
    blocks: list[store.ScoreBlock] = field(default_factory=list)
    identification: list[schema.CmcCurve] = field(default_factory=list)
    learned: list[schema.LearnedRecord] = field(default_factory=list)
    controls: list[schema.ControlRecord] = field(default_factory=list)
    untried: list[schema.NotMeasured] = field(default_factory=list)
    untaught: dict[str, str] = field(default_factory=dict)
    """Threats that had nothing to learn from, and why."""


def evaluate(
    config: RunConfig, progress: Progress, method: Method | FileMethod | None = None
) -> tuple[Path, schema.RunRecord]:
    """Measure one method on one dataset.

    Args:
        method: in place of the one that the configuration names.
    Returns:
        The new run folder and its record.
    Raises:
        DeidbenchError: the input cannot be used, or no recognizer is left.
        ControlError: an attack failed where its outcome is known.
    """
    job = prepare(config, progress, method)
    faces = process(job)
    findings = Findings()
    if job.protocol.controls:
        with job.stages.timed("controls", 0):
            findings.controls, findings.untried = controls.check(job)
    attack(job, findings)
    findings.rows += value_rows(job, faces.utility)
    findings.rows += detection_rows(job, faces.found, faces.redetected)
    findings.rows += faces.truth
    findings.rows += set_rows(job.stages, job.ruler.metrics, job.measured)
    findings.rows += _speed_rows(job)
    findings.rows += _memory_rows(job)
    record = _record(job, faces, findings)
    folder = config.out or Path("runs") / record.run_id
    images = _image_table(job, faces)
    return folder, store.write_run(folder, record, findings.blocks, images, _examples(job, faces))


def process(job: Job) -> Faces:
    """Run the stages that need no attacker: align, treat, detect again, compare."""
    stages = job.stages
    _warn_of_twins(job)
    aligned = stages.align()
    treated = stages.treat()["treated"]
    redetected = stages.detect(job.published)
    landmarks = (aligned["landmarks"], redetected["landmarks"])
    utility = image_values(stages, job.ruler.metrics, landmarks, job.published)
    truth = list(truth_rows(job, aligned, redetected))
    return Faces(aligned["found"], treated, redetected["found"], utility, truth)


def _warn_of_twins(job: Job) -> None:
    """The same file under two people makes an impostor pair of one image."""
    twins = _twins(job)
    if twins:
        job.progress.say(f"the same file under two people: {listed(twins)}. Remove one of each.")


def _twins(job: Job) -> list[str]:
    """'a/1.jpg = b/2.jpg' for each file that several people share."""
    seen: dict[str, list[Sample]] = {}
    for batch in job.stages.batches:
        for sample, file in zip(batch.samples, batch.files, strict=True):
            if file != UNREADABLE:
                seen.setdefault(file, []).append(sample)
    return [
        " = ".join(sample.id for sample in samples)
        for samples in seen.values()
        if len({sample.subject for sample in samples}) > 1
    ]


def attack(job: Job, findings: Findings) -> None:
    """All threats by all recognizers, then the worst of them."""
    school = School(job)
    taught = [t for t in job.threats if not hasattr(t, "learn") or not school.why_not]
    findings.untaught = {t.id: str(school.why_not) for t in job.threats if t not in taught}
    for recognizer in job.recognizers:
        attacker = Attacker(job, recognizer, school)
        for threat in filter(attacker.may, taught):
            for assault in attacker.assaults(threat):
                _measure(job, assault, findings)
        findings.rows += restored_rows(attacker)
        findings.learned += attacker.learned
    for threat in taught:
        if threat.kind == "detection":
            findings.rows += detected_rows(job, threat, detect(school, threat))
    findings.rows += worst_rows(findings.rows)


def _measure(job: Job, assault: Assault, findings: Findings) -> None:
    """All numbers of one attack, seen in one way."""
    attack = assault.attack
    findings.rows += attack_rows(attack, job.ruler)
    findings.rows += paired_rows(attack, job.ruler)
    findings.rows += fold_accuracy_rows(attack)
    findings.rows += fold_rows(attack, job.ruler, job.protocol.folds)
    if attack.view != "conditional":  # its scores are those of the system view
        findings.blocks.append(_block(job, attack))
        findings.thresholds += attack.thresholds if attack.pairs is job.cross else ()
    if attack.view == "landmarks":
        drawn = curve(attack)
        findings.curves += [drawn] if drawn else []
        if job.protocol.ranks and attack.pairs.kind != "official":
            _identify(job, assault, findings)
        if job.protocol.ranks and attack.pairs.kind == "cross":
            findings.rows += _grouped(job, attack)


def _grouped(job: Job, attack: Attack) -> Iterator[schema.MetricRow]:
    """The attack on the people of each group, and the group that fares worst."""
    members, subjects = groups(job.samples, job.measured), job.ruler.subjects
    wanted = [metric for metric in job.ruler.metrics if metric.name in GROUP_METRICS]
    ruler = replace(job.ruler, metrics=wanted)
    alone = group_attacks(attack, members, subjects)
    everyone = list(attack_rows(attack, ruler))
    found = [
        row.model_copy(update={"group": name})
        for name, one in alone.items()
        for row in attack_rows(one, ruler)
    ]
    yield from found
    for whole in everyone:
        rows = [r for r in found if (r.metric, r.params) == (whole.metric, whole.params)]
        people = {str(name): len(np.unique(subjects[chosen])) for name, chosen in members.items()}
        with suppress(MetricUndefinedError):
            worst = worst_group(rows, whole, people)
            name = f"worst-group-{whole.metric}"
            yield worst.row.model_copy(update={"metric": name, "note": worst.caution})


def _identify(job: Job, assault: Assault, findings: Findings) -> None:
    """Whom the attacker names who searches a gallery of one image a person."""
    attack, sides = assault.attack, assault.sides
    fields: dict[str, Any] = {
        "threat": attack.threat, "recognizer": attack.recognizer, "pairs": attack.pairs.kind,
    }  # fmt: skip
    people = len(np.unique(job.ruler.subjects[job.measured]))
    ranks = [k for k in job.protocol.ranks if k <= people]
    where = (sides.enrolled, sides.probe, job.ruler.subjects, job.measured, sides.similarity)
    if attack.pairs.kind == "same":
        bound = getattr(job.method, "rank_1_bound", None)
        found = search_same_image(*where)
        findings.rows += rank_rows(found, job.ruler, ranks, view=attack.view, bound=bound, **fields)
        return
    found = search(*where)
    findings.rows += rank_rows(found, job.ruler, ranks, view=attack.view, **fields)
    halves = open_searches(*where, seed=job.config.seed)
    rates = [far for far in job.protocol.fars if far >= SMALLEST_FPIR]
    findings.rows += open_set_rows(halves, job.ruler, rates, view=attack.view, **fields)
    drawn = cmc_curve(found, view=attack.view, **fields)
    findings.identification += [drawn] if drawn else []


def _block(job: Job, attack: Attack) -> store.ScoreBlock:
    """What is stored of an attack: impostors of same-image pairs are those of the cross pairs."""
    count = len(job.own.reference) if attack.pairs is job.same else len(attack.scores)
    pairs = attack.pairs
    return store.ScoreBlock(
        attack.threat,
        attack.recognizer,
        attack.view,
        pairs.reference[:count],
        pairs.probe[:count],
        attack.scores[:count],
    )


def _speed_rows(job: Job) -> Iterator[schema.MetricRow]:
    """Images a second of the method alone, one by one and in batches. Never cached.

    Files that somebody treated elsewhere have no speed here, and a program's starting would count.
    """
    if hasattr(job.method, "treat"):
        return
    batch = job.stages.batches[0]
    faces = to_float(torch.from_numpy(job.stages.chips(batch)["chips"])).to(job.device)
    method = job.stages.method_of(EVAL)
    for size in sorted({1, len(faces)}):
        speed = images_per_second(method, faces[:size])
        yield schema.MetricRow(
            metric="images-per-second", params={"batch": size}, value=speed, unit="images/s",
            n=size, note="machine-dependent: compare only within one run",
        )  # fmt: skip


def _memory_rows(job: Job) -> Iterator[schema.MetricRow]:
    """The most memory that this process, and the GPU it ran on, have held at one time."""
    about: dict[str, Any] = {"metric": "peak-memory", "unit": "MiB", "higher_is_better": False}
    most = peak_bytes()
    if most is not None:
        yield schema.MetricRow(
            **about, value=most / 2**20, params={"of": "process"},
            note="of the whole evaluation, recognizers and attackers included",
        )  # fmt: skip
    if torch.device(job.device).type == "cuda":
        peak = torch.cuda.max_memory_allocated(job.device) / 2**20
        yield schema.MetricRow(
            **about, value=peak, params={"of": "gpu"}, note="allocated by torch in this process"
        )


def _record(job: Job, faces: Faces, findings: Findings) -> schema.RunRecord:
    config, now = job.config, datetime.now(timezone.utc)
    return schema.RunRecord(
        run_id=f"{now:%Y%m%d-%H%M%S}-{_slug(job.method.name)}-{secrets.token_hex(3)}",
        created=now.isoformat(timespec="seconds"),
        deidbench_version=__version__,
        protocol=job.protocol.name,
        protocol_settings=job.protocol.model_dump(mode="json"),
        seed=config.seed,
        chip_size=config.chip_size,
        config=_settings(job),
        dataset=_dataset_record(job),
        split=_split_record(job),
        method=schema.MethodRecord(
            name=job.method.name, version=job.method.version, strength=job.method.strength,
            trained_against=list(job.method.trained_against),
            parameters=dict(getattr(job.method, "parameters", {})),
            trained_on_metrics=list(getattr(job.method, "trained_on_metrics", ())),
            weights_sha256=getattr(job.method, "weights_sha256", None),
        ),
        recognizers=[_recognizer_record(one) for one in job.recognizers] + list(job.unavailable),
        threats=[
            schema.ThreatRecord(id=t.id, version=t.version, title=t.title, summary=t.summary)
            for t in job.threats
        ],
        thresholds=findings.thresholds,
        rows=findings.rows,
        curves=findings.curves,
        failures=_failures(job, faces),
        identification=findings.identification,
        learned=findings.learned,
        controls=findings.controls,
        not_measured=_not_measured(job, findings),
        machine=machine_record(job.device),
        timings=[
            schema.StageTiming(stage=stage, **asdict(timing))
            for stage, timing in job.stages.timings.items()
        ],
    )  # fmt: skip


def _slug(name: str) -> str:
    """A method's name for a folder: 'folder-output:a b' -> 'folder-output-a-b'."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "method"


def _failures(job: Job, faces: Faces) -> dict[str, int]:
    """How many of the measured images were lost, and where."""
    chosen = job.measured
    found, treated = faces.found[chosen], faces.treated[chosen]
    ids = {job.samples[i].id for i in chosen}
    unreadable = len(ids & job.stages.problems.get("align", {}).keys())
    counts = {
        "clean_unreadable": unreadable,
        "clean_not_found": int((~found).sum()) - unreadable,
        "not_treated": int((found & ~treated).sum()),
        "treated_not_found": int((treated & ~faces.redetected[chosen]).sum()),
    }
    for recognizer in job.recognizers:
        lost = ids & job.stages.problems.get(f"embed {recognizer.name} treated", {}).keys()
        counts |= {f"not_embedded {recognizer.name}": len(lost)} if lost else {}
    return counts


def _settings(job: Job) -> dict[str, object]:
    return {
        **settings_of(job.config), "method": job.method.name, "protocol": job.protocol.name,
    }  # fmt: skip


def settings_of(config: RunConfig) -> dict[str, object]:
    """The configuration as a record keeps it: without paths of this machine."""
    settings = {**asdict(config), "dataset": _label(config.dataset)}
    settings["recognizers"] = [_label(spec) for spec in config.recognizers]
    settings["settings"] = dict(config.settings)
    settings["weights"] = config.weights and config.weights.name
    del settings["out"]
    return settings


def _label(spec: str) -> str:
    """'folder:/home/me/faces' -> 'folder:faces'."""
    name, argument = plugins.split_argument(spec)
    return name if argument is None else f"{name}:{Path(argument).resolve().name}"


def _dataset_record(job: Job) -> schema.DatasetRecord:
    listing = [(sample.id, sample.subject) for sample in job.samples]
    return schema.DatasetRecord(
        name=job.dataset.name, version=job.dataset.version, label=_label(job.config.dataset),
        synthetic=job.dataset.synthetic, n_samples=len(job.samples),
        n_subjects=len({sample.subject for sample in job.samples}),
        sha256=digest(listing, [file for batch in job.stages.batches for file in batch.files]),
    )  # fmt: skip


def _split_record(job: Job) -> schema.SplitRecord:
    parts = job.split.subjects
    return schema.SplitRecord(
        seed=job.split.seed,
        sha256=job.split.sha256,
        subjects={part: len(people) for part, people in parts.items()},
        images={part: len(job.split.indices(job.samples, part)) for part in parts},
    )


def _recognizer_record(recognizer: Recognizer) -> schema.RecognizerRecord:
    return schema.RecognizerRecord(
        name=recognizer.name, version=recognizer.version, status="run",
        similarity=recognizer.similarity, weights_sha256=recognizer.weights_sha256,
    )  # fmt: skip


def _not_measured(job: Job, findings: Findings) -> list[schema.NotMeasured]:
    gaps = {
        f"{one.recognizer} at FAR {one.far:g}": one.note or "undefined"
        for one in findings.thresholds
        if one.value is None and one.view == "landmarks"
    }
    if job.calibration is None:
        gaps["rates at fixed FARs"] = "an official list has no CALIBRATION people"
    if hasattr(job.method, "treat"):
        gaps["speed"] = "the images were treated outside"
    twins = _twins(job)
    if twins:
        # Names of files may tell of people, and this record is what gets published.
        gaps[f"{len(twins)} files under two people"] = "each makes an impostor pair of one image"
    gaps |= findings.untaught | _left_out(job)
    told = (schema.NotMeasured(what=what, why=why) for what, why in gaps.items())
    return [*job.gaps, *told, *findings.untried, HUMANS]


def _left_out(job: Job) -> dict[str, str]:
    """Attackers that the protocol knows nothing of, where those who adapt are among them."""
    left = [name for name in ADAPTIVE if name not in job.protocol.threats]
    why = f"not part of protocol {job.protocol.name}; a method that holds against less alone "
    return (
        {f"attackers who adapt ({', '.join(left)})": f"{why}must not be called safe"}
        if left
        else {}
    )


def machine_record(device: str) -> schema.Machine:
    """Where this process runs, with the device that was asked for."""
    cuda = torch.device(device).type == "cuda"
    return schema.Machine(
        platform=f"{platform.system()} {platform.machine()}", python=platform.python_version(),
        torch=torch.__version__, cpu=_processor(), threads=torch.get_num_threads(), device=device,
        gpu=torch.cuda.get_device_name(device) if cuda else None,
    )  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _image_table(job: Job, faces: Faces) -> pd.DataFrame:
    """One row an image, in the order that scores number them by."""
    part = {subject: name for name, people in job.split.subjects.items() for subject in people}
    columns: dict[str, object] = {
        "id": [sample.id for sample in job.samples],
        "subject": [sample.subject for sample in job.samples],
        "part": [part.get(sample.subject) for sample in job.samples],
        "found": faces.found,
        "treated": faces.treated,
        "found_treated": faces.redetected,
        "problem": [_problem(job, sample) for sample in job.samples],
    }
    for name, regions in faces.utility.items():
        columns |= {f"{name}_{region}".rstrip("_"): regions[region] for region in regions}
    labels = sorted({label for sample in job.samples for label in sample.labels})
    columns |= {
        f"label_{label}": [sample.labels.get(label) for sample in job.samples] for label in labels
    }
    return pd.DataFrame(columns)


def _problem(job: Job, sample: Sample) -> str | None:
    """What went wrong with an image, by stage."""
    found = [f"{k}: {v[sample.id]}" for k, v in job.stages.problems.items() if sample.id in v]
    return "; ".join(found) or None


def _examples(job: Job, faces: Faces) -> list[store.Example]:
    """Faces before and after: only of synthetic people unless the user asks for others."""
    if not (job.dataset.synthetic or job.config.show_faces):
        return []
    first = {job.samples[i].subject: int(i) for i in job.measured[::-1] if faces.treated[i]}
    chosen = sorted(first.values())
    chosen = [chosen[k] for k in np.linspace(0, len(chosen) - 1, N_EXAMPLES).astype(int)]
    return [_example(job, number, i) for number, i in enumerate(dict.fromkeys(chosen))]


def _example(job: Job, number: int, index: int) -> store.Example:
    batch, row = divmod(index, job.config.batch_size)
    before = job.stages.chips(job.stages.batches[batch])["chips"][row]
    after = job.stages.treated_chips(job.stages.batches[batch])["chips"][row]
    name = schema.example_name(f"{Path(job.samples[index].id).with_suffix('')}-{number:02d}")
    return store.Example(name, before.transpose(1, 2, 0), after.transpose(1, 2, 0))
