"""The script that a user would write without deidbench: one image, one library call at a time.

Prints the AUCs that ``deidbench evaluate --method gaussian-blur`` finds for T0, T1 and T2, by the
clean landmarks and by those found anew, and LPIPS and SSIM, as JSON.
Usage: script.py FOLDER PERSON,PERSON,...
All faces are treated and embedded, those of the named people are compared.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import dlib
import numpy as np
import onnx
import onnxruntime
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.transform import estimate_transform, warp
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.image import structural_similarity_index_measure

from deidbench import assets, geometry
from deidbench.alignment import SMALLEST_FACE, SMALLEST_IN_CHIP
from deidbench.metrics.lpips import LPIPS
from deidbench.recognizers.dlib import Dlib

CHIP = 160
SIGMA = 7.5


def crop(image: np.ndarray, points: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (size, size, 3) with the landmarks on the template."""
    found = estimate_transform("similarity", points, template)
    moved = warp(image / 255.0, found.inverse, output_shape=(size, size), order=1)
    return (moved.clip(0, 1) * 255).round().astype(np.uint8)


def nearest_face(detector: MTCNN, image: np.ndarray, smallest: float) -> np.ndarray | None:
    """Landmarks (5, 2) of the face nearest the centre, None without a face."""
    detector.min_face_size = smallest
    boxes, _, landmarks = detector.detect(Image.fromarray(image), landmarks=True)
    if boxes is None:
        return None
    centre = np.array(image.shape[1::-1]) / 2
    nearest = np.argmin((((boxes[:, :2] + boxes[:, 2:]) / 2 - centre) ** 2).sum(1))
    return np.asarray(landmarks[nearest], np.float64)


class Eyes:
    """dlib and SFace, one face at a time."""

    def __init__(self) -> None:
        self.dlib = dlib.face_recognition_model_v1(str(assets.fetch("dlib-resnet29")))
        model = onnx.load(assets.fetch("sface-int8"))
        unused = [given for given in model.graph.input if given.name != "data"]
        for given in unused:  # left over from the file's conversion; no node needs them
            model.graph.input.remove(given)
        self.sface = onnxruntime.InferenceSession(model.SerializeToString())

    def embed(self, chip: np.ndarray, points: np.ndarray | None) -> dict[str, np.ndarray]:
        """Embeddings of a chip with its landmarks; NaN without."""
        if points is None:
            return dict.fromkeys(("dlib", "sface"), np.full(128, np.nan))
        face = crop(chip, points, geometry.ARC112.numpy(), 112).astype(np.float32)
        feed = {"data": face.transpose(2, 0, 1)[None]}
        return {
            "dlib": np.array(
                self.dlib.compute_face_descriptor(crop(chip, points, Dlib.template.numpy(), 150))
            ),
            "sface": self.sface.run(None, feed)[0][0],
        }


def main(folder: Path, people: list[str]) -> None:
    """Treat and embed every image below a folder of subject/image; compare those of some people."""
    detector, eyes, lpips = MTCNN(keep_all=True, post_process=False).eval(), Eyes(), LPIPS()
    template = geometry.chip_template(CHIP).numpy()
    subjects: list[str] = []
    values: dict[str, list[float]] = {"lpips": [], "ssim": []}
    embeddings: dict[str, list[np.ndarray]] = defaultdict(list)
    for path in sorted(folder.glob("*/*")):
        image = np.asarray(Image.open(path).convert("RGB"))
        found = nearest_face(detector, image, SMALLEST_FACE)
        assert found is not None, path
        clean = crop(image, found, template, CHIP)
        points = estimate_transform("similarity", found, template)(found)
        blurred = gaussian_filter(clean / 255.0, (SIGMA, SIGMA, 0), mode="reflect")
        treated = (blurred.clip(0, 1) * 255).round().astype(np.uint8)
        subjects.append(path.parent.name)
        sides = {
            "clean": (clean, points),
            "treated": (treated, points),
            "detected": (treated, nearest_face(detector, treated, SMALLEST_IN_CHIP * CHIP)),
        }
        for side, (chip, landmarks) in sides.items():
            for name, embedding in eyes.embed(chip, landmarks).items():
                embeddings[f"{name}-{side}"].append(embedding)
        a, b = (
            torch.from_numpy(chip.transpose(2, 0, 1)[None]).float() / 255
            for chip in (clean, treated)
        )
        values["lpips"].append(float(lpips(a, b)))
        values["ssim"].append(
            float(structural_similarity_index_measure(a, b, data_range=1.0, sigma=1.5))
        )
    chosen = np.isin(subjects, people)
    kept = {name: np.array(rows)[chosen] for name, rows in embeddings.items()}
    auc = numbers(np.array(subjects)[chosen], kept)
    means = {name: float(np.array(column)[chosen].mean()) for name, column in values.items()}
    print(json.dumps({**auc, **means}))


def numbers(subjects: np.ndarray, embeddings: dict[str, np.ndarray]) -> dict[str, float]:
    """AUC of each threat and recognizer over all cross-image pairs."""
    found = {}
    first, second = np.triu_indices(len(subjects), 1)
    swapped = (first + second) % 2 == 1  # as in deidbench: no image stands always on one side
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    same = subjects[first] == subjects[second]
    sides = {
        "T0 landmarks": ("clean", "clean"),
        "T1 landmarks": ("clean", "treated"),
        "T2 landmarks": ("treated", "treated"),
        "T1 conditional": ("clean", "detected"),
        "T2 conditional": ("detected", "detected"),
    }
    for name in ("dlib", "sface"):
        for threat, (enrolled, probe) in sides.items():
            a = embeddings[f"{name}-{enrolled}"][first]
            b = embeddings[f"{name}-{probe}"][second]
            if name == "dlib":
                scores = -np.linalg.norm(a - b, axis=1)
            else:
                norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
                scores = (a * b).sum(1) / norms
            made = ~np.isnan(scores)
            found[f"{threat} {name}"] = float(roc_auc_score(same[made], scores[made]))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
