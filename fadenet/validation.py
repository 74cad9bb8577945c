"""How well the network hides people set aside from training, from critics and from one who is none.

The early look of a training run: three attackers of deidbench in short. Their numbers are means
over few people, without intervals; 'deidbench evaluate' gives those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from deidbench import plugins
from deidbench.types import Recognizer

from .adversary import Adversary
from .faces import Faces
from .model import FaDeNet

if TYPE_CHECKING:
    from deidbench.types import BoolArray

BATCH = 16
STRENGTHS = (0.5, 1.0)
PENALTY = 0.1  # of the map of the adapted attacker
KEY_SEED = 1


class Validation:
    """Faces set aside, and who looks at them.

    Args:
        faces: of people of whom at least a few have two photographs or more.
        recognizers: by name; the critics and a recognizer that is none.
    """

    def __init__(
        self,
        faces: Faces,
        recognizers: Mapping[str, Recognizer],
        perceptual: Callable[[Tensor, Tensor], Tensor],
        device: str,
    ) -> None:
        self.faces, self.recognizers = faces, dict(recognizers)
        self.perceptual, self.device = perceptual, device
        for recognizer in self.recognizers.values():
            recognizer.to(device)
        names = np.array(faces.subjects)
        first, second = np.triu_indices(len(names), 1)
        self._same = names[first] == names[second]
        self._pairs = torch.from_numpy(first), torch.from_numpy(second)
        people = sorted(set(faces.subjects))
        learning = set(people[::2])
        self._teaches = torch.tensor([name in learning for name in faces.subjects])
        self._clean: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, network: FaDeNet) -> dict[str, float]:
        """LPIPS, and the AUC of T1, T2 and a ridge map (T3) for each recognizer and strength."""
        found: dict[str, float] = {}
        for strength in STRENGTHS:
            treated, distance = self.treated(network, strength)
            found[f"{strength:g} lpips"] = distance
            for name, recognizer in self.recognizers.items():
                if name not in self._clean:
                    self._clean[name] = self.embedded(recognizer, self.faces.chips)
                seen = self.embedded(recognizer, treated)
                for threat, area in self._attacks(self._clean[name], seen):
                    found[f"{strength:g} {threat} {name}"] = area
        return found

    def treated(self, network: FaDeNet, strength: float) -> tuple[Tensor, float]:
        """The faces as 8-bit chips after treatment, and their mean LPIPS."""
        random = Generator().manual_seed(KEY_SEED)
        chips, total = [], 0.0
        for rows in torch.split(torch.arange(len(self.faces)), BATCH):
            clean = self.faces.chips[rows].float().to(self.device) / 255
            key = torch.randn(len(rows), network.config.key, generator=random)
            after = network(clean, strength, key.to(self.device) if network.config.key else None)
            total += float(self.perceptual(clean, after).sum())
            chips.append((after * 255).round().to(torch.uint8).cpu())
        return torch.cat(chips), total / len(self.faces)

    def embedded(self, recognizer: Recognizer, chips: Tensor) -> Tensor:
        """What a recognizer makes of chips (N, 3, H, W) uint8 of the faces set aside, (N, D)."""
        embeddings = []
        for rows in torch.split(torch.arange(len(chips)), BATCH):
            faces = chips[rows].float().to(self.device) / 255
            points = self.faces.landmarks[rows].to(self.device)
            embeddings.append(recognizer.embed(faces, points).cpu())
        return torch.cat(embeddings)

    def _attacks(self, clean: Tensor, treated: Tensor) -> Iterator[tuple[str, float]]:
        """The AUC of each threat that the faces allow to be tried."""
        everyone = np.ones(len(self._same), bool)
        yield from self._area("T1", clean, treated, everyone)
        yield from self._area("T2", treated, treated, everyone)
        teaches = self._teaches
        if not teaches.any():
            return
        adversary = Adversary(int(teaches.sum()))
        twice = torch.stack([treated, treated], 1), torch.stack([clean, clean], 1)
        adversary.remember(*(side[teaches] for side in twice))
        maps = adversary.learn(PENALTY, "cpu")
        asked = ~(teaches[self._pairs[0]] | teaches[self._pairs[1]]).numpy()
        yield from self._area("T3", maps.centred(clean), maps.mapped(treated), asked)

    def _area(
        self, threat: str, enrolled: Tensor, probe: Tensor, which: BoolArray
    ) -> Iterator[tuple[str, float]]:
        """AUC of one photograph of a person against another; nothing where nobody has two."""
        first, second = self._pairs
        scores = F.cosine_similarity(enrolled[first], probe[second]).numpy()[which]
        same = self._same[which]
        if same.any() and not same.all():
            area = plugins.build("metrics", "auc")
            yield threat, float(area(genuine=scores[same], impostor=scores[~same]))
