"""Trains FaDeNet against frozen recognizers. Every random choice is a function of seed and step."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from deidbench import plugins
from deidbench.types import Recognizer, subject_digest

from .checkpoint import (
    CheckpointError,
    Provenance,
    copy_tensors,
    deidbench_version,
    load_state,
    save_state,
    save_weights,
)
from .config import TrainConfig, read_config
from .faces import Faces, TrainingFacesError, batches, load_faces, split_people
from .losses import charbonnier, diversify, identity_hinge, perceptual_cost, roughness
from .model import FaDeNet

STATE, LOG, WEIGHTS = "state.pt", "log.jsonl", "fadenet.safetensors"
WARM_UP = 20  # steps over which the learning rate grows
EMBED_BATCH = 8  # small batches stay in the processor's cache


class Critic:
    """A frozen recognizer and what it saw on the clean training faces, computed when first asked.

    The embeddings are part of the saved state: those of another batch differ in the last bit.
    """

    def __init__(self, network: Recognizer, faces: Faces, device: str) -> None:
        network.to(device)
        if isinstance(network, torch.nn.Module):
            network.to(memory_format=torch.channels_last)
        self.network, self.faces, self.device = network, faces, device
        self.known = torch.zeros(len(faces), dtype=torch.bool)
        self.table = torch.zeros(len(faces), 0)

    @torch.no_grad()
    def clean(self, rows: Tensor) -> Tensor:
        """Embeddings (n, D) of the clean faces in these rows (n,)."""
        new = torch.unique(rows[~self.known[rows]])
        if len(new):
            chips = self.faces.chips[new].float().to(self.device) / 255
            found = self.network.embed(chips, self.faces.landmarks[new].to(self.device)).cpu()
            if not self.known.any():
                self.table = torch.zeros(len(self.faces), found.shape[1])
            self.table[new] = found
            self.known[new] = True
        return self.table[rows].to(self.device)

    def state(self) -> dict[str, Tensor]:
        """What ``load`` takes."""
        return {"known": self.known, "table": self.table}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over the embeddings of an earlier run on the same faces."""
        self.known, self.table = state["known"], state["table"]


def train(  # noqa: PLR0913
    config_path: Path,
    *,
    out: Path,
    data: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    seed: int | None = None,
    steps: int | None = None,
    quiet: bool = False,
) -> Path:
    """Train as a TOML file says and export the weights.

    Writes to ``out``: log.jsonl, state.pt (for ``resume``), fadenet.safetensors. Ctrl-C and
    SIGTERM save the state after the step at hand and export what there is.

    Args:
        data, seed, steps: win over the file.
    Returns:
        The exported weights.
    Raises:
        DeidbenchError: the configuration, the data, a critic or the state cannot be used.
    """
    data_text = None if data is None else str(data)
    config = read_config(config_path, data=data_text, seed=seed, steps=steps)
    if config.data is None:
        raise TrainingFacesError("no training faces were named; give a folder with --data.")
    if not resume and (out / STATE).exists():
        raise CheckpointError(f"{out} holds a run already. Use --resume or another folder.")
    say = _silent if quiet else _print
    # Critics first: weights that cannot be had are better known before all faces are aligned.
    critics, perceptual = _load_critics(config), Perceptual().to(device)
    faces = load_faces(Path(config.data), out / "chips.npz", _Aligning(say))
    trainer = Trainer(
        config, faces, out=out, device=device, say=say, critics=critics, perceptual=perceptual
    )
    if resume:
        trainer.load()
    return trainer.run()


class Trainer:
    """A run in memory: network, optimizer, average weights, step.

    Args:
        config: what to do. faces: on whom. out: where to write. device: of the networks.
        say: receives one line of progress at a time.
        critics, perceptual: ready ones instead of those that the configuration names.
    """

    def __init__(
        self,
        config: TrainConfig,
        faces: Faces,
        *,
        out: Path,
        device: str = "cpu",
        say: Callable[[str], None] = print,
        critics: Mapping[str, Recognizer] | None = None,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.config, self.out, self.device, self.say = config, out, device, say
        self.all_faces = faces
        self.faces, self.validation = split_people(faces, config.validation_faces, config.seed)
        self.companions = self.faces.companions()
        networks = critics or _load_critics(config)
        self.critics = {name: Critic(n, self.faces, device) for name, n in networks.items()}
        self.perceptual = perceptual or Perceptual().to(device)
        torch.manual_seed(config.seed)
        self.network = FaDeNet(config.model).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.average = copy_tensors(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.step = 0
        self.seconds = 0.0

    def run(self) -> Path:
        """Train to the last step, the time limit or a signal; then export."""
        self.out.mkdir(parents=True, exist_ok=True)
        order = batches(len(self.faces), self.config.batch, self.config.seed, self.step)
        started, before = time.monotonic(), self.seconds
        log_file = (self.out / LOG).open("a", encoding="utf-8")
        with _asked_to_stop() as stop, _no_denormals(), log_file as log:
            while self.step < self.config.steps and not stop():
                terms = self.advance(next(order))
                self.seconds = before + time.monotonic() - started
                if self.step % self.config.log_every == 0:
                    self._report(terms, log)
                if self.step % self.config.checkpoint_every == 0:
                    self._record({"validation": self.validate()}, log)
                    self.save()
                if self._out_of_time():
                    self.say(f"time limit reached at step {self.step}")
                    break
        self.save()
        return self.export()

    def advance(self, rows: list[int]) -> dict[str, float]:
        """One step on these faces; returns the terms of the loss."""
        random = Generator().manual_seed(self.config.seed * 1_000_003 + 7919 * (self.step + 1))
        self._set_learning_rate()
        chips, landmarks, index = self._batch(rows, random)
        terms = self._terms(chips, landmarks, index, random)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        values = {name: float(term.detach()) for name, term in terms.items()}
        return {"loss": float(loss.detach()), **values, "gradient": float(norm), **self._seen}

    def _batch(self, rows: list[int], random: Generator) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.tensor(rows)
        chips = self.faces.chips[index].float() / 255
        landmarks = self.faces.landmarks[index].clone()
        flipped = torch.rand(len(rows), generator=random) < 0.5
        chips[flipped] = chips[flipped].flip(-1)
        landmarks[flipped] = mirror(landmarks[flipped], chips.shape[-1])
        chips = chips.contiguous(memory_format=torch.channels_last)
        return chips.to(self.device), landmarks.to(self.device), index

    def _terms(
        self, chips: Tensor, landmarks: Tensor, index: Tensor, random: Generator
    ) -> dict[str, Tensor]:
        loss = self.config.loss
        change = self.network.change(chips)
        treated = self.network.apply_change(chips, change)
        seen = max(1, round(self.config.perceptual_share * len(chips)))
        fine = self.perceptual(chips[:seen], treated[:seen])
        # From afar LPIPS sees the wide shadows that it forgives from near.
        far = self.perceptual(F.avg_pool2d(chips[:seen], 2), F.avg_pool2d(treated[:seen], 2))
        self._seen = {"lpips": float(fine.detach().mean()), "far": float(far.detach().mean())}
        terms = {
            "pixel": loss.pixel * charbonnier(treated, chips),
            "perceptual": perceptual_cost((fine + far) / 2, loss),
            "smooth": roughness(change, loss),
        }
        weight = loss.identity * self._ramp()
        if weight > 0:
            terms["identity"] = weight * self._identity(treated, landmarks, index, random)
        return terms

    def _identity(
        self, treated: Tensor, landmarks: Tensor, index: Tensor, random: Generator
    ) -> Tensor:
        """Mean hinge; each face goes to ``critics_per_face`` of the critics, by its own camera."""
        place = torch.randperm(len(treated), generator=random)
        hinges, count = [], len(self.critics)
        for number, (name, critic) in enumerate(self.critics.items()):
            rows = place[(torch.arange(len(place)) + number) % count < self.config.critics_per_face]
            if not len(rows):
                continue
            faces, points = diversify(treated[rows], landmarks[rows], random)
            seen = index[rows.cpu()]
            both = [critic.clean(seen), critic.clean(self.companions[seen])]
            embeddings = critic.network.embed(faces, points)
            references = torch.stack(both, 1)  # (n, 2, D)
            hinge = identity_hinge(embeddings, references, self.config.loss.margin)
            hinges.append(hinge * len(rows) / len(treated))
            with torch.no_grad():
                cosine = F.cosine_similarity(embeddings, references[:, 0]).mean()
            self._seen[f"cosine {name}"] = float(cosine)
        return torch.stack(hinges).sum() / self.config.critics_per_face

    def _ramp(self) -> float:
        past = self.step + 1 - self.config.reproduce_steps
        return min(1.0, max(0.0, past / max(1, self.config.ramp_steps)))

    def _set_learning_rate(self) -> None:
        warm = min(1.0, (self.step + 1) / WARM_UP)
        done = self.step / self.config.steps
        rate = self.config.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average is over the few steps there were.
        decay = min(self.config.ema, self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """LPIPS and each critic's mean cosine of treated and clean faces, people set aside."""
        network = self.averaged()
        sums: dict[str, float] = {}
        for start in range(0, len(self.validation), EMBED_BATCH):
            rows = range(start, min(start + EMBED_BATCH, len(self.validation)))
            part = self.validation.take(rows)
            chips = part.chips.float().to(self.device) / 255
            landmarks = part.landmarks.to(self.device)
            treated = network(chips)
            values = {"lpips": self.perceptual(chips, treated)}
            for name, critic in self.critics.items():
                clean, after = (critic.network.embed(x, landmarks) for x in (chips, treated))
                values[f"cosine {name}"] = F.cosine_similarity(clean, after)
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + float(value.sum())
        return {key: value / len(self.validation) for key, value in sums.items()}

    def averaged(self) -> FaDeNet:
        """A copy of the network with the average weights."""
        network = FaDeNet(self.config.model).to(self.device).eval().requires_grad_(False)
        network.load_state_dict(self.average)
        return network

    def save(self) -> None:
        """Write the state that ``load`` continues from."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "format": 1,
            "config": json.dumps(self.config.to_dict()),
            "faces": self.faces.digest(),
            "critics": {name: critic.state() for name, critic in self.critics.items()},
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(self.out / STATE, state)

    def load(self) -> None:
        """Continue from the state in ``out``.

        Raises:
            CheckpointError: it is missing, damaged, or of another configuration.
        """
        state = load_state(self.out / STATE)
        if state.get("format") != 1:
            raise CheckpointError(
                f"{STATE} has format {state.get('format')!r}, not 1; start again."
            )
        _require_same(json.loads(state["config"]), self.config)
        if state["faces"] != self.faces.digest():
            raise CheckpointError("the saved run had other training faces; use another folder.")
        for name, critic in self.critics.items():
            critic.load(state["critics"][name])
        self.network.load_state_dict(state["network"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.say(f"continuing at step {self.step}")

    def export(self) -> Path:
        """Write the average weights with their provenance."""
        config = self.config
        training = config.to_dict() | {"data": None}  # a path says nothing elsewhere
        people = sorted(set(self.all_faces.subjects))
        provenance = Provenance(
            training=training,
            critics={n: c.network.weights_sha256 for n, c in self.critics.items()},
            data=f"{config.data_name}, {len(self.all_faces):,} images of {len(people):,} people",
            subjects=tuple(subject_digest(person) for person in people),
            steps=self.step,
            seed=config.seed,
            deidbench=deidbench_version(),
        )
        path = self.out / WEIGHTS
        save_weights(path, self.averaged(), provenance)
        self.say(f"weights written to {path}")
        return path

    def _report(self, terms: Mapping[str, float], log: TextIO) -> None:
        self._record(terms, log)
        left = self.seconds / self.step * (self.config.steps - self.step)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
        self.say(f"step {self.step}/{self.config.steps}  {_clock(left)} left  {shown}")

    def _record(self, values: Mapping[str, Any], log: TextIO) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 1), **values}
        log.write(json.dumps(row) + "\n")
        log.flush()

    def _out_of_time(self) -> bool:
        limit = self.config.max_minutes
        return limit is not None and self.seconds > 60 * limit


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Tiny gradients slow a CPU tenfold. The setting is the process's, so it is put back."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Perceptual:
    """LPIPS with gradients: the network within the metric, whose own call passes none."""

    name, version, higher_is_better, unit = "lpips", 1, False, "distance"

    def __init__(self) -> None:
        self._network: torch.nn.Module = plugins.load("metrics", "lpips")()._model

    def to(self, device: Any) -> Perceptual:
        """Move the network; returns self."""
        self._network.to(device)
        return self

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,)."""
        distances: Tensor = self._network(2 * original - 1, 2 * treated - 1)
        return distances.flatten()


def mirror(landmarks: Tensor, size: int) -> Tensor:
    """Landmarks (N, 5, 2) of the image flipped left to right: the left eye is now the right."""
    swapped = landmarks[:, [1, 0, 2, 4, 3]]
    return torch.stack([size - 1 - swapped[..., 0], swapped[..., 1]], -1)


def _load_critics(config: TrainConfig) -> dict[str, Recognizer]:
    return {name: plugins.load("recognizers", name)() for name in config.critics}


def _require_same(saved: Mapping[str, Any], config: TrainConfig) -> None:
    """The state must be of this run; how long to train and what to print may differ."""
    free = {"steps", "max_minutes", "log_every", "checkpoint_every", "data"}
    mine = json.loads(json.dumps(config.to_dict()))
    for name in sorted(set(mine) - free):
        if saved.get(name) != mine[name]:
            raise CheckpointError(
                f"the saved run has {name} = {saved.get(name)!r}, this one {mine[name]!r}. "
                "Use the same configuration, or another output folder."
            )


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """True after Ctrl-C or SIGTERM; the step at hand is finished first."""
    asked = [False]

    def note(number: int, frame: FrameType | None) -> None:
        asked[0] = True

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals belong to the main thread
        old = {}
    try:
        yield lambda: asked[0]
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Aligning:
    """Progress of the alignment, a line every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.started, self.spoken = say, time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        passed = time.monotonic() - self.started
        if passed - self.spoken > 5 or done == total:
            self.spoken = passed
            self.say(f"aligned {done}/{total}  {_clock(passed / done * (total - done))} left")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    """Say nothing."""
