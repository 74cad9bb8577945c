"""Turns a configuration into the loaded parts of a run. All parts are found by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import assets, plugins, protocols, statistics
from .cache import Cache
from .config import ALL, RunConfig
from .errors import AssetUnavailableError, DeidbenchError
from .measure import Ruler
from .pairs import PairList, cross_pairs, official_pairs, same_image_pairs, with_impostors
from .progress import Progress
from .protocols import Protocol
from .results.schema import NotMeasured, RecognizerRecord
from .split import (
    ATTACKER_TRAIN,
    CALIBRATION,
    EVAL,
    Split,
    held_out,
    limit_subjects,
    split_subjects,
    used_parts,
)
from .stages import Stages
from .types import Dataset, FileMethod, Method, Recognizer, Sample, Threat, subject_digest

if TYPE_CHECKING:
    from .types import BoolArray, FloatArray, IntArray


NO_WEIGHTS = "its weights could not be had; 'deidbench assets fetch' says why"


@dataclass(frozen=True)
class Job:
    """Everything that an evaluation works with, ready to run."""

    config: RunConfig
    protocol: Protocol
    progress: Progress
    device: str
    dataset: Dataset
    samples: Sequence[Sample]
    split: Split
    method: Method | FileMethod
    recognizers: Sequence[Recognizer]
    unavailable: Sequence[RecognizerRecord]
    gaps: Sequence[NotMeasured]
    """Parts that cannot run here, each with its reason."""
    threats: Sequence[Threat]
    stages: Stages
    ruler: Ruler
    calibration: PairList | None
    """Clean pairs that fix the thresholds; None for an official list, which needs none."""
    cross: PairList
    """The comparisons that count: two different images each, or the official list."""
    own: PairList
    """Each image with its own treated version."""
    same: PairList
    """The genuine pairs of ``own`` and the impostor pairs of ``cross``."""
    published: BoolArray
    """Which samples make thresholds and numbers, (N,): those that no attacker learns from."""
    measured: IntArray
    """Indices of the samples that numbers are made of: EVAL, or those of an official list."""
    learning: IntArray
    """Indices of the samples that attackers learn from (ATTACKER-TRAIN); empty without any."""
    held: BoolArray
    """Which of them are of people that attackers choose by, and fit nothing on."""

    def rows(self, indices: IntArray) -> BoolArray:
        """Which samples are meant by some indices, (N,)."""
        return np.isin(np.arange(len(self.samples)), indices)

    @property
    def used(self) -> BoolArray:
        """Which samples are published or learnt from, (N,)."""
        return self.published | self.rows(self.learning)


def prepare(
    config: RunConfig, progress: Progress, method: Method | FileMethod | None = None
) -> Job:
    """Load and check all parts, before anything costs time.

    Args:
        method: in place of the one that the configuration names.
    Raises:
        DeidbenchError: a part is unknown or does not fit, or no recognizer is available.
    """
    device = choose_device(config.device)
    protocol = protocols.load(config.protocol)
    metrics, no_metrics = _load_metrics(config.metrics, progress)
    method = method or load_method(
        config.method, strength=config.strength, weights=config.weights, **dict(config.settings)
    )
    dataset = load_dataset(config.dataset, adults_only=config.adults_only)
    require_honest_pairs(dataset, config)
    samples = refuse_trained(_samples(dataset, protocol, config), method, config)
    samples = limit_subjects(samples, config.limit_subjects, seed=config.seed)
    samples, faulty = without_faults(samples, config)
    split = _split(samples, protocol, config)
    samples = _in_parts(samples, split)
    measured = split.indices(samples, EVAL)
    learning = split.indices(samples, ATTACKER_TRAIN)
    recognizers, unavailable = load_recognizers(config.recognizers, progress)
    _require_thresholds(protocol, recognizers)
    no_recognizers = [
        NotMeasured(what=f"recognizer {one.name}", why=one.reason or NO_WEIGHTS)
        for one in unavailable
    ]
    stages = Stages(
        samples=samples, method=method, cache=Cache(assets.home() / "cache"), progress=progress,
        device=device, batch_size=config.batch_size, chip_size=config.chip_size,
        aligned_input=config.aligned, seed=config.seed, strict=config.strict,
        parts=_parts(samples, split),
    )  # fmt: skip
    subjects = _number_subjects(samples, measured)
    official = config.pairs == "official"
    cross = (
        official_pairs(dataset.pairs(), samples) if official else cross_pairs(measured, subjects)
    )
    own = same_image_pairs(measured, subjects)
    calibrating = split.indices(samples, CALIBRATION) if not official else []
    return Job(
        config=config, protocol=protocol, progress=progress, device=device, dataset=dataset,
        samples=samples, split=split, method=method, recognizers=recognizers,
        unavailable=unavailable, published=~np.isin(np.arange(len(samples)), learning),
        threats=[plugins.build("threats", name) for name in protocol.threats],
        stages=stages, gaps=[*no_metrics, *faulty, *no_recognizers],
        ruler=Ruler(metrics, subjects, _weights(subjects, measured, config)),
        calibration=None if official else cross_pairs(calibrating, subjects),
        cross=cross, own=own, same=with_impostors(own, cross), measured=np.array(measured),
        learning=np.array(learning, int),
        held=np.array(held_out([samples[i].subject for i in learning], seed=config.seed), bool),
    )  # fmt: skip


def choose_device(name: str) -> str:
    """'auto' is the first CUDA device when there is one, else the CPU."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeidbenchError(
            f"--device '{name}' cannot be used: {reason}. Use cpu, cuda or auto."
        ) from error
    return name


def load_method(spec: str, /, **settings: Any) -> Method | FileMethod:
    """A method by 'name' or 'name:argument'; settings that are None keep its own defaults.

    Raises:
        DeidbenchError: there is no such method or setting, or it refuses a value.
    """
    method: Method | FileMethod = plugins.build("methods", spec, **settings)
    return method


def load_dataset(spec: str, *, adults_only: bool = True) -> Dataset:
    """A dataset by 'name' or 'name:argument'; children are only asked for where there are any."""
    settings = {} if adults_only else {"adults_only": False}
    dataset: Dataset = plugins.build("datasets", spec, **settings)
    return dataset


def load_recognizers(
    wanted: Sequence[str], progress: Progress
) -> tuple[list[Recognizer], list[RecognizerRecord]]:
    """Those whose weights can be had, and a record for each of the others.

    The whole reason is news for the user; it may name this machine, so no record holds it.
    """
    ready: list[Recognizer] = []
    missing: list[RecognizerRecord] = []
    reasons = []
    for spec in _chosen("recognizers", wanted):
        try:
            ready.append(plugins.build("recognizers", spec))
        except AssetUnavailableError as error:
            reasons.append(f"recognizer {spec} is left out: {error}")
            progress.say(reasons[-1])
            version = _part("recognizers", spec).version
            missing.append(
                RecognizerRecord(
                    name=spec, version=version, status="unavailable", reason=NO_WEIGHTS
                )
            )
    if not ready:
        raise DeidbenchError(f"no recognizer is left to attack with. {' '.join(reasons)}")
    return ready, missing


def _chosen(kind: plugins.Kind, wanted: Sequence[str]) -> list[str]:
    """The parts that were named, without repetitions; those that serve by default if none was."""
    chosen: list[str] = []
    for spec in wanted or (None,):
        if spec in (None, ALL):
            chosen += [n for n in plugins.names(kind) if _serves(_part(kind, n), every=spec == ALL)]
        else:
            chosen.append(str(spec))
    return list(dict.fromkeys(chosen))


def _serves(part: Any, *, every: bool) -> bool:
    """Whether a part is used without being named: never one that cannot do without an argument."""
    if getattr(part, "needs_argument", False):
        return False
    return every or getattr(part, "by_default", True)


def _part(kind: plugins.Kind, spec: str) -> Any:
    return plugins.load(kind, plugins.split_argument(spec)[0])


def _samples(dataset: Dataset, protocol: Protocol, config: RunConfig) -> list[Sample]:
    samples = list(dataset.samples())
    if config.pairs == "official":
        listed = {name for pair in dataset.pairs() for name in (pair.reference, pair.probe)}
        if not listed:
            raise DeidbenchError(
                f"dataset '{dataset.name}' has no official pair list. Use --pairs cross."
            )
        if config.limit_subjects is not None or config.leave_out_trained:
            raise DeidbenchError(
                "--limit-subjects and --leave-out-trained would break the official pair list. "
                "Use --pairs cross."
            )
        return [sample for sample in samples if sample.id in listed]
    return used_parts(samples, protocol.shares)


def without_faults(
    samples: Sequence[Sample], config: RunConfig
) -> tuple[list[Sample], list[NotMeasured]]:
    """Samples to measure, and what is said of those with wrong labels.

    People are drawn before, so that a fault changes nobody's part. An official list is kept as it
    was published.
    """
    kept = [one for one in samples if one.fault is None or config.pairs == "official"]
    count = len(samples) - len(kept)
    if not count:
        return kept, []
    what = f"{count} image{'s' * (count > 1)} with a wrong label"
    return kept, [NotMeasured(what=what, why="known to show another person than their folder says")]


def require_honest_pairs(dataset: Dataset, config: RunConfig) -> None:
    """A set that names no one cannot say which of its faces are of different people."""
    if getattr(dataset, "official_only", False) and config.pairs != "official":
        raise DeidbenchError(
            f"dataset '{dataset.name}' names no people, so only its own list of pairs is honest. "
            "Use --pairs official."
        )


def refuse_trained(
    samples: Sequence[Sample], method: Method | FileMethod, config: RunConfig
) -> Sequence[Sample]:
    """A method must not be measured on people that it was trained on."""
    trained = frozenset(getattr(method, "training_subjects", ()))
    known = {s.subject for s in samples if subject_digest(s.subject) in trained}
    if known and not config.leave_out_trained:
        raise DeidbenchError(
            f"method '{method.name}' was trained on {len(known)} people of this dataset. "
            "Use other people, or --leave-out-trained."
        )
    return [sample for sample in samples if sample.subject not in known]


def _split(samples: Sequence[Sample], protocol: Protocol, config: RunConfig) -> Split:
    if config.pairs == "official":
        return Split(config.seed, {EVAL: frozenset(sample.subject for sample in samples)})
    return split_subjects(samples, seed=config.seed, shares=protocol.shares)


def _in_parts(samples: Sequence[Sample], split: Split) -> list[Sample]:
    """Those that attackers learn from first, the people they choose by last: batches stay apart.

    Without them, the order of the samples is what it was.
    """
    chosen = split.indices(samples, ATTACKER_TRAIN) if ATTACKER_TRAIN in split.subjects else []
    held = held_out([samples[i].subject for i in chosen], seed=split.seed)
    rank = dict(zip(chosen, held, strict=True))
    order = sorted(range(len(samples)), key=lambda i: rank.get(i, 2))
    return [samples[i] for i in order]


def _require_thresholds(protocol: Protocol, recognizers: Sequence[Recognizer]) -> None:
    """Published thresholds hold for the recognizers that they were published for."""
    strange = [one.name for one in recognizers if one.name not in protocol.thresholds]
    if protocol.thresholds and strange:
        raise DeidbenchError(
            f"protocol '{protocol.name}' has thresholds for {', '.join(protocol.thresholds)} only, "
            f"but got {', '.join(strange)}. Name those with --recognizers."
        )


def _parts(samples: Sequence[Sample], split: Split) -> list[str]:
    """The part of each sample."""
    part = {subject: name for name, people in split.subjects.items() for subject in people}
    return [part.get(sample.subject, "") for sample in samples]


def _number_subjects(samples: Sequence[Sample], measured: Sequence[int]) -> IntArray:
    """A number for each sample's person; those that are measured come first, from 0."""
    names = list(dict.fromkeys(samples[i].subject for i in measured))
    names += [sample.subject for sample in samples]
    number: dict[str, int] = {}
    for name in names:
        number.setdefault(name, len(number))
    return np.array([number[sample.subject] for sample in samples], np.int32)


def _weights(subjects: IntArray, measured: Sequence[int], config: RunConfig) -> FloatArray:
    n_subjects = int(subjects[measured].max()) + 1
    return statistics.draw_weights(n_subjects, draws=config.draws, seed=config.seed)


def _load_metrics(wanted: Sequence[str], progress: Progress) -> tuple[list[Any], list[NotMeasured]]:
    """Metrics of every run and those that were named; the reason for each that cannot be had."""
    ready: list[Any] = []
    missing: list[NotMeasured] = []
    for name in dict.fromkeys([*_chosen("metrics", ()), *_chosen("metrics", wanted)]):
        try:
            ready.append(plugins.build("metrics", name))
        except AssetUnavailableError as error:
            progress.say(f"metric {name} is left out: {error}")
            missing.append(NotMeasured(what=f"metric {name}", why=NO_WEIGHTS))
    return ready, missing
