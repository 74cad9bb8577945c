"""The stages that cost time: batch by batch, each output cached under a hash of all it depends on.

A batch is the unit of work and of storage: what one stage leaves is what the next one reads, so a
killed run goes on at the batch where it stopped, and memory does not grow with the dataset.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from .alignment import Aligner, to_float, to_uint8
from .cache import Cache, digest, file_digest, pack_texts, unpack_texts
from .errors import DeidbenchError
from .geometry import inner_face_box
from .images import ImageError, read_image
from .progress import Progress
from .treatment import FittedMethods, in_pieces, treat_faces
from .types import FileMethod, ImageMetric, Method, Recognizer, Restorer, Sample, SetMetric

if TYPE_CHECKING:
    from .alignment import Image
    from .cache import Arrays
    from .types import BoolArray, FloatArray

Side = Literal["clean", "treated", "detected"]
"""Which faces are embedded: clean; treated, by the clean landmarks; treated, detected anew."""


BOTH: tuple[Literal["clean"], Literal["treated"]] = ("clean", "treated")
SOURCES = ("stages.py", "treatment.py", "alignment.py", "geometry.py", "images.py")
LIBRARIES = ("torch", "facenet-pytorch", "pillow", "lpips")
UNREADABLE = "unreadable"
MISSING = "it has no treated version"
NAMED = 3
"""How many of the images that failed are named at once."""


@dataclass(frozen=True)
class Batch:
    """Consecutive samples and the hash of their files."""

    start: int
    """Position of the first one among all samples."""
    samples: Sequence[Sample]
    files: Sequence[str]
    """sha256 of each sample's file; ``UNREADABLE`` where it cannot be read."""

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
    method: Method | FileMethod
    cache: Cache
    progress: Progress
    device: str
    batch_size: int
    chip_size: int
    aligned_input: bool
    seed: int
    strict: bool = False
    """Stop at the first image that fails."""
    parts: Sequence[str] = ()
    """The part that each sample is published with; empty: all with one."""
    timings: dict[str, Timing] = field(default_factory=dict)
    problems: dict[str, dict[str, str]] = field(default_factory=dict)
    """What went wrong, by stage and sample id."""
    _files: dict[str, Path] = field(default_factory=dict)
    _treated_digests: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def batches(self) -> list[Batch]:
        """The samples in consecutive batches."""
        starts = range(0, len(self.samples), self.batch_size)
        return [self._batch(start) for start in self.progress.track(starts, "read")]

    def align(self) -> Arrays:
        """landmarks (N, 5, 2) in chip pixels, found (N,), transforms (N, 2, 3) from photographs."""
        return self._each("align", self.chips, keep=("landmarks", "found", "transforms"))

    def treat(self) -> Arrays:
        """Leave the treated chips of all samples in the cache; treated (N,) says which there are.

        Raises:
            DeidbenchError: the method failed on every face.
        """
        if not hasattr(self.method, "treat"):
            treated = self._each("treat", self.treated_chips, keep=("treated",))
        else:
            with self.cache.workspace() as workspace:
                self._files = dict(self.method.treat(self.samples, workspace))
                treated = self._each("treat", self.treated_chips, keep=("treated",))
        if not treated["treated"].any() and self.align()["found"].any():
            raise DeidbenchError(f"method '{self.method.name}' treated no face. {self._first()}")
        return treated

    def detect(self, rows: BoolArray | None = None) -> Arrays:
        """landmarks and found of all samples, as a detector sees the treated chips.

        ``rows`` (N,), here and below, says which samples are asked for; the others may be NaN.
        """
        return self._each("detect", self.redetected, keep=("landmarks", "found"), rows=rows)

    def embed(
        self,
        recognizer: Recognizer,
        side: Side,
        *,
        restorer: Restorer | None = None,
        rows: BoolArray | None = None,
    ) -> FloatArray:
        """Embeddings of all samples, (N, D); NaN where there is no face to embed.

        Args:
            restorer: what an attacker does to the treated faces before.
        """
        recognizer.to(self.device)
        stage = f"embed {recognizer.name} {restorer.name if restorer else side}"
        outputs = self._each(
            stage, lambda batch: self.embedded(batch, recognizer, side, restorer),
            keep=("embeddings",), rows=rows,
        )  # fmt: skip
        embeddings: FloatArray = outputs["embeddings"]
        return embeddings

    def compare(
        self,
        metric: ImageMetric,
        *,
        restorer: Restorer | None = None,
        rows: BoolArray | None = None,
    ) -> Arrays:
        """The metric of each image, (N,) by region: over the whole chip and the inner face."""
        metric.to(self.device)
        return self._each(
            metric.name, lambda batch: self.compared(batch, metric, restorer),
            keep=_regions(metric), rows=rows,
        )  # fmt: skip

    def features(
        self, metric: SetMetric, side: Literal["clean", "treated"], rows: BoolArray | None = None
    ) -> FloatArray:
        """What a set metric compares by, (N, D); NaN where there is no face."""
        metric.to(self.device)
        outputs = self._each(
            f"{metric.name} {side}", lambda batch: self.described(batch, metric, side),
            keep=("features",), rows=rows,
        )  # fmt: skip
        features: FloatArray = outputs["features"]
        return features

    def judged(
        self, detector: Callable[[torch.Tensor], torch.Tensor], stage: str, rows: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """A detector's scores of clean and of treated faces, (N,) each; NaN where there is none."""
        scores: dict[Literal["clean", "treated"], FloatArray] = {
            side: np.full(len(self.samples), np.nan, np.float32) for side in BOTH
        }
        for batch in self.progress.track(self.batches, stage):
            wanted = rows[batch.start :][: len(batch.samples)]
            for side, row in scores.items():
                chips, there = self._faces(batch, side)
                chosen = np.flatnonzero(wanted & there)
                if chosen.size:
                    faces = to_float(torch.from_numpy(chips[chosen])).to(self.device)
                    with torch.inference_mode():
                        judged = in_pieces(detector, faces).cpu().numpy()
                    row[batch.start + chosen] = judged
        return scores["clean"], scores["treated"]

    def method_of(self, part: str) -> Method:
        """The method as it treats the faces of a part: fitted on them, where it needs that."""
        return self._methods.of(part)

    def with_seed(self, seed: int) -> Stages:
        """The same faces treated with another key; these very stages where no key changes them."""
        if hasattr(self.method, "treat"):
            return self  # files that somebody treated once
        other = self._twin(seed=seed, timings=self.timings)
        first = next((b for b in self.batches if self.treated_chips(b)["treated"].any()), None)
        if first is None:
            return self
        pair = (self.treated_chips(first)["chips"], other.treated_chips(first)["chips"])
        return self if np.array_equal(*pair) else other

    def with_method(self, method: Method) -> Stages:
        """The same faces in the hands of another method, without a word of how far it is."""
        return self._twin(method=method, progress=Progress(quiet=True))

    def _twin(self, **changes: Any) -> Stages:
        fresh: dict[str, Any] = {"timings": {}, "problems": {}, "_files": {}}
        other = replace(self, _treated_digests={}, **(fresh | changes))
        for shared in ("batches", "_aligner", "_environment"):  # they hang on neither
            other.__dict__[shared] = getattr(self, shared)
        return other

    def faces_at(self, samples: Sequence[int]) -> tuple[Any, Any, FloatArray]:
        """Clean and treated chips (M, 3, S, S) uint8, clean landmarks (M, 5, 2); samples ascend."""
        chosen = np.asarray(samples)
        columns: list[list[Any]] = [[], [], []]
        for batch in self.batches:
            rows = chosen[(chosen >= batch.start) & (chosen < batch.start + len(batch.samples))]
            aligned, treated = self.chips(batch), self.treated_chips(batch)
            sources = (aligned["chips"], treated["chips"], aligned["landmarks"])
            for column, source in zip(columns, sources, strict=True):
                column.append(source[rows - batch.start])
        clean, changed, landmarks = (np.concatenate(column) for column in columns)
        return clean, changed, landmarks

    @contextmanager
    def timed(self, stage: str, images: int) -> Iterator[None]:
        """Count the time within as a stage of its own."""
        misses, start = self.cache.misses, time.perf_counter()
        yield
        timing = self.timings.setdefault(stage, Timing())
        timing.seconds += time.perf_counter() - start
        timing.images += images
        timing.cached += images * (self.cache.misses == misses)

    @property
    def treated_key(self) -> str:
        """Hash of all that the treated faces depend on."""
        return digest([self._treat_key(batch) for batch in self.batches])

    def chips(self, batch: Batch) -> Arrays:
        """Aligned chips (n, 3, S, S) uint8, landmarks (n, 5, 2), found (n,)."""
        return self.cache.get("align", self._align_key(batch), lambda: self._align(batch))

    def treated_chips(self, batch: Batch) -> Arrays:
        """Treated chips (n, 3, S, S), uint8 as they would be published, and treated (n,)."""
        return self.cache.get("treat", self._treat_key(batch), lambda: self._treat(batch))

    def redetected(self, batch: Batch) -> Arrays:
        """landmarks and found on the treated chips."""
        return self.cache.get("detect", self._detect_key(batch), lambda: self._detect(batch))

    def restored(self, batch: Batch, restorer: Restorer) -> Arrays:
        """Treated chips (n, 3, S, S) uint8 as an attacker restores them."""
        key = digest(identity(restorer), restorer.fingerprint, self._treat_key(batch))
        return self.cache.get("restore", key, lambda: self._restore(batch, restorer))

    def embedded(
        self, batch: Batch, recognizer: Recognizer, side: Side, restorer: Restorer | None = None
    ) -> Arrays:
        """embeddings (n, D) of one side.

        Stored by the pixels: a method that changes nothing, or does the same with every key, costs
        nothing again, and gives the same numbers to the last digit.
        """
        faces, landmarks, found = self._seen(batch, side, restorer)
        key = digest(
            identity(recognizer), recognizer.weights_sha256, self._environment,
            _bytes_digest(faces), _bytes_digest(landmarks), found.tolist(),
        )  # fmt: skip
        compute = partial(self._embed, recognizer, faces, landmarks, found)
        return self.cache.get("embed", key, compute)

    def compared(
        self, batch: Batch, metric: ImageMetric, restorer: Restorer | None = None
    ) -> Arrays:
        """Values (n,) of an image metric by region."""
        keys = [identity(metric), self._align_key(batch), self._treat_key(batch)]
        if restorer is not None:
            keys += [identity(restorer), restorer.fingerprint]
        return self.cache.get(
            "compare", digest(*keys), lambda: self._compare(batch, metric, restorer)
        )

    def described(
        self, batch: Batch, metric: SetMetric, side: Literal["clean", "treated"]
    ) -> Arrays:
        """features (n, D) of one side."""
        faces = self._align_key(batch) if side == "clean" else self._treat_key(batch)
        key = digest(identity(metric), side, faces)
        return self.cache.get("features", key, lambda: self._describe(batch, metric, side))

    def _batch(self, start: int) -> Batch:
        samples = self.samples[start : start + self.batch_size]
        return Batch(start, samples, [_digest_of(sample.path) for sample in samples])

    def _align(self, batch: Batch) -> Arrays:
        """Rows of photographs that cannot be read are black, and found is False."""
        images, problems = _read([sample.path for sample in batch.samples])
        readable = [row for row, image in enumerate(images) if image is not None]
        size, count = self.chip_size, len(images)
        rows: Arrays = {
            "chips": np.zeros((count, 3, size, size), np.uint8),
            "landmarks": np.full((count, 5, 2), np.nan, np.float32),
            "found": np.zeros(count, bool),
            "transforms": np.full((count, 2, 3), np.nan, np.float32),
            "sizes": np.zeros((count, 2), np.int64),
            "problems": pack_texts(problems),
        }
        if readable:
            there = [image for image in images if image is not None]
            aligned = self._aligner(there)
            for name in ("chips", "landmarks", "found", "transforms"):
                rows[name][readable] = getattr(aligned, name).numpy()
            rows["sizes"][readable] = [image.shape[:2] for image in there]
        return rows

    def _treat(self, batch: Batch) -> Arrays:
        if hasattr(self.method, "treat"):
            return self._treat_files(batch)
        aligned = self.chips(batch)
        treated, problems = np.zeros_like(aligned["chips"]), [""] * len(batch.samples)
        parts = self.parts[batch.start :][: len(batch.samples)] or [""] * len(batch.samples)
        for number, part in enumerate(sorted(set(parts))):
            rows = [i for i, own in enumerate(parts) if own == part and aligned["found"][i]]
            if not rows:
                continue
            faces = to_float(torch.from_numpy(aligned["chips"][rows])).to(self.device)
            seed = self._batch_seed(batch) + number
            output, why = treat_faces(self.method_of(part), faces, seed=seed)
            treated[rows] = to_uint8(output).cpu().numpy()
            for row, problem in zip(rows, why, strict=True):
                problems[row] = problem
        failed = np.array([bool(problem) for problem in problems])
        if batch.start == 0 and aligned["found"].any() and failed[aligned["found"]].all():
            reason = next(problem for problem in problems if problem)
            raise DeidbenchError(f"method '{self.method.name}' {reason}. Run check_method on it.")
        return _treated(treated, aligned["found"] & ~failed, problems)

    def _treat_files(self, batch: Batch) -> Arrays:
        """Chips of photographs that were treated as files, by the transforms of the originals."""
        aligned = self.chips(batch)
        treated, problems = np.zeros_like(aligned["chips"]), [""] * len(batch.samples)
        for row, sample in enumerate(batch.samples):
            if not aligned["found"][row]:
                continue
            transform = torch.from_numpy(aligned["transforms"][row])
            try:
                image = self._treated_file(sample, aligned["sizes"][row])
                treated[row] = self._aligner.chip_of(image, transform).numpy()
            except DeidbenchError as error:
                problems[row] = str(error)
        failed = np.array([bool(problem) for problem in problems])
        return _treated(treated, aligned["found"] & ~failed, problems)

    def _treated_file(self, sample: Sample, size: Sequence[int]) -> Image:
        """The treated photograph, as large as the original."""
        if sample.id not in self._files:
            raise DeidbenchError(MISSING)
        try:
            image = read_image(self._files[sample.id])
        except ImageError as error:
            raise DeidbenchError(f"its treated version: {error.reason}") from error
        return image if self.aligned_input else _as_large(image, (int(size[0]), int(size[1])))

    def _detect(self, batch: Batch) -> Arrays:
        treated = self.treated_chips(batch)
        landmarks = self._aligner.detect(list(treated["chips"].transpose(0, 2, 3, 1)), chips=True)
        landmarks[~treated["treated"]] = np.nan
        return {"landmarks": landmarks, "found": np.isfinite(landmarks[:, 0, 0])}

    @torch.inference_mode()
    def _restore(self, batch: Batch, restorer: Restorer) -> Arrays:
        treated = self.treated_chips(batch)
        chips, there = treated["chips"].copy(), treated["treated"]
        if there.any():
            faces = to_float(torch.from_numpy(chips[there])).to(self.device)
            restorer.to(self.device)
            chips[there] = to_uint8(in_pieces(restorer, faces)).cpu().numpy()
        return {"chips": chips}

    def _seen(
        self, batch: Batch, side: Side, restorer: Restorer | None
    ) -> tuple[Any, FloatArray, BoolArray]:
        """The chips and landmarks that a recognizer sees, and which rows there are, (n,).

        Only the rows that there are: (m, 3, S, S) and (m, 5, 2).
        """
        places = self.redetected(batch) if side == "detected" else self.chips(batch)
        chips, there = self._faces(batch, "clean" if side == "clean" else "treated")
        if restorer is not None:
            chips = self.restored(batch, restorer)["chips"]
        found = places["found"] & there
        return chips[found], places["landmarks"][found], found

    @torch.inference_mode()
    def _embed(
        self, recognizer: Recognizer, chips: Any, landmarks: FloatArray, found: BoolArray
    ) -> Arrays:
        if not found.any():
            return {"embeddings": np.full((len(found), 1), np.nan, np.float32)}
        faces = to_float(torch.from_numpy(chips)).to(self.device)
        points = torch.from_numpy(landmarks).to(self.device)
        embeddings = in_pieces(recognizer.embed, faces, points).cpu().numpy()
        rows = np.full((len(found), embeddings.shape[1]), np.nan, np.float32)
        rows[found] = embeddings
        broken = found & ~np.isfinite(rows).all(1)
        rows[broken] = np.nan
        return {
            "embeddings": rows,
            "problems": pack_texts(["its embedding is not finite" if x else "" for x in broken]),
        }

    @torch.inference_mode()
    def _compare(self, batch: Batch, metric: ImageMetric, restorer: Restorer | None) -> Arrays:
        chips, there = self._faces(batch, "treated")
        if restorer is not None:
            chips = self.restored(batch, restorer)["chips"]
        values = {name: np.full(len(there), np.nan, np.float32) for name in _regions(metric)}
        if there.any():
            pairs = (self.chips(batch)["chips"], chips)
            before, after = (to_float(torch.from_numpy(x[there])).to(self.device) for x in pairs)
            for region, column in values.items():
                part = self._region(region)
                column[there] = in_pieces(metric, before[part], after[part]).cpu().numpy()
        return dict(values)

    @torch.inference_mode()
    def _describe(
        self, batch: Batch, metric: SetMetric, side: Literal["clean", "treated"]
    ) -> Arrays:
        chips, there = self._faces(batch, side)
        if not there.any():
            return {"features": np.full((len(there), 1), np.nan, np.float32)}
        faces = to_float(torch.from_numpy(chips[there])).to(self.device)
        features = in_pieces(metric.features, faces).cpu().numpy()
        rows = np.full((len(there), features.shape[1]), np.nan, np.float32)
        rows[there] = features
        return {"features": rows}

    def _faces(self, batch: Batch, side: Literal["clean", "treated"]) -> tuple[Any, Any]:
        """Chips (n, 3, S, S) of one side, and which of them there are, (n,)."""
        if side == "clean":
            aligned = self.chips(batch)
            return aligned["chips"], aligned["found"]
        treated = self.treated_chips(batch)
        return treated["chips"], treated["treated"]

    def _region(self, region: str) -> Any:
        """The pixels of the whole chip, or of the inner face."""
        if region == "chip":
            return ...
        left, top, right, bottom = inner_face_box(self.chip_size)
        return (..., slice(top, bottom), slice(left, right))

    def _each(
        self,
        stage: str,
        compute: Callable[[Batch], Arrays],
        *,
        keep: Sequence[str],
        rows: BoolArray | None = None,
    ) -> Arrays:
        """Run a stage over all batches that hold a row, and join the named outputs."""
        outputs: list[Arrays | None] = []
        self.timings.setdefault(stage, Timing())
        for batch in self.progress.track(self.batches, stage):
            if rows is not None and not rows[batch.start :][: len(batch.samples)].any():
                outputs.append(None)
                continue
            misses, start = self.cache.misses, time.perf_counter()
            arrays = compute(batch)
            timing = self.timings[stage]
            timing.seconds += time.perf_counter() - start
            timing.images += len(batch.samples)
            timing.cached += len(batch.samples) * (self.cache.misses == misses)
            self._note(stage, batch, arrays)
            outputs.append({name: arrays[name] for name in keep})
        self._tell(stage)
        there = [output for output in outputs if output is not None]
        sizes = [len(batch.samples) for batch in self.batches]
        return {
            name: _join([
                _blank(there[0][name], size) if output is None else output[name]
                for output, size in zip(outputs, sizes, strict=True)
            ])
            for name in keep
        }  # fmt: skip

    def _note(self, stage: str, batch: Batch, arrays: Arrays) -> None:
        """Keep what went wrong; stop there when the user wants it so."""
        texts = unpack_texts(arrays["problems"]) if "problems" in arrays else []
        for sample, text in zip(batch.samples, texts, strict=False):
            if text:
                self.problems.setdefault(stage, {})[sample.id] = text
                if self.strict:
                    raise DeidbenchError(f"{stage}: {sample.id}: {text}. Mend it, or no --strict.")

    def _tell(self, stage: str) -> None:
        found = self.problems.get(stage, {})
        if found:
            self.progress.say(
                f"{stage}: {len(found)} of {len(self.samples)} images failed. "
                f"{listed([f'{name}: {why}' for name, why in found.items()])}"
            )

    def _first(self) -> str:
        """One of the reasons why faces were not treated."""
        return next((f"{why}." for why in self.problems.get("treat", {}).values()), "")

    @cached_property
    def _methods(self) -> FittedMethods:
        return FittedMethods(self.method, self._faces_of)

    def _faces_of(self, part: str) -> tuple[torch.Tensor, list[str]]:
        """All faces of a part, and the person of each."""
        chips, subjects = [], []
        for batch in self.batches:
            aligned = self.chips(batch)
            for row, sample in enumerate(batch.samples):
                own = self.parts[batch.start + row] if self.parts else ""
                if own == part and aligned["found"][row]:
                    chips.append(torch.from_numpy(aligned["chips"][row]))
                    subjects.append(sample.subject)
        return to_float(torch.stack(chips)).to(self.device), subjects

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self.chip_size, aligned=self.aligned_input, device=self.device)

    @cached_property
    def _environment(self) -> str:
        """The code and the libraries that the stages consist of."""
        own = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SOURCES]
        return digest(own, {name: metadata.version(name) for name in LIBRARIES}, self._device_type)

    @property
    def _device_type(self) -> str:
        return torch.device(self.device).type

    @cached_property
    def _method_key(self) -> str:
        method = self.method
        about = [getattr(method, name, None) for name in ("weights_sha256", "fingerprint")]
        parameters = dict(getattr(method, "parameters", {}))
        published: tuple[Sequence[str], ...] = ()
        if hasattr(method, "fit"):  # then each face depends on all of its part
            published = (list(self.parts), [batch.key for batch in self.batches])
        return digest(identity(method), method.strength, about, parameters, published, self.seed)

    def _align_key(self, batch: Batch) -> str:
        settings = (self.chip_size, self.aligned_input, self._environment)
        return digest("align", settings, batch.key)

    def _treat_key(self, batch: Batch) -> str:
        if not hasattr(self.method, "treat"):
            return digest("treat", self._method_key, self._align_key(batch))
        files = [self._digest_of_treated(sample) for sample in batch.samples]
        return digest("files", files, self._align_key(batch))

    def _digest_of_treated(self, sample: Sample) -> str | None:
        """sha256 of the treated file, taken while it is there."""
        if sample.id not in self._treated_digests:
            there = self._files.get(sample.id)
            self._treated_digests[sample.id] = _digest_of(there) if there else None
        return self._treated_digests[sample.id]

    def _detect_key(self, batch: Batch) -> str:
        return digest("detect", self._treat_key(batch))

    def _batch_seed(self, batch: Batch) -> int:
        """Differs between batches, so that no two images share their noise by position."""
        return int(digest(self.seed, batch.key)[:7], 16)


def images_per_second(
    method: Method, faces: torch.Tensor, *, seconds: float = 1.0, repeats: int = 5
) -> float:
    """Median speed of a method on a batch (n, 3, S, S), after a warm-up, device synchronised.

    A slow method is timed once, and no longer than ten times ``seconds`` where that is possible.
    """
    method.deidentify(faces, seed=0)
    speeds: list[float] = []
    start = time.perf_counter()
    while not speeds or _go_on(len(speeds), time.perf_counter() - start, seconds, repeats):
        _synchronise(faces)
        began = time.perf_counter()
        method.deidentify(faces, seed=0)
        _synchronise(faces)
        speeds.append(len(faces) / (time.perf_counter() - began))
    return float(np.median(speeds))


def _go_on(done: int, spent: float, seconds: float, repeats: int) -> bool:
    if done < repeats:
        return spent < 10 * max(seconds, 0.1)
    return spent < seconds and done < 200


def _synchronise(faces: torch.Tensor) -> None:
    if faces.is_cuda:
        torch.cuda.synchronize(faces.device)


def listed(lines: Sequence[str]) -> str:
    """The first lines, and how many more there are."""
    more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return "; ".join(lines[:NAMED]) + more


def _digest_of(path: Path) -> str:
    try:
        return file_digest(path)
    except DeidbenchError:
        return UNREADABLE


def _read(paths: Sequence[Path]) -> tuple[list[Image | None], list[str]]:
    """Each picture, and why it cannot be read ('' where it can)."""
    images: list[Image | None] = []
    problems = []
    for path in paths:
        try:
            images.append(read_image(path))
            problems.append("")
        except ImageError as error:
            images.append(None)
            problems.append(error.reason)
    return images, problems


def _treated(chips: Any, treated: Any, problems: Sequence[str]) -> Arrays:
    return {"chips": chips, "treated": treated, "problems": pack_texts(problems)}


def _as_large(image: Image, size: tuple[int, int]) -> Image:
    """A treated picture in the size (H, W) of its original, where it was only scaled."""
    from PIL import Image as Pillow

    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    if abs(height * size[1] - width * size[0]) > max(size):  # more than rounding
        raise DeidbenchError(
            f"the treated picture has {width} x {height} pixels, the original {size[1]} x {size[0]}"
        )
    enlarged = Pillow.fromarray(image).resize(size[::-1], Pillow.Resampling.BICUBIC)
    return np.asarray(enlarged)


def _regions(metric: Any) -> tuple[str, ...]:
    return tuple(getattr(metric, "regions", ("chip", "face")))


def identity(plugin: Any) -> str:
    """Name, version and source of a plugin: a changed file never meets its old results.

    Its source is the folder of its module; who keeps code elsewhere raises ``version``.
    """
    module = sys.modules[type(plugin).__module__]
    folder = Path(str(module.__file__)).parent
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py"))))
    name = getattr(plugin, "name", None) or plugin.id
    version = getattr(plugin, "version", None)
    return digest(type(plugin).__qualname__, name, version, code.hexdigest())


def _bytes_digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _blank(like: Any, size: int) -> Any:
    """Rows of a batch that nobody asked for: NaN, or False."""
    empty = np.nan if np.issubdtype(like.dtype, np.floating) else 0
    return np.full((size, *like.shape[1:]), empty, like.dtype)


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
