"""Metrics whose weights are fetched: KID and FID, and what deepface reads in a face."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from deidbench import assets
from deidbench.errors import AssetUnavailableError, DeidbenchError, MetricUndefinedError
from deidbench.metrics._deepface import faces
from deidbench.metrics._inception import ASSET
from deidbench.metrics.age_difference import AgeDifference
from deidbench.metrics.expression_agreement import ExpressionAgreement
from deidbench.metrics.fid import FrechetInceptionDistance
from deidbench.metrics.gender_agreement import GenderAgreement
from deidbench.metrics.kid import KernelInceptionDistance

inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """torch-fidelity's own network with weights drawn here, and their file as its ``path``."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng([]):
        torch.manual_seed(0)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        network = inception.FeatureExtractorInceptionV3("reference", ["2048"]).eval()
    for parameter in network.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, generator=torch.Generator().manual_seed(1))
    torch.save(network.state_dict(), path)
    network.path = path
    return network


@contextmanager
def served(files: Mapping[str, Path], home: Path) -> Iterator[None]:
    """These files by asset name, as a server on this machine offers them; fetched to a new home."""
    registry = importlib.import_module("deidbench.assets.registry")
    folders = {path.parent for path in files.values()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(*folders)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = dict(registry.registry())
    for name, path in files.items():
        source = assets.Source(
            f"http://127.0.0.1:{server.server_port}/{path.name}", path.name,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )  # fmt: skip
        known[name] = replace(known[name], sources=(source,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", known)
        patch.setenv("DEIDBENCH_HOME", str(home))
        patch.delenv("DEIDBENCH_MIRROR", raising=False)
        patch.delenv("DEIDBENCH_OFFLINE", raising=False)
        yield
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def both(
    reference: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> tuple[KernelInceptionDistance, FrechetInceptionDistance]:
    """Both distances, by weights that were fetched."""
    with served({ASSET: reference.path}, tmp_path_factory.mktemp("home")):
        return KernelInceptionDistance(), FrechetInceptionDistance()


@pytest.fixture
def kid(both: tuple[KernelInceptionDistance, FrechetInceptionDistance]) -> KernelInceptionDistance:
    return both[0]


@pytest.fixture
def fid(both: tuple[KernelInceptionDistance, FrechetInceptionDistance]) -> FrechetInceptionDistance:
    return both[1]


def drawn(count: int, width: int = 16, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, width)) @ random.normal(size=(width, width))
    return (mixed + shift).astype(np.float32)


def test_features_are_those_of_torch_fidelity(
    kid: KernelInceptionDistance, reference: torch.nn.Module
) -> None:
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    pixels = (images * 255).round().to(torch.uint8)
    with torch.no_grad():
        (expected,) = reference(pixels)
    found = kid.features(images)
    assert found.shape == (2, 2048)
    assert float(expected.std()) > 0
    torch.testing.assert_close(found, expected)
    assert kid.to("cpu") is kid
    assert not any(parameter.requires_grad for parameter in kid._network.parameters())
    with pytest.raises(DeidbenchError, match=r"kid: expected given images as floats in \[0, 1\]"):
        kid.features(images * 255)


def test_building_draws_nothing_from_the_global_generator(reference: torch.nn.Module) -> None:
    state = torch.random.get_rng_state()
    KernelInceptionDistance(weights=reference.path)
    assert torch.equal(state, torch.random.get_rng_state())


def naive_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased, pair by pair."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def mean(a: np.ndarray, b: np.ndarray, *, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return float(np.mean([(a[i] @ b[j] / a.shape[1] + 1) ** 3 for i, j in pairs]))

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)


def test_kid_is_the_unbiased_distance_of_a_cubic_kernel(kid: KernelInceptionDistance) -> None:
    for shift in (0.0, 0.5):
        a, b = drawn(20), drawn(20, shift=shift, seed=1)
        assert kid(a, b) == pytest.approx(naive_mmd(a, b), rel=1e-9, abs=1e-9)


def test_kid_of_unlike_numbers_of_images_uses_subsets_of_the_smaller(
    kid: KernelInceptionDistance,
) -> None:
    a, b = drawn(12), drawn(60, shift=0.5, seed=1)
    found = kid(a, b)
    assert found == kid(a, b)
    assert found == pytest.approx(naive_mmd(a, b), rel=0.25)
    assert kid.note(12) == "subsets of 12 images"
    assert kid.note(5000) == "subsets of 1000 images"


def test_kid_is_unbiased(kid: KernelInceptionDistance) -> None:
    """Of halves of one distribution it is 0 on average, where FID is not."""
    random = np.random.default_rng(0)
    values = [kid(*random.normal(size=(2, 40, 8)).astype(np.float32)) for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize(("first", "second"), [(300, 200), (10, 12), (300, 7), (2, 2)])
def test_fid_equals_its_definition_also_where_covariances_are_singular(
    fid: FrechetInceptionDistance, first: int, second: int
) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = drawn(first), drawn(second, shift=0.3, seed=1)
    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The trace of (C1 C2)^(1/2), with a root that exists where few images leave C1 C2 singular.
    root = linalg.sqrtm(c1 + 1e-12 * np.eye(16)).real
    middle = np.linalg.eigvalsh(root @ c2 @ root).clip(0)
    gap = x.mean(0) - y.mean(0)
    expected = gap @ gap + np.trace(c1) + np.trace(c2) - 2 * np.sqrt(middle).sum()
    assert fid(a, b) == pytest.approx(expected, rel=1e-4)
    if min(first, second) > 16:
        assert np.sqrt(middle).sum() == pytest.approx(linalg.sqrtm(c1 @ c2).real.trace(), rel=1e-6)


@pytest.mark.skipif(
    "disp" not in inspect.signature(scipy.linalg.sqrtm).parameters,
    reason="this scipy has no sqrtm(disp=...), which torch-fidelity 0.3 calls",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the same
def test_fid_equals_torch_fidelity(fid: FrechetInceptionDistance) -> None:
    from torch_fidelity import metric_fid

    a, b = drawn(300), drawn(200, shift=0.3, seed=1)
    moments = [metric_fid.fid_features_to_statistics(torch.from_numpy(x).double()) for x in (a, b)]
    theirs = metric_fid.fid_statistics_to_metric(*moments, False)[metric_fid.KEY_METRIC_FID]
    assert fid(a, b) == pytest.approx(theirs, rel=1e-6)


def test_fid_of_gaussians_along_one_axis_is_its_closed_form(fid: FrechetInceptionDistance) -> None:
    line = np.linspace(-1, 1, 101)[:, None] * np.eye(1, 4)
    deviation = line[:, 0].std(ddof=1)
    found = fid(line.astype(np.float32), (3 * line + 2).astype(np.float32))
    assert found == pytest.approx(4 * 2**2 + (3 - 1) ** 2 * deviation**2, rel=1e-5)


def test_fid_is_0_for_a_set_and_itself_in_any_order_and_symmetric(
    fid: FrechetInceptionDistance,
) -> None:
    a, b = drawn(50), drawn(30, shift=1, seed=1)
    assert fid(a, a[::-1]) == pytest.approx(0, abs=1e-3)
    assert fid(a, b) == pytest.approx(fid(b, a))
    assert fid(a, b + 5) > fid(a, b) > 0


def test_fid_warns_of_few_images(fid: FrechetInceptionDistance) -> None:
    assert "made of 224 images" in str(fid.note(224))
    assert fid.note(2048) is None


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_leave_both_undefined(
    kid: KernelInceptionDistance, fid: FrechetInceptionDistance, count: int
) -> None:
    for metric in (kid, fid):
        with pytest.raises(MetricUndefinedError, match=f"needs 2 images a set, but got {count}"):
            metric(drawn(5), drawn(5)[:count])


@pytest.mark.parametrize("content", [b"", b"not a torch file", None])
def test_a_file_with_something_else_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.pth"
    if content is None:
        torch.save({"fc.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DeidbenchError, match=r"other\.pth does not hold the Inception weights"):
        KernelInceptionDistance(weights=path)


def test_a_file_that_runs_code_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "ran"),)

    torch.save(Trap(), tmp_path / "trap.pth")
    with pytest.raises(DeidbenchError):
        FrechetInceptionDistance(weights=tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_without_weights_the_metric_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path))
    monkeypatch.delenv("DEIDBENCH_MIRROR", raising=False)
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    with pytest.raises(AssetUnavailableError, match="inception-fid"):
        FrechetInceptionDistance()


# What deepface reads.

FILES = {
    ExpressionAgreement: "facial_expression_model_weights.pth",
    GenderAgreement: "gender_model_weights.pth",
    AgeDifference: "age_model_weights.pth",
}
LARGE = [pytest.param(one, marks=pytest.mark.slow) for one in (GenderAgreement, AgeDifference)]


def draw(metric: Any, path: Path) -> None:
    """Weights that tell faces apart, in deepface's format."""
    module = importlib.import_module(f"deepface.models.demography.pytorch.{metric.model}")
    with torch.device("meta"):
        state = module.base_model().state_dict()
    generator = torch.Generator().manual_seed(3)
    for name, tensor in state.items():
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:  # filters without a mean, or all pictures would look the same
            values -= values.mean(tuple(range(1, tensor.ndim)), keepdim=True)
        state[name] = values * ((8 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1)
    torch.save(state, path)


def chips(count: int) -> Tensor:
    """Pictures from coarse to fine in 8 bits, (count, 3, 160, 160) in [0, 1]."""
    generator = torch.Generator().manual_seed(3)
    coarse = [torch.rand(1, 3, 4 + 2 * k, 4 + 2 * k, generator=generator) for k in range(count)]
    fine = [torch.nn.functional.interpolate(one, (160, 160), mode="bicubic") for one in coarse]
    return (torch.cat(fine).clamp(0, 1) * 255).round() / 255


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where deepface itself looks for its weights; it downloads nothing."""
    pytest.importorskip("deepface.models.demography.pytorch.Emotion")
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setenv("DEEPFACE_BACKEND_ENGINE", "pytorch")
    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.filterwarnings("ignore")  # deepface's imports
@pytest.mark.parametrize("kind", [ExpressionAgreement, *LARGE])
def test_readings_are_those_of_deepface_analyze(
    kind: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyze = importlib.import_module("deepface.modules.demography").analyze
    modeling = importlib.import_module("deepface.modules.modeling")
    path = weights / FILES[kind]
    draw(kind, path)
    metric = kind(weights=path)
    images = chips(2)
    monkeypatch.setattr(modeling, "cached_models", defaultdict(dict), raising=False)
    cut = (images[:, :, 22:142, 20:140] * 255).round().byte().permute(0, 2, 3, 1).flip(-1).numpy()
    action = {"Emotion": "emotion", "Gender": "gender", "Age": "age"}[kind.model]
    theirs = [
        analyze(one, actions=(action,), detector_backend="skip", silent=True)[0] for one in cut
    ]
    with torch.no_grad():
        ours = metric._network(metric.prepare(faces(images)))
    if kind is AgeDifference:
        years = ours @ torch.arange(101.0)
        assert [int(year) for year in years] == [one["age"] for one in theirs]
        expected = (years[:1] - years[1:]).abs()
    else:
        expected = torch.tensor([list(one[action].values()) for one in theirs]) / 100
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5, check_dtype=False)
        said = [one[f"dominant_{action}"] for one in theirs]
        expected = torch.tensor([float(said[0] == said[1])])
    assert float(ours.std(0).max()) > 1e-3
    torch.testing.assert_close(metric(images[:1], images[1:]), expected, rtol=1e-3, atol=1e-3)


def test_the_weights_are_fetched_from_their_asset(weights: Path, tmp_path: Path) -> None:
    draw(ExpressionAgreement, weights / "e.pth")
    with served({"deepface-emotion": weights / "e.pth"}, tmp_path / "home"):
        fetched = ExpressionAgreement()
    given = ExpressionAgreement(weights=weights / "e.pth")
    images = chips(8)
    assert torch.equal(fetched(images, images.flip(0)), given(images, images.flip(0)))


def test_expression_agreement_is_1_for_the_same_face_and_0_for_another_reading(
    weights: Path,
) -> None:
    draw(ExpressionAgreement, weights / "e.pth")
    metric = ExpressionAgreement(weights=weights / "e.pth")
    images = chips(16)
    assert metric(images, images).tolist() == [1] * 16
    values = metric(images, images.flip(0))
    assert set(values.tolist()) == {0, 1}
    assert torch.equal(values, values.flip(0))
    assert values.dtype == torch.float32
    assert metric.to("cpu") is metric
    alone = torch.cat([metric(images[i : i + 1], images[15 - i : 16 - i]) for i in range(16)])
    assert torch.equal(alone, values)


def test_age_difference_is_that_of_the_mean_ages() -> None:
    metric = AgeDifference.__new__(AgeDifference)
    before, after = torch.zeros(2, 101), torch.zeros(2, 101)
    before[:, 30] = 1
    after[0, 20], after[0, 60] = 0.5, 0.5
    after[1, 30] = 1
    assert metric.compare(before, after).tolist() == [10, 0]


@pytest.mark.parametrize("kind", FILES)
def test_weights_of_another_model_are_refused(kind: Any, weights: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, weights / "other.pth")
    with pytest.raises(DeidbenchError, match=r"other\.pth does not hold deepface's weights"):
        kind(weights=weights / "other.pth")


def test_without_deepface_the_metric_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "deepface"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deepface", None)
    with pytest.raises(AssetUnavailableError, match=r"pip install 'deidbench\[deepface\]'"):
        GenderAgreement()
