"""FaDeNet's files: published weights (safetensors) and the state of a training run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from deidbench.errors import DeidbenchError

from .model import FaDeNet, FaDeNetConfig

FORMAT, METADATA = "fadenet-2", "fadenet"
SHIPPED = ("fadenet", "fadenet-fast", "fadenet-keyed")
"""Methods whose weights are part of the package."""


class CheckpointError(DeidbenchError):
    """A file of weights or of training state is missing, damaged or of another kind."""


@dataclass(frozen=True)
class Provenance:
    """Where published weights come from."""

    training: Mapping[str, Any]
    """The whole training configuration."""
    critics: Mapping[str, str]
    """Name and weights_sha256 of each recognizer that the network was trained against."""
    data: str
    subjects: tuple[str, ...]
    """``subject_digest`` of each person in the training set."""
    steps: int
    seed: int
    deidbench: str
    note: str = ""
    metrics: tuple[str, ...] = ()
    """Image metrics that were part of a loss, in this run or in one that it went on from."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**vars(self), "subjects": list(self.subjects), "metrics": list(self.metrics)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Provenance:
        """Rebuild from ``to_dict``.

        Raises:
            ValueError, TypeError, KeyError: a field is missing, unknown or of another type.
        """
        critics, subjects = fields["critics"], fields["subjects"]
        _typed(critics, dict, "critics")
        _typed(subjects, list, "subjects")
        for text in [*critics, *critics.values(), *subjects]:
            _typed(text, str, "critics and subjects")
        _typed(fields["training"], dict, "training")
        for name, kind in (("data", str), ("steps", int), ("seed", int), ("deidbench", str)):
            _typed(fields[name], kind, name)
        metrics = fields.get("metrics", metrics_in(fields["training"]))
        _typed(metrics, list, "metrics")
        for name in metrics:
            _typed(name, str, "metrics")
        return cls(**{**fields, "subjects": tuple(subjects), "metrics": tuple(metrics)})


def metrics_in(training: Mapping[str, Any]) -> list[str]:
    """The image metrics that a training configuration has in its loss."""
    loss = training.get("loss", {})
    _typed(loss, dict, "loss")
    weights = {"lpips": ("perceptual", "over_budget"), "ssim": ("over_structure",)}
    return [name for name, of in weights.items() if any(loss.get(one, 0) for one in of)]


def _typed(value: object, kind: type, name: str) -> None:
    if type(value) is not kind:
        raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}"[:200])


def save_weights(path: Path, network: FaDeNet, provenance: Provenance) -> None:
    """Write float16 weights with their configuration and provenance; atomic."""
    tensors = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in network.state_dict().items()
    }
    about = {
        "format": FORMAT,
        "config": network.config.to_dict(),
        "provenance": provenance.to_dict(),
    }
    # One entry: safetensors writes several in any order, and equal runs shall give equal files.
    write_atomically(path, save(tensors, {METADATA: json.dumps(about)}))


def load_weights(path: Path) -> tuple[FaDeNet, Provenance]:
    """The network in float32, in evaluation mode, and where it comes from.

    Raises:
        CheckpointError: no such file, or it is not a file of FaDeNet weights.
    """
    if not path.is_file():
        raise CheckpointError(
            f"no FaDeNet weights at {path}. Train them with 'deidbench train', or reinstall."
        )
    try:
        return _read_weights(path)
    except (
        SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError,
    ) as error:  # fmt: skip
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path.name} is not a file of FaDeNet weights: {reason}. Export or install it again."
        ) from error


def weights_sha256(path: Path) -> str:
    """64 hex digits that name a file of weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_at(name: str | Path) -> AbstractContextManager[Path]:
    """Where weights lie while the context is open: those of a method of this package, or a file."""
    if name in SHIPPED:
        return as_file(files("fadenet").joinpath("weights", f"{name}.safetensors"))
    return nullcontext(Path(name))


def _read_weights(path: Path) -> tuple[FaDeNet, Provenance]:
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        _typed(about, dict, METADATA)
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if about.get("format") != FORMAT:
        raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("it holds values that are not finite")
    network = FaDeNet(FaDeNetConfig.from_dict(about["config"]))
    network.load_state_dict(tensors)
    network.requires_grad_(False).eval()
    return network, Provenance.from_dict(about["provenance"])


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a run (tensors and plain values only); atomic."""
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """The state of a run.

    Raises:
        CheckpointError: no such file, or it is damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"no training state at {path}. Start without --resume.")
    damaged = f"{path.name} is not a training state that can be read. Delete it and start again."
    if not zipfile.is_zipfile(path):  # torch would try to read it as a pickle
        raise CheckpointError(damaged)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(damaged) from error
    if not isinstance(state, dict):
        raise CheckpointError(damaged)
    return state


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def deidbench_version() -> str:
    """Version of the installed package."""
    return version("deidbench")


def copy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies, safe from later steps."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
