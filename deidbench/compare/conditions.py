"""Whether two runs may be compared at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from deidbench.errors import DeidbenchError
from deidbench.results.schema import RunRecord

from .rows import plain, short


def refuse_other_conditions(base: RunRecord, head: RunRecord) -> None:
    """Raise ``DeidbenchError`` unless both runs were made under the same conditions.

    These are: protocol, with its settings; faces, their parts, and the pairs; seed and size of the
    chips; recognizers, with their weights; versions of threats and metrics.
    """
    for what, of in _CONDITIONS.items():
        _refuse(what, of(base), of(head))
    _refuse_keys("protocol setting", _settings(base), _settings(head))
    _refuse_fewer("recognizer", recognizers_of(base), recognizers_of(head))
    _refuse_fewer("threat", threats_of(base), threats_of(head))
    _refuse_keys("version of metric", _metrics(base), _metrics(head), both=True)


_CONDITIONS: dict[str, Callable[[RunRecord], object]] = {
    "protocol": lambda record: record.protocol,
    "dataset (hash of its files)": lambda record: record.dataset.sha256[:12],
    "seed": lambda record: record.seed,
    "chip size": lambda record: record.chip_size,
    "pairs": lambda record: record.config.get("pairs"),
    "aligned": lambda record: bool(record.config.get("aligned")),
    "split of people into parts (hash)": lambda record: record.split.sha256[:12],
}


def _settings(record: RunRecord) -> dict[str, object]:
    """What a protocol asks for; how it is called and described asks for nothing."""
    settings = record.protocol_settings.items()
    return {key: value for key, value in settings if value and key not in ("name", "summary")}


def recognizers_of(record: RunRecord) -> dict[str, object]:
    """Who attacked, each with its version and weights."""
    return {
        one.name: f"version {one.version}, weights {(one.weights_sha256 or 'none')[:12]}"
        for one in record.recognizers
        if one.status == "run"
    }


def threats_of(record: RunRecord) -> dict[str, object]:
    """Under which threats, each with its version."""
    return {one.id: f"version {one.version}" for one in record.threats}


def _metrics(record: RunRecord) -> dict[str, object]:
    return {row.metric: row.version for row in record.rows}


def _refuse(what: str, base: object, head: object) -> None:
    if base != head:
        raise DeidbenchError(
            f"cannot compare: another {what}: BASE has {short(base)}, HEAD has {short(head)}. "
            "Evaluate one of them again as the other."
        )


def _refuse_keys(
    what: str, base: Mapping[str, object], head: Mapping[str, object], *, both: bool = False
) -> None:
    """Refuse other values; ``both``: of the keys that the two have in common."""
    keys = base.keys() & head.keys() if both else base.keys() | head.keys()
    for key in sorted(keys):
        _refuse(f"{what} {plain(key)}", base.get(key), head.get(key))


def _refuse_fewer(what: str, base: Mapping[str, object], head: Mapping[str, object]) -> None:
    """Whoever is attacked by fewer looks safer: HEAD must have met all that BASE has met."""
    missing = sorted(base.keys() - head.keys())
    if missing:
        raise DeidbenchError(
            f"cannot compare: BASE was attacked by {what} {plain(', '.join(missing))}, HEAD was "
            "not, and fewer attacks look like protection. Evaluate HEAD with the same ones."
        )
    _refuse_keys(what, base, head, both=True)
