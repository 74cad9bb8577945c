"""The script that a user would write without deidbench: one image, one library call at a time.

Prints the numbers that ``deidbench evaluate --method gaussian-blur`` finds for T0, T1 and T2 in the
landmarks view and for LPIPS and SSIM, as JSON. Usage: script.py FOLDER PERSON,PERSON,...
All faces are treated and embedded, those of the named people are compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dlib
import numpy as np
import onnxruntime
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.transform import SimilarityTransform, warp
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.image import structural_similarity_index_measure

from deidbench import assets, geometry
from deidbench.metrics.lpips import LPIPS
from deidbench.recognizers.dlib import Dlib

CHIP = 160
SIGMA = 7.5


def crop(image: np.ndarray, points: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (size, size, 3) with the landmarks on the template."""
    found = SimilarityTransform.from_estimate(points, template)
    moved = warp(image / 255.0, found.inverse, output_shape=(size, size), order=1)
    return (moved.clip(0, 1) * 255).round().astype(np.uint8)


def main(folder: Path, people: list[str]) -> None:
    """Treat and embed every image below a folder of subject/image; compare those of some people."""
    detector = MTCNN(keep_all=True, post_process=False).eval()
    network = dlib.face_recognition_model_v1(str(assets.fetch("dlib-resnet29")))
    session = onnxruntime.InferenceSession(str(assets.fetch("sface-int8")))
    lpips = LPIPS()
    subjects, values = [], {"lpips": [], "ssim": []}
    embeddings: dict[str, list[np.ndarray]] = {
        f"{name}-{side}": [] for name in ("dlib", "sface") for side in ("clean", "treated")
    }
    template = geometry.chip_template(CHIP).numpy()
    for path in sorted(folder.glob("*/*")):
        image = np.asarray(Image.open(path).convert("RGB"))
        boxes, _, landmarks = detector.detect(Image.fromarray(image), landmarks=True)
        centre = np.array(image.shape[1::-1]) / 2
        nearest = np.argmin((((boxes[:, :2] + boxes[:, 2:]) / 2 - centre) ** 2).sum(1))
        clean = crop(image, landmarks[nearest], template, CHIP)
        points = SimilarityTransform.from_estimate(landmarks[nearest], template)(landmarks[nearest])
        blurred = gaussian_filter(clean / 255.0, (SIGMA, SIGMA, 0), mode="reflect")
        treated = (blurred.clip(0, 1) * 255).round().astype(np.uint8)
        subjects.append(path.parent.name)
        for side, chip in {"clean": clean, "treated": treated}.items():
            face = crop(chip, points, Dlib.template.numpy(), 150)
            embeddings[f"dlib-{side}"].append(np.array(network.compute_face_descriptor(face)))
            face = crop(chip, points, geometry.ARC112.numpy(), 112).astype(np.float32)
            feed = {"data": face.transpose(2, 0, 1)[None]}
            embeddings[f"sface-{side}"].append(session.run(None, feed)[0][0])
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
    found = numbers(np.array(subjects)[chosen], kept)
    means = {name: float(np.array(column)[chosen].mean()) for name, column in values.items()}
    print(json.dumps({**found, **means}))


def numbers(subjects: np.ndarray, embeddings: dict[str, np.ndarray]) -> dict[str, float]:
    """AUC of each threat and recognizer over all cross-image pairs."""
    found = {}
    first, second = np.triu_indices(len(subjects), 1)
    same = subjects[first] == subjects[second]
    sides = {"T0": ("clean", "clean"), "T1": ("clean", "treated"), "T2": ("treated", "treated")}
    for name in ("dlib", "sface"):
        for threat, (enrolled, probe) in sides.items():
            a = embeddings[f"{name}-{enrolled}"][first]
            b = embeddings[f"{name}-{probe}"][second]
            if name == "dlib":
                scores = -np.linalg.norm(a - b, axis=1)
            else:
                norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
                scores = (a * b).sum(1) / norms
            found[f"{threat} {name}"] = float(roc_auc_score(same, scores))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
