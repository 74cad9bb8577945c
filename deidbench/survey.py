"""What a dataset holds and what can be measured with it, before anything costs time."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import plugins, protocols
from .assets import sha256_of
from .config import PROTOCOL
from .errors import DeidbenchError
from .images import read_image
from .progress import Progress
from .protocols import Protocol
from .split import CALIBRATION, split_subjects, used_parts
from .statistics import RULE_OF_30
from .types import Dataset, Pair, Sample

FALLBACK = "folder"
SHOWN, MOST_VALUES = 3, 12  # names and label values that are listed of many


@dataclass(frozen=True)
class Part:
    """One part of the people, and the comparisons of each two of its images."""

    name: str
    subjects: int
    images: int
    genuine: int
    impostor: int


@dataclass(frozen=True)
class Official:
    """The pair list that a dataset brings, or why it is not there."""

    genuine: int
    impostor: int
    folds: int
    problem: str | None = None


@dataclass(frozen=True)
class Duplicate:
    """Files with the same content that are said to show several people."""

    sha256: str
    ids: Sequence[str]


@dataclass(frozen=True)
class Survey:
    """What ``deidbench datasets check`` tells. File names are those of this machine."""

    dataset: str
    chosen: str
    """Why this kind of dataset."""
    synthetic: bool
    subjects: int
    images: int
    images_per_subject: tuple[int, float, int]
    """Fewest, median, most."""
    subjects_with_one_image: int
    labels: Mapping[str, Mapping[str, int]]
    """Images of each value of each label."""
    fixed_parts: bool
    parts: Sequence[Part]
    """Empty where only the official pairs are honest."""
    official: Official
    honest_fars: Sequence[float]
    """Those of the protocol for which CALIBRATION has impostors enough."""
    smallest_far: float | None
    """30 errors are expected at it (rule of 30)."""
    duplicates: Sequence[Duplicate]
    unreadable: Sequence[str]
    """One line for each image that cannot be read."""
    faults: Mapping[str, str]
    """Images known to show another person than their label says."""
    links_out: Sequence[str]
    """Files below the folder that are links to somewhere else."""
    ignored: Mapping[str, int]
    """Files of the folder that are not read, by ending."""
    notes: Sequence[str]


def survey(
    written: str, *, adults_only: bool = True, seed: int = 0, progress: Progress | None = None
) -> Survey:
    """Read a whole dataset, each image included.

    Args:
        written: ``NAME``, ``NAME:ARGUMENT``, or a path whose layout is recognised.
        seed: of the draw of parts, as in ``deidbench evaluate``.
    Raises:
        DeidbenchError: the dataset cannot be evaluated.
    """
    spec, why = recognise(written)
    settings = {} if adults_only else {"adults_only": False}
    dataset: Dataset = plugins.build("datasets", spec, **settings)
    samples = dataset.samples()
    official = _official(dataset)
    protocol = protocols.load(PROTOCOL)
    unnamed = getattr(dataset, "official_only", False)
    parts = [] if unnamed else _parts(samples, protocol, seed)
    if not parts and official.problem:
        raise DeidbenchError(official.problem)
    sizes = Counter(sample.subject for sample in samples)
    impostors = next((part.impostor for part in parts if part.name == CALIBRATION), 0)
    smallest = RULE_OF_30 / impostors if impostors > RULE_OF_30 else None
    # A dataset that was not told where it lies looks after its folder itself.
    root = getattr(dataset, "root", None) if ":" in spec else None
    links, ignored = _files(root, samples) if root else ([], {})
    return Survey(
        dataset=spec, chosen=why, synthetic=dataset.synthetic,
        subjects=len(sizes), images=len(samples),
        images_per_subject=(min(sizes.values()), median(sizes.values()), max(sizes.values())),
        subjects_with_one_image=sum(size == 1 for size in sizes.values()),
        labels=_labels(samples),
        fixed_parts=any(sample.split for sample in samples), parts=parts, official=official,
        honest_fars=[far for far in protocol.fars if smallest and far >= smallest],
        smallest_far=smallest,
        duplicates=_duplicates(samples), unreadable=_unreadable(samples, progress),
        faults={sample.id: sample.fault for sample in samples if sample.fault},
        links_out=links, ignored=ignored, notes=list(getattr(dataset, "notes", tuple)()),
    )  # fmt: skip


def recognise(written: str) -> tuple[str, str]:
    """The dataset that a path or ``NAME:ARGUMENT`` means, and why.

    A dataset says what it recognises by its class method ``recognises(path) -> str | None``.

    Raises:
        DeidbenchError: there is neither such a dataset nor such a path.
    """
    name, _ = plugins.split_argument(written)
    if name in plugins.names("datasets"):
        return written, "it is named"
    path = Path(written).expanduser()
    if not path.exists():
        plugins.require("datasets", name)  # says which names there are
    for candidate in plugins.names("datasets"):
        ask = getattr(plugins.load("datasets", candidate), "recognises", None)
        why = ask(path) if ask else None
        if why:
            return f"{candidate}:{written}", why
    if not path.is_dir():
        raise DeidbenchError(f"{path} is no dataset. Name a folder, a .csv or a .bin file.")
    return f"{FALLBACK}:{written}", "no other layout fits: <dir>/<subject>/<image>"


def _parts(samples: Sequence[Sample], protocol: Protocol, seed: int) -> list[Part]:
    """Those of the protocol, and those that the dataset sets aside for others to learn from."""
    used = used_parts(samples, protocol.shares)
    split = split_subjects(used, seed=seed, shares=protocol.shares)
    members = {part: [used[i] for i in split.indices(used, part)] for part in split.subjects}
    for sample in samples:
        if sample.split and sample.split not in protocol.shares:
            members.setdefault(sample.split, []).append(sample)
    return [_part(name, chosen) for name, chosen in members.items()]


def _part(name: str, samples: Sequence[Sample]) -> Part:
    counted = [sample for sample in samples if sample.fault is None]
    sizes = Counter(sample.subject for sample in counted)
    genuine = sum(_two_of(size) for size in sizes.values())
    impostor = _two_of(len(counted)) - genuine
    return Part(name, len(sizes), len(counted), genuine, impostor)


def _two_of(count: int) -> int:
    return count * (count - 1) // 2


def _official(dataset: Dataset) -> Official:
    try:
        pairs: Sequence[Pair] = dataset.pairs()
    except DeidbenchError as error:
        return Official(0, 0, 0, str(error))
    genuine = sum(pair.same for pair in pairs)
    return Official(genuine, len(pairs) - genuine, len({pair.fold for pair in pairs}))


def _labels(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        for label, value in sample.labels.items():
            counts[label][value] += 1
    return {label: dict(sorted(values.items())) for label, values in sorted(counts.items())}


def _duplicates(samples: Sequence[Sample]) -> list[Duplicate]:
    """Equal files under two subjects; only files of one length are hashed."""
    by_size = _grouped(samples, lambda sample: sample.path.stat().st_size)
    alike = [one for group in by_size if _has_two_people(group) for one in group]
    by_content = _grouped(alike, lambda sample: sha256_of(sample.path))
    return [
        Duplicate(sha256_of(group[0].path), [sample.id for sample in group])
        for group in by_content
        if _has_two_people(group)
    ]


def _grouped(samples: Iterable[Sample], key: Any) -> Iterable[list[Sample]]:
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return groups.values()


def _has_two_people(samples: Sequence[Sample]) -> bool:
    return len({sample.subject for sample in samples}) > 1


def _unreadable(samples: Sequence[Sample], progress: Progress | None) -> list[str]:
    """Every image is decoded: Pillow's quick check does not see a JPEG that was cut short."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(_problem, samples)
        steps = (progress or Progress(quiet=True)).track(samples, "read")
        return [problem for _, problem in zip(steps, answers, strict=True) if problem]


def _problem(sample: Sample) -> str | None:
    try:
        read_image(sample.path)
    except DeidbenchError as error:
        return str(error)
    return None


def _files(root: Path, samples: Sequence[Sample]) -> tuple[list[str], dict[str, int]]:
    """Links out of the dataset's folder, and what lies there unread."""
    real = os.path.realpath(root)
    read = {sample.path for sample in samples}
    links = [
        sample.id for sample in samples
        if not Path(os.path.realpath(sample.path)).is_relative_to(real)
    ]  # fmt: skip
    unread = (path for path in _below(root) if path not in read)
    return links, dict(sorted(Counter(path.suffix.lower() for path in unread).items()))


def _below(root: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def rows(found: Survey) -> list[tuple[str, str]]:
    """The survey as pairs of a heading and one line of text."""
    few, middle, many = found.images_per_subject
    told = [
        ("dataset", f"{found.dataset} ({'synthetic' if found.synthetic else 'real'} faces)"),
        ("chosen", found.chosen),
        ("subjects", f"{found.subjects:,}"),
        ("images", f"{found.images:,}; {few}, {middle:g}, {many} a subject (min, median, max)"),
        ("one image", f"{found.subjects_with_one_image:,} subjects"),
        *((f"label {label}", _counts(values)) for label, values in found.labels.items()),
        *_part_rows(found),
        ("official", _official_text(found.official)),
        ("duplicates", _some(len(found.duplicates), "under several subjects",
                             [" = ".join(one.ids) for one in found.duplicates])),
        ("unreadable", _some(len(found.unreadable), "images", found.unreadable)),
        ("wrong label", _some(len(found.faults), "images", list(found.faults))),
        ("links out", _some(len(found.links_out), "images lie elsewhere", found.links_out)),
        ("not read", _counts(found.ignored) or "0 files"),
        *(("note", note) for note in found.notes),
    ]  # fmt: skip
    return [(_plain(heading), _plain(text)) for heading, text in told]


def _part_rows(found: Survey) -> list[tuple[str, str]]:
    if not found.parts:
        return [("parts", "none: nobody is named, so only --pairs official is honest")]
    origin = "fixed by the dataset" if found.fixed_parts else "drawn by the seed"
    told = [("parts", origin)]
    told += [
        (part.name, f"{part.subjects:,} subjects, {part.images:,} images; {part.genuine:,} genuine "
                    f"and {part.impostor:,} impostor comparisons")
        for part in found.parts
    ]  # fmt: skip
    honest = ", ".join(f"{far:g}" for far in found.honest_fars) or "none"
    smallest = "" if found.smallest_far is None else f"; none below {found.smallest_far:.3g}"
    return [*told, ("honest FARs", f"{honest}{smallest} (rule of 30)")]


def _official_text(official: Official) -> str:
    if official.problem:
        return f"cannot be used: {official.problem}"
    if not official.genuine + official.impostor:
        return "no pair list"
    counts = f"{official.genuine:,} genuine and {official.impostor:,} impostor pairs"
    return f"{counts} in {official.folds} fold{'s' * (official.folds > 1)}"


def _counts(values: Mapping[str, int]) -> str:
    ranked = sorted(values.items(), key=lambda one: -one[1])
    told = [f"{value or 'no ending'} {count:,}" for value, count in ranked[:MOST_VALUES]]
    return ", ".join(
        [*told, *(f"{len(ranked) - MOST_VALUES} more" for _ in ranked[MOST_VALUES:][:1])]
    )


def _some(count: int, what: str, names: Sequence[str]) -> str:
    """A number with the first few of what it counts."""
    shown = "; ".join(names[:SHOWN])
    more = f"; and {count - SHOWN:,} more" if count > SHOWN else ""
    return f"{count:,} {what}: {shown}{more}" if count else "0"


def _plain(text: str) -> str:
    """On one line and without control characters: names come from files of unknown origin."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
