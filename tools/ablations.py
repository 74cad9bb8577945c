"""Trains short runs of FaDeNet that differ in one thing each, and tables what each is worth.

    python tools/ablations.py --data faces --out ablations --steps 400

All start from the same weights and see the same faces in the same order. The table is of people
set aside from training: AUC of an attacker, 0.5 is guessing. One run each: small differences mean
nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench import plugins
from deidbench.threats._purifiers import purifiers
from deidbench.threats.reconstruction import Reconstruction
from deidbench.types import FaceLesson, Restorer
from fadenet.checkpoint import load_weights
from fadenet.config import TrainConfig, read_config
from fadenet.faces import Faces, load_faces, split_people
from fadenet.model import FaDeNet
from fadenet.running import no_denormals
from fadenet.train import WEIGHTS, Trainer, load_eyes
from fadenet.validation import Validation

if TYPE_CHECKING:
    from deidbench.types import BoolArray

CONFIG = Path(__file__).parents[1] / "fadenet" / "configs" / "fadenet.toml"
NOTHING = 1e-6
"""As good as none of a change that the network must be allowed."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "one critic (sface)": {"critics": ("sface",)},
    "one family (MobileFaceNets)": {"critics": ("mobilefacenet-ms1m", "mobilefacenet-casia")},
    "every critic sees every face": {"critics_per_face": 3},
    "critics count alike": {"weigh_critics": False},
    "cosine, no margin": {"loss": {"margin": -2.0}},
    "own photograph only": {"loss": {"other_photo": False}},
    "no views": {"loss": {"views": False}},
    "no filters": {"loss": {"filters": False}},
    "no views, no filters": {"loss": {"views": False, "filters": False}},
    "features 0.5": {"loss": {"features": 0.5}},
    "SSIM in the loss": {"loss": {"over_structure": 5.0, "structure_budget": 0.12}},
    "collapsed to 1 prototype": {"loss": {"collapsed": 1.0}},
    "collapsed to 16 prototypes": {"loss": {"collapsed": 1.0, "prototypes": 16}},
    "half of the people restored": {"loss": {"restored": 0.5}},
    "looks at 80 pixels": {"model": {"working_size": 80}},
    "looks at 64 pixels": {"model": {"working_size": 64}},
    "colour alone": {"model": {"shift": NOTHING}},
    "warp alone": {"model": {"colour": NOTHING}},
}
COLUMNS = ("lpips", "ssim", "T1 dlib", "T2 dlib", "T3 dlib", "T4 dlib", "P dlib",
           "T1 sface", "T2 sface", "T3 sface", "T4 sface", "P sface")  # fmt: skip
HELD = 8
"""One in so many of the faces that T4 learns on tells it when to stop."""


def variant(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration with these changes; tables are changed within."""
    plain = {k: v for k, v in changes.items() if k not in ("loss", "model")}
    parts = {
        name: replace(getattr(base, name), **changes[name])
        for name in ("loss", "model")
        if name in changes
    }
    held = sorted({*base.critics, *base.held_out} - set(plain.get("critics", base.critics)))
    return replace(base, **plain, **parts, held_out=tuple(held))


def measure(network: FaDeNet, aside: Faces, validation: Validation) -> dict[str, float]:
    """What the table holds, at full strength."""
    found = validation(network)
    numbers = {name[2:]: value for name, value in found.items() if name.startswith("1 ")}
    treated, _ = validation.treated(network, 1.0)
    clean, after = aside.chips.float() / 255, treated.float() / 255
    numbers["ssim"] = float(plugins.build("metrics", "ssim")(clean, after).mean())
    restored = [one(after) for one in restorers(aside, treated)]
    strangers = ~taught(aside)
    for name in ("dlib", "sface"):
        areas = [naive_area(validation, name, one(after)) for one in purifiers()]
        numbers[f"P {name}"] = max(areas)
        numbers[f"T4 {name}"] = max(naive_area(validation, name, x, strangers) for x in restored)
    return numbers


def taught(aside: Faces) -> BoolArray:
    """Which faces are of the people that attackers learn on: every second person."""
    learning = set(sorted(set(aside.subjects))[::2])
    return np.array([name in learning for name in aside.subjects])


def restorers(aside: Faces, treated: Tensor) -> Sequence[Restorer]:
    """What deidbench's T4 learns from faces (N, 3, H, W) uint8 of people set aside from ours."""
    threat = Reconstruction()
    rows = np.flatnonzero(taught(aside))
    lesson = FaceLesson(
        clean=aside.chips[rows], treated=treated[rows], landmarks=aside.landmarks[rows],
        subjects=np.unique([aside.subjects[row] for row in rows], return_inverse=True)[1],
        held=np.arange(len(rows)) % HELD == 0, seed=0, device="cpu", progress=lambda line: None,
    )  # fmt: skip
    return threat.restorers(threat.learn(lesson))


def naive_area(
    validation: Validation, name: str, faces: Tensor, which: BoolArray | None = None
) -> float:
    """AUC of the naive attacker with a recognizer, (N, 3, H, W) in [0, 1]; (N,) faces count."""
    pixels = (faces * 255).round().to(torch.uint8)
    recognizer = validation.recognizers[name]
    with torch.no_grad():
        clean = F.normalize(validation.embedded(recognizer, validation.faces.chips), dim=1)
        seen = F.normalize(validation.embedded(recognizer, pixels), dim=1)
    names = np.array(validation.faces.subjects)
    if which is not None:
        names, clean, seen = names[which], clean[which], seen[which]
    first, second = np.triu_indices(len(names), 1)
    scores, same = (clean @ seen.T).numpy()[first, second], names[first] == names[second]
    auc = plugins.build("metrics", "auc")
    return float(auc(genuine=scores[same], impostor=scores[~same]))


def runs(base: TrainConfig, faces: Faces, out: Path, wanted: list[str]) -> Iterator[dict[str, Any]]:
    """Train and measure what is not there yet; Ctrl-C ends it with what is whole."""
    for name in wanted:
        known = out / f"{name.replace(' ', '-').replace(',', '')}.json"
        if not known.exists():
            config = variant(base, VARIANTS[name])
            weights = out / "runs" / known.stem / WEIGHTS
            trainer = Trainer(config, faces, load_eyes(config, "cpu"), out=weights.parent)
            if not whole(weights, config.steps):
                trainer.run()
            if not whole(weights, config.steps):
                return  # stopped by a signal
            _, aside = split_people(faces, config.validation_faces, config.seed)
            numbers = measure(load_weights(weights)[0], aside, trainer.validate)
            told = {"name": name, "steps": config.steps, **numbers}
            known.write_text(json.dumps(told, indent=1), encoding="utf-8")
        yield json.loads(known.read_text("utf-8"))


def whole(weights: Path, steps: int) -> bool:
    """Whether a run has come to its end: Ctrl-C exports weights too."""
    return weights.exists() and load_weights(weights)[1].steps == steps


def as_markdown(found: list[dict[str, Any]]) -> str:
    """A table with a row for each run."""
    head = f"| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}\n"
    rows = (f"| {one['name']} | {' | '.join(f'{one[c]:.3f}' for c in COLUMNS)} |" for one in found)
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """Read the command line, train, write ``ablations.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    base = read_config(CONFIG, steps=options.steps)
    base = replace(base, checkpoint_every=options.steps + 1, samples=False, log_every=100)
    options.out.mkdir(parents=True, exist_ok=True)
    with no_denormals():
        faces = load_faces(options.data, options.out / "chips.npz", lambda done, of: None)
        found = list(runs(base, faces, options.out, options.only))
    (options.out / "ablations.md").write_text(as_markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
