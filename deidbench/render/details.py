"""What a reader needs to check a run or do it again: command, environment, hashes, gaps."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from deidbench.errors import DeidbenchError

from . import numbers, reading
from .reading import Run
from .seal import seal

Pairs = list[tuple[str, str]]


def details(run: Run) -> list[tuple[str, Pairs]]:
    """Environment, hashes, configuration: titled lists of names and values."""
    record = run.record
    machine = [(key, value) for key, value in record.machine.model_dump().items() if value]
    timings = [(t.stage, f"{numbers.number(t.seconds)} s, {t.images} images, {t.cached} cached")
               for t in record.timings]  # fmt: skip
    parts: list[tuple[str, Sequence[tuple[str, Any]]]] = [
        ("Machine", machine),
        ("Versions", versions(run)),
        ("Metric versions", list({row.metric: row.version for row in record.rows}.items())),
        ("SHA-256 of the files", list(_files(run))),
        ("SHA-256 of what was used", hashes(run)),
        ("Configuration", list(record.config.items())),
        ("Method settings", list(record.method.parameters.items())),
        ("Protocol", list(record.protocol_settings.items())),
        ("Split", split(run)),
        ("Faces lost", failures(run)),
        ("Timings", timings),
    ]
    return [(title, plain_pairs(rows)) for title, rows in parts if rows]


def plain_pairs(rows: Sequence[tuple[str, Any]]) -> Pairs:
    """Names and values as text on one line each."""
    return [(numbers.plain(name), numbers.plain(str(value))) for name, value in rows]


def versions(run: Run) -> list[tuple[str, Any]]:
    """Of everything that has one, apart from the metrics."""
    record = run.record
    return [
        ("deidbench", record.deidbench_version),
        (record.method.name, record.method.version),
        (record.dataset.name, record.dataset.version),
        *((one.name, one.version) for one in record.recognizers),
        *((one.id, one.version) for one in record.threats),
    ]


def hashes(run: Run) -> list[tuple[str, str]]:
    """Of the faces, their split, and all weights."""
    record = run.record
    found = [("dataset", record.dataset.sha256), ("split", record.split.sha256)]
    found.append(("method weights", record.method.weights_sha256 or "no weights"))
    for one in record.recognizers:
        if one.weights_sha256:
            found.append((f"{one.name} weights", one.weights_sha256))
    return found


def split(run: Run) -> list[tuple[str, str]]:
    """People and images of each part, none of whom is in another."""
    record = run.record
    return [
        (part, f"{n} subjects, {record.split.images.get(part, 0)} images")
        for part, n in record.split.subjects.items()
    ]


def failures(run: Run) -> list[tuple[str, Any]]:
    """Images lost, by stage, in words."""
    return [(stage.replace("_", " "), n) for stage, n in run.record.failures.items()]


def _files(run: Run) -> Iterator[tuple[str, str]]:
    """Hashes of the run's own files, and of all of them together."""
    if run.folder is None:
        return
    try:
        found = seal(run.folder)
    except DeidbenchError as error:
        yield "not whole", str(error)
        return
    yield "the run (all below)", found.sha256
    yield from found.files


def unmeasured(run: Run) -> Pairs:
    """What a reader may miss, each with its reason."""
    record = run.record
    found = {_named_threat(one.what): one.why for one in record.not_measured}
    told = " ".join(found).lower()
    for one in record.recognizers:
        if one.status == "unavailable" and one.name.lower() not in told:
            found[f"recognizer {one.name}"] = one.reason or "unavailable"
    for limit in record.thresholds:
        lost = limit.value is None and limit.view == "landmarks"
        if lost and limit.recognizer.lower() not in told:
            found[f"{limit.recognizer} at FAR {limit.far:g}"] = limit.note or "undefined"
    if "human" not in told:
        found["human observers"] = "not measured: only people can tell"
    if not reading.adapted(record) and not any(word in told for word in ("t3", "adapt")):
        found["adapted attackers (T3 and above)"] = "not run"
    return plain_pairs(list(found.items()))


def _named_threat(what: str) -> str:
    """'T5' alone says little: 'T5 linkage'."""
    return f"{what} {reading.ATTACKS[what].partition(':')[0]}" if what in reading.ATTACKS else what


def command(run: Run) -> str:
    """The command that makes the same numbers again, given the same files."""
    config = {"method": run.record.method.name, "seed": run.record.seed, **run.record.config}
    words = ["deidbench", "evaluate"]
    if config.pop("adults_only", True) is False:
        words.append("--with-children")
    for name, value in dict(config.pop("settings", {})).items():
        words += ["--set", f"{name}={value}"]
    for key, value in config.items():
        flag = "--" + key.replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, ",".join(map(str, value))] if value else []
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return numbers.plain(shlex.join(words))
