"""The stages that cost time: batch by batch, each output cached under a hash of all it depends on.

A batch is the unit of work and of storage: what one stage leaves is what the next one reads, so a
killed run goes on at the batch where it stopped, and memory does not grow with the dataset.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from .alignment import Aligner, to_float, to_uint8
from .cache import Cache, digest, file_digest
from .errors import DeidbenchError
from .geometry import inner_face_box
from .images import read_image
from .progress import Progress
from .types import ImageMetric, Method, Recognizer, Sample

if TYPE_CHECKING:
    from .cache import Arrays
    from .types import FloatArray

Side = Literal["clean", "treated", "detected"]
"""Which faces are embedded: clean; treated, by the clean landmarks; treated, detected anew."""


SOURCES = ("stages.py", "alignment.py", "geometry.py", "images.py")
LIBRARIES = ("torch", "facenet-pytorch", "pillow", "lpips")


@dataclass(frozen=True)
class Batch:
    """Consecutive samples and the hash of their files."""

    samples: Sequence[Sample]
    files: Sequence[str]
    """sha256 of each sample's file."""

    @property
    def key(self) -> str:
        """Hash of the files."""
        return digest(self.files)


@dataclass
class Timing:
    """What a stage cost in this run; cached batches cost nothing."""

    seconds: float = 0.0
    images: int = 0
    cached: int = 0


@dataclass
class Stages:
    """Images to chips to treated chips to embeddings and image metrics, all cached."""

    samples: Sequence[Sample]
    method: Method
    cache: Cache
    progress: Progress
    device: str
    batch_size: int
    chip_size: int
    aligned_input: bool
    seed: int
    timings: dict[str, Timing] = field(default_factory=dict)

    @cached_property
    def batches(self) -> list[Batch]:
        """The samples in consecutive batches."""
        chunks = [
            self.samples[i : i + self.batch_size]
            for i in range(0, len(self.samples), self.batch_size)
        ]
        return [
            Batch(chunk, [file_digest(sample.path) for sample in chunk])
            for chunk in self.progress.track(chunks, "read")
        ]

    def align(self) -> Arrays:
        """landmarks (N, 5, 2) in chip pixels and found (N,) of all samples."""
        return self._each("align", self.chips, keep=("landmarks", "found"))

    def treat(self) -> None:
        """Leave the treated chips of all samples in the cache."""
        self._each("treat", self.treated_chips, keep=())

    def detect(self) -> Arrays:
        """landmarks and found of all samples, as a detector sees the treated chips."""
        return self._each("detect", self.redetected, keep=("landmarks", "found"))

    def embed(self, recognizer: Recognizer, side: Side) -> FloatArray:
        """Embeddings of all samples, (N, D); NaN where there is no face to embed."""
        recognizer.to(self.device)
        stage = f"embed {recognizer.name} {side}"
        outputs = self._each(
            stage, lambda batch: self.embedded(batch, recognizer, side), keep=("embeddings",)
        )
        embeddings: FloatArray = outputs["embeddings"]
        return embeddings

    def compare(self, metric: ImageMetric) -> Arrays:
        """chip (N,) and face (N,): the metric over the whole chip and the inner face."""
        metric.to(self.device)
        return self._each(
            metric.name, lambda batch: self.compared(batch, metric), keep=("chip", "face")
        )

    def chips(self, batch: Batch) -> Arrays:
        """Aligned chips (n, 3, S, S) uint8, landmarks (n, 5, 2), found (n,)."""
        return self.cache.get("align", self._align_key(batch), lambda: self._align(batch))

    def treated_chips(self, batch: Batch) -> Arrays:
        """Treated chips (n, 3, S, S), uint8 as they would be published."""
        return self.cache.get("treat", self._treat_key(batch), lambda: self._treat(batch))

    def redetected(self, batch: Batch) -> Arrays:
        """landmarks and found on the treated chips."""
        return self.cache.get("detect", self._detect_key(batch), lambda: self._detect(batch))

    def embedded(self, batch: Batch, recognizer: Recognizer, side: Side) -> Arrays:
        """embeddings (n, D) of one side."""
        faces = {"clean": self._align_key, "treated": self._treat_key, "detected": self._detect_key}
        key = digest(_identity(recognizer), recognizer.weights_sha256, side, faces[side](batch))
        return self.cache.get("embed", key, lambda: self._embed(batch, recognizer, side))

    def compared(self, batch: Batch, metric: ImageMetric) -> Arrays:
        """chip (n,) and face (n,) values of an image metric."""
        key = digest(_identity(metric), self._align_key(batch), self._treat_key(batch))
        return self.cache.get("compare", key, lambda: self._compare(batch, metric))

    def _align(self, batch: Batch) -> Arrays:
        aligned = self._aligner([read_image(sample.path) for sample in batch.samples])
        return {
            "chips": aligned.chips.numpy(),
            "landmarks": aligned.landmarks.numpy(),
            "found": aligned.found.numpy(),
        }

    def _treat(self, batch: Batch) -> Arrays:
        aligned = self.chips(batch)
        chips, found = torch.from_numpy(aligned["chips"]), torch.from_numpy(aligned["found"])
        treated = torch.zeros_like(chips)
        if bool(found.any()):
            faces = to_float(chips[found]).to(self.device)
            output = self.method.deidentify(faces, seed=self._batch_seed(batch))
            _check_output(self.method.name, faces, output)
            treated[found] = to_uint8(output).cpu()
        return {"chips": treated.numpy()}

    def _detect(self, batch: Batch) -> Arrays:
        chips = self.treated_chips(batch)["chips"].transpose(0, 2, 3, 1)
        landmarks = self._aligner.detect(list(chips), chips=True)
        landmarks[~self.chips(batch)["found"]] = np.nan
        return {"landmarks": landmarks, "found": np.isfinite(landmarks[:, 0, 0])}

    @torch.inference_mode()
    def _embed(self, batch: Batch, recognizer: Recognizer, side: Side) -> Arrays:
        source = self.chips(batch) if side == "clean" else self.treated_chips(batch)
        places = self.redetected(batch) if side == "detected" else self.chips(batch)
        found = torch.from_numpy(places["found"])
        chips = to_float(torch.from_numpy(source["chips"])[found]).to(self.device)
        landmarks = torch.from_numpy(places["landmarks"])[found].to(self.device)
        if not bool(found.any()):
            return {"embeddings": np.full((len(found), 1), np.nan, np.float32)}
        embeddings = recognizer.embed(chips, landmarks).cpu()
        rows = torch.full((len(found), embeddings.shape[1]), torch.nan)
        rows[found] = embeddings
        return {"embeddings": rows.numpy()}

    @torch.inference_mode()
    def _compare(self, batch: Batch, metric: ImageMetric) -> Arrays:
        found = torch.from_numpy(self.chips(batch)["found"])
        values = {"chip": torch.full((len(found),), torch.nan), "face": torch.empty(0)}
        values["face"] = values["chip"].clone()
        if bool(found.any()):
            before = to_float(torch.from_numpy(self.chips(batch)["chips"])[found])
            after = to_float(torch.from_numpy(self.treated_chips(batch)["chips"])[found])
            before, after = before.to(self.device), after.to(self.device)
            left, top, right, bottom = inner_face_box(self.chip_size)
            inner = (..., slice(top, bottom), slice(left, right))
            values["chip"][found] = metric(before, after).cpu()
            values["face"][found] = metric(before[inner], after[inner]).cpu()
        return {name: column.numpy() for name, column in values.items()}

    def _each(
        self, stage: str, compute: Callable[[Batch], Arrays], *, keep: Sequence[str]
    ) -> Arrays:
        """Run a stage over all batches and join the named outputs."""
        outputs = []
        self.timings.setdefault(stage, Timing())
        for batch in self.progress.track(self.batches, stage):
            misses, start = self.cache.misses, time.perf_counter()
            arrays = compute(batch)
            timing = self.timings[stage]
            timing.seconds += time.perf_counter() - start
            timing.images += len(batch.samples)
            timing.cached += len(batch.samples) * (self.cache.misses == misses)
            outputs.append({name: arrays[name] for name in keep})
        return {name: _join([output[name] for output in outputs]) for name in keep}

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self.chip_size, aligned=self.aligned_input, device=self.device)

    @cached_property
    def _environment(self) -> str:
        """The code and the libraries that the stages consist of."""
        own = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SOURCES]
        return digest(own, {name: version(name) for name in LIBRARIES}, self._device_type)

    @property
    def _device_type(self) -> str:
        return torch.device(self.device).type

    @cached_property
    def _method_key(self) -> str:
        method = self.method
        weights = getattr(method, "weights_sha256", None)
        return digest(_identity(method), method.strength, weights, self.seed)

    def _align_key(self, batch: Batch) -> str:
        settings = (self.chip_size, self.aligned_input, self._environment)
        return digest("align", settings, batch.key)

    def _treat_key(self, batch: Batch) -> str:
        return digest("treat", self._method_key, self._align_key(batch))

    def _detect_key(self, batch: Batch) -> str:
        return digest("detect", self._treat_key(batch))

    def _batch_seed(self, batch: Batch) -> int:
        """Differs between batches, so that no two images share their noise by position."""
        return int(digest(self.seed, batch.key)[:7], 16)


def images_per_second(
    method: Method, faces: torch.Tensor, *, seconds: float = 1.0, repeats: int = 5
) -> float:
    """Median speed of a method on a batch (n, 3, S, S), after a warm-up, device synchronised."""
    method.deidentify(faces, seed=0)
    speeds: list[float] = []
    end = time.perf_counter() + seconds
    while len(speeds) < repeats or (time.perf_counter() < end and len(speeds) < 200):
        _synchronise(faces)
        start = time.perf_counter()
        method.deidentify(faces, seed=0)
        _synchronise(faces)
        speeds.append(len(faces) / (time.perf_counter() - start))
    return float(np.median(speeds))


def _synchronise(faces: torch.Tensor) -> None:
    if faces.is_cuda:
        torch.cuda.synchronize(faces.device)


def _check_output(name: str, faces: torch.Tensor, output: torch.Tensor) -> None:
    good = output.shape == faces.shape and bool(torch.isfinite(output).all())
    if not good or output.min() < 0 or output.max() > 1:
        raise DeidbenchError(
            f"method '{name}' broke its contract: expected finite values in [0, 1] of shape "
            f"{tuple(faces.shape)}, but got shape {tuple(output.shape)}. Run check_method on it."
        )


def _identity(plugin: Any) -> str:
    """Name, version and source of a plugin: a changed file never meets its old results.

    Its source is the folder of its module; who keeps code elsewhere raises ``version``.
    """
    module = sys.modules[type(plugin).__module__]
    folder = Path(str(module.__file__)).parent
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py"))))
    return digest(type(plugin).__qualname__, plugin.name, plugin.version, code.hexdigest())


def _join(parts: list[Any]) -> Any:
    """Stack batches; a batch without any face has one column of NaN and takes the others' width."""
    width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    return np.concatenate(
        [
            np.full((len(part), width), np.nan, part.dtype)
            if part.ndim == 2 and part.shape[1] < width
            else part
            for part in parts
        ]
    )
