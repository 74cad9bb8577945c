"""Trains FaDeNet against frozen recognizers. Every random choice is a function of seed and step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

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
    metrics_in,
    save_state,
    save_weights,
)
from .config import TrainConfig, TrainConfigError, read_config
from .critics import Critic, Critics, Scene
from .faces import Faces, TrainingFacesError, batches, load_faces, split_people
from .log import Log, opened_log, silent_log
from .losses import charbonnier, perceptual_cost, roughness, structural_cost
from .model import FaDeNet, apply_change
from .origin import Origin
from .restorer import Restorer
from .running import Aligning, asked_to_stop, clock, listed, no_denormals, say_aloud, say_nothing
from .samples import SampleGrid
from .team import Team, team_of
from .validation import Validation

STATE, WEIGHTS = "state.pt", "fadenet.safetensors"
STATE_FORMAT = 2
WARM_UP = 20  # steps over which the learning rate grows


def train(  # noqa: PLR0913
    config_path: Path,
    *,
    out: Path,
    data: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    start: str | None = None,
    seed: int | None = None,
    steps: int | None = None,
    quiet: bool = False,
) -> Path:
    """Train as a TOML file says and export the weights.

    Writes to ``out``: log.jsonl, state.pt (for ``resume``), fadenet.safetensors. Ctrl-C and
    SIGTERM save the state after the step at hand and export what there is.

    Args:
        data: wins over the file, as do ``start``, ``seed`` and ``steps``.
    Returns:
        The exported weights.
    Raises:
        DeidbenchError: the configuration, the data, a critic or the state cannot be used.
    """
    data_text = None if data is None else str(data)
    config = read_config(config_path, data=data_text, start=start, seed=seed, steps=steps)
    if config.data is None:
        raise TrainingFacesError("no training faces were named; give a folder with --data.")
    with no_denormals(), team_of(device) as (team, own_device):
        if not resume and (out / STATE).exists():
            raise CheckpointError(f"{out} holds a run already. Use --resume or another folder.")
        say = say_nothing if quiet or not team.leads else say_aloud
        # Weights that cannot be had are better known before faces are aligned.
        eyes = load_eyes(config, own_device)
        if config.start is not None:
            Origin.of(config.start).give(FaDeNet(config.model), config)
        faces = _load_together(Path(config.data), out / "chips.npz", Aligning(say), team)
        trainer = Trainer(config, faces, eyes, out=out, device=own_device, say=say, team=team)
        if resume:
            trainer.load()
        return trainer.run()


@dataclass(frozen=True)
class Eyes:
    """Who looks at the faces of a run."""

    critics: Mapping[str, Recognizer]
    """Whom the network shall escape."""
    perceptual: Callable[[Tensor, Tensor], Tensor]
    """(N, 3, H, W) twice -> (N,): LPIPS with gradients."""
    held_out: Mapping[str, Recognizer] = field(default_factory=dict)
    """Whom only validation asks."""


class Trainer:
    """A run in memory: network, optimizer, average weights, step.

    Args:
        config: what to do.
        faces: on whom.
        eyes: who looks at them.
        out: where to write.
        device: of the networks.
        say: receives one line of progress at a time.
        team: who else trains.
    """

    def __init__(
        self,
        config: TrainConfig,
        faces: Faces,
        eyes: Eyes,
        *,
        out: Path,
        device: str = "cpu",
        say: Callable[[str], None] = print,
        team: Team | None = None,
    ) -> None:
        self.config, self.out, self.device, self.say = config, out, device, say
        self.team = team or Team()
        self.all_faces = faces
        self.faces, aside = split_people(faces, config.validation_faces, config.seed)
        if config.loss.steered > 0 and len(self.faces) < config.model.key:
            raise TrainingFacesError(
                f"{len(self.faces)} training faces are too few for a key of {config.model.key} "
                "numbers, each of which names a face. Add faces or lower key."
            )
        pairs = min(config.batch // 2, len(self.faces))
        if pairs % self.team.size or pairs // self.team.size < config.accumulate:
            raise TrainConfigError(
                f"a batch of {pairs} people cannot be shared by {self.team.size} processes in "
                f"{config.accumulate} parts each. Choose another batch, or fewer."
            )
        self.companions = self.faces.companions()
        self.critics = Critics(
            {
                name: Critic(network, self.faces, device, config.loss, memory=config.memory)
                for name, network in eyes.critics.items()
            },
            config.critics_per_face,
            weighed=config.weigh_critics,
        )
        self.restorer = None
        if config.loss.restored > 0:
            self.restorer = Restorer(config.model, config.memory, device, config.seed)
        self.perceptual = eyes.perceptual
        watchers = {**eyes.critics, **eyes.held_out}
        self.validate = Validation(aside, watchers, eyes.perceptual, device)
        torch.manual_seed(config.seed)
        self.network = FaDeNet(config.model)
        self.origin = None if config.start is None else Origin.of(config.start)
        if self.origin:
            self.origin.give(self.network, config)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.change = torch.compile(self.network.change) if config.compile else self.network.change
        self.average = copy_tensors(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.step = 0
        self.seconds = 0.0

    def run(self) -> Path:
        """Train to the last step, the time limit or a signal; then export."""
        self.out.mkdir(parents=True, exist_ok=True)
        pairs = self.config.batch // 2
        order = batches(len(self.faces), pairs, self.config.seed, self.step)
        started, before = time.monotonic(), self.seconds
        with asked_to_stop() as stop, self._log() as log:
            while self.step < self.config.steps:
                terms = self.advance(self.team.part(next(order)))
                self.seconds = before + time.monotonic() - started
                if self.step % self.config.log_every == 0:
                    self._report(terms, log)
                if self.step % self.config.checkpoint_every == 0:
                    self._look(log)
                    self.save()
                if self.team.anyone(stop() or self._out_of_time(), self.device):
                    self.say(f"stopped at step {self.step}")
                    break
        self.save()
        return self.export()

    def advance(self, rows: list[int]) -> dict[str, float]:
        """One step on these faces and their companions; returns the terms of the loss."""
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        parts = [rows[part :: self.config.accumulate] for part in range(self.config.accumulate)]
        for number, part in enumerate(parts):
            share = len(part) / len(rows)
            for name, value in self._learn(part, number, share).items():
                sums[name] = sums.get(name, 0.0) + share * value
        self.team.average_gradients(self.network)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {**sums, "gradient": float(norm)}

    def _learn(self, rows: list[int], number: int, share: float) -> dict[str, float]:
        """Add the gradients of these faces, times their share of the step."""
        place = self.team.rank + self.team.size * number  # two processes draw as one twice
        seed = self.config.seed * 1_000_003 + 7919 * (self.step + 1) + 104_729 * place
        random = Generator().manual_seed(seed)
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            terms, seen = self._terms(rows, random)
        loss = torch.stack(list(terms.values())).sum()
        torch.autograd.backward(loss * share)
        values = {name: float(term.detach()) for name, term in terms.items()}
        return {"loss": float(loss.detach()), **values, **seen}

    def _terms(
        self, rows: list[int], random: Generator
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The terms of the loss, and what is worth a line in the log."""
        config, loss = self.config, self.config.loss
        chips, landmarks, index = self._batch(rows, random)
        strength, key = self._steering(len(rows), random)
        change = self.change(chips, strength, key)
        with torch.autocast(chips.device.type, enabled=False):
            treated = apply_change(chips, change)
        # Which faces LPIPS looks at, of both halves alike.
        seen = torch.randperm(len(chips), generator=random)[: self._looked_at(len(chips))]
        seen = seen.to(chips.device)
        clean, after = chips[seen], treated[seen]
        fine = self.perceptual(clean, after)
        # From afar LPIPS sees the wide shadows that it forgives from near.
        far = self.perceptual(F.avg_pool2d(clean, 2), F.avg_pool2d(after, 2))
        terms = {
            "pixel": loss.pixel * charbonnier(treated, chips),
            "perceptual": perceptual_cost((fine + far) / 2, strength[seen], loss),
            "smooth": roughness(change, loss),
        }
        if loss.over_structure > 0:
            terms["structure"] = structural_cost(after, clean, strength[seen], loss)
        told = {"lpips": float(fine.detach().mean()), "far": float(far.detach().mean())}
        if self.step >= config.reproduce_steps:
            shown, known = self._through_restorer(treated, chips, random)
            found = self.critics.terms(Scene(shown, chips, landmarks, index, key), random)
            terms |= {name: self._ramp() * term for name, term in found.items()}
            told |= known
        return terms, told

    def _through_restorer(
        self, treated: Tensor, clean: Tensor, random: Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The treated faces, those of some people restored; and how well that was done."""
        if self.restorer is None:
            return treated, {}
        with torch.autocast(treated.device.type, enabled=False):
            self.restorer.remember(treated, clean)
            error = self.restorer.learn(random)
            pairs = len(treated) // 2
            some = torch.rand(pairs, generator=random) < self.config.loss.restored
            some = some.repeat(2)[:, None, None, None].to(treated.device)
            return torch.where(some, self.restorer(treated), treated), {"restorer": error}

    def _looked_at(self, count: int) -> int:
        return max(1, round(self.config.perceptual_share * count))

    def _steering(self, pairs: int, random: Generator) -> tuple[Tensor, Tensor | None]:
        """A strength for each pair, the full one for a share of them, and a key for each face."""
        strength = torch.rand(pairs, generator=random).clamp(min=0.05)
        strength[torch.rand(pairs, generator=random) < self.config.full_share] = 1.0
        strength = strength.repeat(2).to(self.device)
        if not self.config.model.key:
            return strength, None
        key = torch.randn(2 * pairs, self.config.model.key, generator=random)
        return strength, key.to(self.device)

    def _batch(self, rows: list[int], random: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """These faces, and after them another photograph of each: the same, flipped, at worst."""
        first = torch.tensor(rows)
        second = self.companions[first]
        index = torch.cat([first, second])
        flipped = torch.rand(len(index), generator=random) < 0.5
        alone = second == first
        flipped[len(rows) :] = torch.where(alone, ~flipped[: len(rows)], flipped[len(rows) :])
        chips = self.faces.chips[index].float() / 255
        landmarks = self.faces.landmarks[index].clone()
        chips[flipped] = chips[flipped].flip(-1)
        landmarks[flipped] = mirror(landmarks[flipped], chips.shape[-1])
        chips = chips.contiguous(memory_format=torch.channels_last)
        return chips.to(self.device), landmarks.to(self.device), index

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

    def averaged(self) -> FaDeNet:
        """A copy of the network with the average weights."""
        network = FaDeNet(self.config.model).to(self.device).eval().requires_grad_(False)
        network.load_state_dict(self.average)
        return network

    def _look(self, log: Log) -> None:
        """Validate, and draw synthetic faces; the leader alone."""
        if self.team.leads:
            network = self.averaged()
            found = self.validate(network)
            log.write(self.step, self.seconds, {"validation": found})
            self.say(f"validation at step {self.step}  {listed(found)}")
            if self.config.samples:
                self.grid.write(network, self.out / "samples" / f"{self.step:06d}.png")
        self.team.wait()

    @cached_property
    def grid(self) -> SampleGrid:
        """The synthetic faces that are drawn."""
        return SampleGrid(self.device)

    def save(self) -> None:
        """Write the state that ``load`` continues from; every process its own."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "format": STATE_FORMAT,
            "config": json.dumps(self.config.to_dict()),
            "faces": self.faces.digest(),
            "team": self.team.size,
            "critics": {name: one.state() for name, one in self.critics.critics.items()},
            "restorer": self.restorer and self.restorer.state(),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(self._state_path(), state)

    def _state_path(self) -> Path:
        return self.out / (STATE if self.team.leads else f"state-{self.team.rank}.pt")

    def load(self) -> None:
        """Continue from the state in ``out``.

        Raises:
            CheckpointError: it is missing, damaged, or of another configuration.
        """
        state = load_state(self._state_path())
        if state.get("format") != STATE_FORMAT:
            raise CheckpointError(
                f"{STATE} has format {state.get('format')!r}, not {STATE_FORMAT}; start again."
            )
        _require_same(json.loads(state.get("config", "{}")), self.config)
        if state.get("faces") != self.faces.digest():
            raise CheckpointError("the saved run had other training faces; use another folder.")
        if state.get("team") != self.team.size:
            raise CheckpointError(
                f"the saved run was trained by {state.get('team')} processes, this one by "
                f"{self.team.size}; start as many."
            )
        try:
            self._take(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{STATE} is damaged. Delete it and start again.") from error
        if not self.team.agrees(self.step, self.device):
            raise CheckpointError(
                "the processes were stopped at different steps. Delete the states; start again."
            )
        self.say(f"continuing at step {self.step}")

    def _take(self, state: Mapping[str, Any]) -> None:
        for name, critic in self.critics.critics.items():
            critic.load(state["critics"][name])
        if self.restorer:
            self.restorer.load(state["restorer"])
        self.network.load_state_dict(state["network"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def export(self) -> Path:
        """Write the average weights with their provenance."""
        path = self.out / WEIGHTS
        if self.team.leads:
            save_weights(path, self.averaged(), self._provenance())
            self.say(f"weights written to {path}")
        self.team.wait()
        return path

    def _provenance(self) -> Provenance:
        """Where these weights come from; what those before them saw is said of them too."""
        config, before = self.config, self.origin and self.origin.provenance
        people = {subject_digest(person) for person in self.all_faces.subjects}
        critics = {
            name: critic.network.weights_sha256 for name, critic in self.critics.critics.items()
        }
        # A path says nothing elsewhere.
        places = {"data": None, "start": self.origin and self.origin.sha256}
        return Provenance(
            training=config.to_dict() | places,
            critics={**before.critics, **critics} if before else critics,
            data=f"{config.data_name}, {len(self.all_faces):,} images of {len(people):,} people",
            subjects=tuple(sorted(people | set(before.subjects if before else ()))),
            steps=self.step,
            seed=config.seed,
            deidbench=deidbench_version(),
            note=self.origin.told() if self.origin else "",
            metrics=tuple(
                sorted({*metrics_in(config.to_dict()), *(before.metrics if before else ())})
            ),
        )

    def _log(self) -> AbstractContextManager[Log]:
        return opened_log(self.out, self.step) if self.team.leads else silent_log()

    def _report(self, terms: Mapping[str, float], log: Log) -> None:
        log.write(self.step, self.seconds, terms)
        left = self.seconds / self.step * (self.config.steps - self.step)
        self.say(f"step {self.step}/{self.config.steps}  {clock(left)} left  {listed(terms)}")

    def _out_of_time(self) -> bool:
        limit = self.config.max_minutes
        return limit is not None and self.seconds > 60 * limit


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


def load_eyes(config: TrainConfig, device: str) -> Eyes:
    """The recognizers and LPIPS that a configuration names.

    Raises:
        TrainConfigError: nothing can be learned from a critic.
    """

    def load(names: tuple[str, ...]) -> dict[str, Recognizer]:
        return {name: plugins.load("recognizers", name)() for name in names}

    critics = load(config.critics)
    for name, critic in critics.items():
        if not getattr(critic, "differentiable", True):
            raise TrainConfigError(
                f"critics cannot hold {name!r}: no gradient of it reaches the face. Hold it out."
            )
    return Eyes(critics, Perceptual().to(device), load(config.held_out))


def _load_together(
    source: Path, cache: Path, progress: Callable[[int, int], None], team: Team
) -> Faces:
    """The faces; the leader aligns them, the others read what he made."""
    if team.leads:
        faces = load_faces(source, cache, progress)
    team.wait()
    return faces if team.leads else load_faces(source, cache, progress)


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
