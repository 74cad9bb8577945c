"""The recognizers that FaDeNet is trained to escape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from deidbench.types import Recognizer

from .adversary import Adversary
from .config import TrainConfigError
from .diversity import diversify
from .faces import Faces
from .losses import LossConfig, identity_hinge

STRANGERS = 256  # faces whose comparisons with one another set a critic's threshold
EMBED_BATCH = 32
MOMENTUM = 0.98  # of the share of the loss that a critic had lately
LEAST = 0.02  # share of a critic who is always fooled: he must still be looked at
DEPTHS = (0.5, 0.75)  # of a critic's convolutions: whose outputs are compared as features


@dataclass(frozen=True)
class Scene:
    """What the critics are shown: the first half of the faces, and in the same order the second,
    another treated photograph of the same people."""

    treated: Tensor
    """(2n, 3, H, W)."""
    clean: Tensor
    """(2n, 3, H, W), the same faces before treatment."""
    landmarks: Tensor
    """(2n, 5, 2), in their pixels."""
    index: Tensor
    """(2n,) rows in the training faces."""
    key: Tensor | None = None
    """(2n, key)."""

    def pairs(self, rows: Tensor) -> Scene:
        """These of the n pairs."""
        both = torch.cat([rows, rows + len(self.index) // 2])
        places = both.to(self.treated.device)
        key = None if self.key is None else self.key[places]
        return Scene(
            self.treated[places], self.clean[places], self.landmarks[places], self.index[both], key
        )


class Critic:
    """A frozen recognizer, what it saw on the clean training faces, and who attacks through it.

    The clean embeddings are computed when first asked, and are part of the saved state: those of
    another batch differ in the last bit.
    """

    def __init__(
        self, network: Recognizer, faces: Faces, device: str, loss: LossConfig, *, memory: int
    ) -> None:
        network.to(device)
        if isinstance(network, torch.nn.Module):
            network.to(memory_format=torch.channels_last)
        self.network, self.faces, self.device, self.loss = network, faces, device, loss
        self.known = torch.zeros(len(faces), dtype=torch.bool)
        self.table = torch.zeros(len(faces), 0)
        self.adversary = Adversary(memory)
        self.share = 1.0
        """How hard the critic lately was to fool, beside the others; weighs its terms."""
        self.features = Features(network) if loss.features > 0 else None
        self._threshold: float | None = None

    @torch.no_grad()
    def clean(self, rows: Tensor) -> Tensor:
        """Embeddings (n, D) of the clean faces in these rows (n,)."""
        missing = torch.unique(rows[~self.known[rows]])
        with torch.autocast(torch.device(self.device).type, enabled=False):
            for new in torch.split(missing, EMBED_BATCH) if len(missing) else ():
                self._look_at_clean(new)
        return self.table[rows].to(self.device)

    def _look_at_clean(self, rows: Tensor) -> None:
        chips = self.faces.chips[rows].float().to(self.device) / 255
        found = self.network.embed(chips, self.faces.landmarks[rows].to(self.device)).cpu()
        if not self.known.any():
            self.table = torch.zeros(len(self.faces), found.shape[1])
        self.table[rows] = found
        self.known[rows] = True

    def _strangers(self) -> Tensor:
        """Rows of faces of many people."""
        return torch.arange(0, len(self.faces), max(1, len(self.faces) // STRANGERS))

    def threshold(self) -> float:
        """The cosine at which the critic accepts a share ``loss.far`` of strangers."""
        if self._threshold is None:
            rows = self._strangers()
            found = F.normalize(self.clean(rows).cpu(), dim=1)
            names = [self.faces.subjects[row] for row in rows.tolist()]
            apart = torch.tensor([[a != b for b in names] for a in names])
            with torch.autocast("cpu", enabled=False):
                cosines = (found @ found.T)[apart]
            self._threshold = float(cosines.quantile(1 - self.loss.far))
        return self._threshold

    def terms(self, scene: Scene, random: Generator) -> dict[str, Tensor]:
        """What the pairs of the scene cost, seen by the cameras of ``diversify``; scalars."""
        camera = random.get_state()
        embeddings, features = self._look(*self._camera(scene.treated, scene.landmarks, random))
        clean = self.clean(scene.index)
        other = clean.roll(len(clean) // 2, 0)
        known = [clean, other] if self.loss.other_photo else [clean]
        references = torch.stack(known, 1)  # (2n, K, D)
        margin = self.threshold() + self.loss.margin
        terms = {"identity": self.loss.identity * identity_hinge(embeddings, references, margin)}
        if self.features:
            likeness = self._likeness(features, scene, camera)
            terms["features"] = self.loss.features * likeness
        if self.loss.steered > 0 and scene.key is not None:
            terms["steered"] = self.loss.steered * self._astray(embeddings, scene.key)
        if self.loss.collapsed > 0:
            terms["collapsed"] = self.loss.collapsed * self._unlike(embeddings, clean)
        if self.loss.linked > 0 or self.loss.adapted > 0:
            if self.adversary.ready():
                terms |= self._learned(embeddings, references, random)
            self.adversary.remember(_paired(embeddings), _paired(clean))
        return terms

    def _camera(self, faces: Tensor, points: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        return diversify(faces, points, random, views=self.loss.views, filters=self.loss.filters)

    def _look(self, faces: Tensor, points: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embeddings, and the features where they are asked for."""
        if self.features is None:
            return self.network.embed(faces, points).float(), []
        return self.features.look(self.network, faces, points)

    @torch.no_grad()
    def _clean_features(self, scene: Scene, camera: Tensor) -> list[Tensor]:
        """What the same camera shows of the clean faces."""
        same = Generator()
        same.set_state(camera)
        return self._look(*self._camera(scene.clean, scene.landmarks, same))[1]

    def _likeness(self, treated: Sequence[Tensor], scene: Scene, camera: Tensor) -> Tensor:
        """Mean cosine of the features of treated and clean faces, place by place."""
        both = zip(treated, self._clean_features(scene, camera), strict=True)
        likeness = [F.relu(F.cosine_similarity(mine, other, dim=1)).mean() for mine, other in both]
        return torch.stack(likeness).mean()

    def _astray(self, embeddings: Tensor, key: Tensor) -> Tensor:
        """How far the faces are from the likenesses that their keys name: 1 - cosine."""
        strangers = self.clean(self._strangers())
        middle = strangers.mean(0)
        named = key @ (strangers[: key.shape[1]] - middle)  # (2n, D)
        return (1 - F.cosine_similarity(embeddings - middle, named)).mean()

    def _unlike(self, embeddings: Tensor, clean: Tensor) -> Tensor:
        """How far the faces are from the prototypes that they are most like: 1 - cosine."""
        shared = self.clean(self._strangers()[: self.loss.prototypes])  # (K, D)
        likeness = F.cosine_similarity(clean[:, None], shared, dim=-1)  # (2n, K)
        return (1 - F.cosine_similarity(embeddings, shared[likeness.argmax(1)])).mean()

    def _learned(
        self, embeddings: Tensor, references: Tensor, random: Generator
    ) -> dict[str, Tensor]:
        """What an attacker who has learned from the last steps makes of the same embeddings."""
        penalty = float(10 ** (-3 + 3 * torch.rand(1, generator=random)))  # each step another map
        with torch.autocast(embeddings.device.type, enabled=False):
            maps = self.adversary.learn(penalty, self.device)
            views = (maps.whitened(embeddings), maps.centred_treated(embeddings))
            linked = torch.stack(
                [identity_hinge(seen, seen.roll(len(seen) // 2, 0)[:, None], 0.0) for seen in views]
            ).mean()
            student = self.adversary.teach(maps, random).requires_grad_(False)
            guesses = (maps.mapped(embeddings), student(maps.scaled(embeddings)))
            named = maps.centred(references)
            adapted = torch.stack([identity_hinge(each, named, 0.0) for each in guesses]).mean()
            student.requires_grad_(True)
        return {"linked": self.loss.linked * linked, "adapted": self.loss.adapted * adapted}

    def weigh(self, cost: float) -> None:
        """Take note of what was paid lately: whoever is harder to fool counts more."""
        self.share = max(LEAST, MOMENTUM * self.share + (1 - MOMENTUM) * cost)

    def state(self) -> dict[str, Any]:
        """What ``load`` takes."""
        return {
            "known": self.known, "table": self.table, "share": self.share,
            "threshold": self._threshold, "adversary": self.adversary.state(),
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier run on the same faces."""
        self.known, self.table, self.share = state["known"], state["table"], state["share"]
        self._threshold = state["threshold"]
        self.adversary.load(state["adversary"], self.device)


def _paired(rows: Tensor) -> Tensor:
    """(2n, D), both halves of the same people -> (n, 2, D)."""
    return torch.stack(rows.chunk(2), 1)


class Features:
    """What the middle convolutions of a recognizer say while it looks.

    Raises:
        TrainConfigError: it has none.
    """

    def __init__(self, network: Recognizer) -> None:
        modules = network.modules() if isinstance(network, nn.Module) else ()
        layers = [module for module in modules if isinstance(module, nn.Conv2d)]
        if not layers:
            raise TrainConfigError(
                f"features cannot be compared: {network.name} has no convolutions. Set features "
                "to 0, or name other critics."
            )
        self._said: list[list[Tensor]] = []
        self._listening = False
        for depth in DEPTHS:
            outputs: list[Tensor] = []
            layers[int(depth * len(layers))].register_forward_hook(partial(self._note, outputs))
            self._said.append(outputs)

    def _note(self, outputs: list[Tensor], layer: nn.Module, inputs: Any, output: Tensor) -> None:
        if self._listening:
            outputs.append(output)

    def look(
        self, network: Recognizer, faces: Tensor, points: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Embeddings (N, D), and (N, C, h, w) of each layer, the shallowest first."""
        self._listening = True
        embeddings = network.embed(faces, points).float()
        self._listening = False
        features = [torch.cat(outputs) for outputs in self._said]  # it looks in chunks
        for outputs in self._said:
            outputs.clear()
        return embeddings, features


class Critics:
    """All critics of a run, a few of whom look at each face."""

    def __init__(
        self, critics: Mapping[str, Critic], per_face: int, *, weighed: bool = True
    ) -> None:
        self.critics, self.per_face, self.weighed = dict(critics), per_face, weighed

    def terms(self, scene: Scene, random: Generator) -> dict[str, Tensor]:
        """The mean terms of the scene over critics, each weighed by how hard he is to fool."""
        count = len(scene.index) // 2
        place = torch.randperm(count, generator=random)
        turn = int(torch.randint(len(self.critics), (1,), generator=random))  # who sees more
        everyone = sum(critic.share for critic in self.critics.values()) / len(self.critics)
        sums: dict[str, Tensor] = {}
        for number, critic in enumerate(self.critics.values()):
            rows = place[(torch.arange(count) + number + turn) % len(self.critics) < self.per_face]
            if not len(rows):
                continue
            found = critic.terms(scene.pairs(rows), random)
            harder = critic.share / everyone if self.weighed else 1.0
            weight = harder * len(rows) / (count * self.per_face)
            critic.weigh(float(found["identity"].detach()))
            for name, term in found.items():
                sums[name] = sums.get(name, torch.zeros((), device=term.device)) + weight * term
        return sums
