from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from deidbench import assets, plugins
from deidbench.alignment import Aligned, Aligner, to_float
from deidbench.datasets.synthid import SynthID
from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.geometry import CHIP_SIZE, align
from deidbench.images import read_image
from deidbench.recognizers import mobilefacenet_casia, mobilefacenet_ms1m
from deidbench.recognizers._base import FrozenRecognizer
from deidbench.recognizers._conv import Conv, Names, PReLU, load_convs
from deidbench.recognizers._dlib_file import _Reader
from deidbench.recognizers._onnx import read_onnx
from deidbench.recognizers._weights import Weights, WeightsError
from deidbench.recognizers.mobilefacenet_casia import MobileFaceNetCasia
from deidbench.recognizers.mobilefacenet_ms1m import MobileFaceNetMS1M
from deidbench.testing import check_recognizer

NAMES = [
    name
    for name in plugins.names("recognizers")
    if getattr(plugins.load("recognizers", name), "by_default", True)
]
FOLDERS = {
    "mobilefacenet-ms1m": "mobilefacenet_foamliu",
    "mobilefacenet-casia": "mobilefacenet_bubbliiiing",
}


def real_file(folder: str, pattern: str) -> Path:
    root = os.environ.get("DEIDBENCH_TEST_ASSETS")
    if not root or not Path(root).is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder of real weights")
    return next(Path(root, "weights", folder).glob(pattern))


@cache
def load(name: str) -> FrozenRecognizer | str:
    recognizer = plugins.load("recognizers", name)
    root = os.environ.get("DEIDBENCH_TEST_ASSETS")
    try:
        if root and name in FOLDERS:
            return recognizer(next(Path(root, "weights", FOLDERS[name]).glob("*.pt*")))
        return recognizer()
    except AssetUnavailableError as error:
        return str(error)


def build(name: str) -> FrozenRecognizer:
    recognizer = load(name)
    if isinstance(recognizer, str):
        pytest.skip(recognizer)
    return recognizer


def weights_of(name: str) -> Path:
    """The file that a recognizer is built from."""
    recognizer = build(name)
    root = os.environ.get("DEIDBENCH_TEST_ASSETS")
    if root and name in FOLDERS:
        return real_file(FOLDERS[name], "*.pt*")
    return assets.fetch(recognizer.asset)


@cache
def synthetic_faces() -> tuple[Aligned, list[str]]:
    samples = [s for s in SynthID().samples() if s.subject < "id006" and s.id[-6:] < "03.jpg"]
    return Aligner()([read_image(s.path) for s in samples]), [s.subject for s in samples]


def normalized(recognizer: FrozenRecognizer, embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings) if recognizer.similarity == "cosine" else embeddings


def similarities(recognizer: FrozenRecognizer, embeddings: Tensor) -> Tensor:
    if recognizer.similarity == "cosine":
        return F.normalize(embeddings) @ F.normalize(embeddings).T
    return -torch.cdist(embeddings, embeddings)


@pytest.mark.parametrize("name", NAMES)
def test_every_recognizer_keeps_its_promises(name: str) -> None:
    recognizer = build(name)
    check_recognizer(recognizer)
    assert recognizer.name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_recognizer_is_frozen(name: str) -> None:
    recognizer = build(name)
    assert not recognizer.training
    assert not any(p.requires_grad for p in recognizer.parameters())
    assert sum(p.numel() for p in recognizer.parameters()) > 900_000


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_of_the_asset(name: str) -> None:
    recognizer = build(name)
    hashes = {source.sha256 for source in assets.registry()[recognizer.asset].sources}
    assert recognizer.weights_sha256 in hashes


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_a_finite_difference(name: str) -> None:
    recognizer = build(name)
    aligned, _ = synthetic_faces()
    chips = to_float(aligned.chips[:2]) * 0.8 + 0.1
    landmarks = aligned.landmarks[:2]
    weights = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(chips.shape, generator=torch.Generator().manual_seed(1))
    direction = F.avg_pool2d(noise, 9, 1, 4)  # smooth, so that it survives the warp
    double = deepcopy(recognizer).double()

    def along(step: float) -> Tensor:
        moved = chips.double() + step * direction.double()
        crops = align(moved, landmarks.double(), recognizer.template, recognizer.size)
        scaled = crops * double.get_buffer("_gain") + double.get_buffer("_offset")
        return (double.network(scaled) * weights).sum()

    slope = (along(1e-6) - along(-1e-6)) / 2e-6  # smaller than the way to most kinks
    given = chips.clone().requires_grad_(True)
    loss = (recognizer.embed(given, landmarks) * weights).sum()
    (gradient,) = torch.autograd.grad(loss, given)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_follow_the_order_of_the_faces(name: str) -> None:
    recognizer = build(name)
    aligned, _ = synthetic_faces()
    chips, landmarks = to_float(aligned.chips[:5]), aligned.landmarks[:5]
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(
        recognizer.embed(chips[order], landmarks[order]), recognizer.embed(chips, landmarks)[order]
    )


@pytest.mark.parametrize("size", [112, 224, 512])
@pytest.mark.parametrize("name", NAMES)
def test_chips_of_other_sizes_give_nearly_the_same_embedding(name: str, size: int) -> None:
    recognizer = build(name)
    aligned, _ = synthetic_faces()
    chips, landmarks = to_float(aligned.chips[:4]), aligned.landmarks[:4]
    scale = size / CHIP_SIZE
    resized = F.interpolate(chips, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
    moved = (landmarks + 0.5) * scale - 0.5  # centres of pixels lie at whole numbers
    a = normalized(recognizer, recognizer.embed(chips, landmarks))
    b = normalized(recognizer, recognizer.embed(resized, moved))
    assert float(F.cosine_similarity(a, b).min()) > (0.97 if size < CHIP_SIZE else 0.985)


@pytest.mark.parametrize("name", NAMES)
def test_faces_of_one_person_are_more_alike_than_those_of_two(name: str) -> None:
    recognizer = build(name)
    aligned, subjects = synthetic_faces()
    found = aligned.found
    with torch.inference_mode():
        embeddings = recognizer.embed(to_float(aligned.chips[found]), aligned.landmarks[found])
    kept = np.array(subjects)[found.numpy()]
    scores = similarities(recognizer, embeddings)
    same = torch.from_numpy(kept[:, None] == kept)
    genuine, impostor = scores[same & ~torch.eye(len(kept), dtype=torch.bool)], scores[~same]
    assert len(genuine) > 20
    gap = genuine.mean() - impostor.mean()
    assert gap > 1.5 * impostor.std()


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_mobilefacenet_equals_its_onnx_export(name: str) -> None:
    path = real_file(FOLDERS[name], "*.onnx")
    crops = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    theirs = torch.from_numpy(run_onnx(onnx.load(str(path)), crops))
    ours = build(name).network(crops)
    assert float((ours - theirs).norm(dim=1).max() / theirs.norm(dim=1).min()) < 1e-5


def run_onnx(model: Any, crops: Tensor) -> Any:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    rows = crops.split(1 if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value else 99)
    return np.concatenate([session.run(None, {"data": row.numpy()})[0] for row in rows])


def test_sface_equals_onnxruntime_on_the_quantised_file() -> None:
    recognizer = build("sface")
    aligned, _ = synthetic_faces()
    model = onnx.load(str(weights_of("sface")))
    data = next(i for i in model.graph.input if i.name == "data")
    del model.graph.input[:]
    model.graph.input.append(data)
    crops = F.interpolate(to_float(aligned.chips[:4]), size=(112, 112))
    theirs = torch.from_numpy(run_onnx(model, crops * 255))
    ours = recognizer(crops)
    assert float((ours - theirs).abs().max()) < 1e-4  # embeddings are about 5 long
    assert float(F.cosine_similarity(ours, theirs).min()) > 1 - 1e-6


def test_the_dlib_port_equals_dlib() -> None:
    dlib = pytest.importorskip("dlib")
    recognizer = build("dlib")
    aligned, _ = synthetic_faces()
    faces = F.interpolate(aligned.chips[:6].float(), size=(150, 150)).to(torch.uint8)
    noise = torch.randint(0, 256, (2, 3, 150, 150), generator=torch.Generator().manual_seed(0))
    chips = torch.cat([faces, noise.to(torch.uint8)])
    model = dlib.face_recognition_model_v1(str(weights_of("dlib")))
    images = [np.ascontiguousarray(chip.permute(1, 2, 0).numpy()) for chip in chips]
    theirs = torch.tensor(np.array(model.compute_face_descriptor(images)), dtype=torch.float32)
    torch.testing.assert_close(recognizer(chips.float() / 255), theirs, rtol=0, atol=1e-5)


def test_the_dlib_template_is_symmetric() -> None:
    template = build("dlib").template
    mirrored = torch.stack([149 - template[:, 0], template[:, 1]], 1)[[1, 0, 2, 4, 3]]
    torch.testing.assert_close(template, mirrored, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(name: str, cut: float, tmp_path: Path) -> None:
    whole = weights_of(name).read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(DeidbenchError, match=r"weights cut\.bin cannot be used: .*fetch"):
        type(build(name))(path)


@pytest.mark.parametrize("name", NAMES)
def test_another_kind_of_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<html>404: not found</html>" * 1000)
    with pytest.raises(WeightsError, match=r"page\.html"):
        plugins.load("recognizers", name)(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssetUnavailableError, match=r"no weights at .*nowhere"):
        plugins.load("recognizers", name)(tmp_path / "nowhere")


@pytest.mark.parametrize("tail", [b"\x01", b"\x01\x05con_4", b"\x01\x05relu_" + b"010" * 20])
def test_a_dlib_file_with_more_at_its_end_is_refused(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "long.dat"
    path.write_bytes(weights_of("dlib").read_bytes() + tail)
    with pytest.raises(WeightsError):
        type(build("dlib"))(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"\x01\x96\x01\x96", b"\x01\x95\x01\x96"), (b"max_pool_2", b"avg_pool_2")],
)
def test_a_dlib_file_of_another_network_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.dat"
    path.write_bytes(weights_of("dlib").read_bytes().replace(old, new, 1))
    with pytest.raises(WeightsError, match="other"):
        type(build("dlib"))(path)


def test_a_dlib_file_with_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    whole = bytearray(weights_of("dlib").read_bytes())
    whole[1000:1016] = b"\xff" * 16  # inside the first kernel; at least three NaN
    path = tmp_path / "nan.dat"
    path.write_bytes(bytes(whole))
    with pytest.raises(WeightsError, match="NaN"):
        type(build("dlib"))(path)


def test_an_sface_file_with_another_scaling_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(weights_of("sface")))
    scalar = next(i for i in model.graph.initializer if i.name == "scalar_op1")
    scalar.CopyFrom(numpy_helper.from_array(np.float32([0.0]), "scalar_op1"))
    path = tmp_path / "other.onnx"
    onnx.save(model, str(path))
    with pytest.raises(WeightsError, match="scales its input"):
        type(build("sface"))(path)


# The rest needs no weights.


def encoded(value: int) -> bytes:
    """dlib's integer: a byte of length and sign, then little-endian bytes."""
    body = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(body) | (0x80 if value < 0 else 0)]) + body


@given(st.integers(-(2**63), 2**63 - 1))
def test_dlib_integers_come_back(value: int) -> None:
    assert _Reader(encoded(value)).integer() == value


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_dlib_reals_come_back(value: float) -> None:
    mantissa, exponent = np.frexp(value)
    data = encoded(int(mantissa * 2**24)) + encoded(int(exponent) - 24)
    assert _Reader(data).real() == value


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_refused_as_a_dlib_file(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        _Reader(data).network()


@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_folding_changes_nothing(slope: bool, bias: bool) -> None:
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=bias), nn.BatchNorm2d(6), nn.PReLU(6))
    randomized(reference)
    state = {f"a.{key}": value for key, value in reference.state_dict().items()}
    state.pop("a.1.num_batches_tracked")
    if not slope:
        reference[2] = nn.Identity()
        state.pop("a.2.weight")
    folded = Conv(4, 6, 3, nn.PReLU(6) if slope else None, stride=2, padding=1)
    weights = Weights(Path("file"), state)
    load_convs(folded, weights, [Names("a.0", "a.1", "a.2" if slope else None)], epsilon=1e-5)
    weights.require_empty()
    images = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(folded(images), reference.eval()(images), rtol=1e-4, atol=1e-5)


def slopes(shape: tuple[int, ...]) -> tuple[nn.PReLU, PReLU, Tensor]:
    """Torch's activation, ours with the same slopes, and an input with zeros of both signs."""
    generator = torch.Generator().manual_seed(0)
    theirs, ours = nn.PReLU(shape[1]), PReLU(shape[1])
    nn.init.uniform_(theirs.weight, -1, 1, generator=generator)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, generator=generator)
    x.view(-1)[:2] = torch.tensor([0.0, -0.0])[: x.numel()]
    return theirs, ours, x


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 4, 5), (1, 1, 7, 1), (0, 3, 4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fast_gradient_is_torch_s_own(shape: tuple[int, ...], layout: Any) -> None:
    if layout == torch.channels_last and len(shape) != 4:
        pytest.skip("channels come last in images only")
    theirs, ours, x = slopes(shape)
    outputs, gradients = [], []
    for activation in (theirs, ours):
        leaf = x.clone(memory_format=layout).requires_grad_()
        outputs.append(activation(leaf))
        outputs[-1].backward(torch.linspace(-2, 2, x.numel()).reshape(shape))
        gradients.append((leaf.grad, activation.weight.grad))
    assert torch.equal(*outputs)
    (to_x, to_slope), (ours_to_x, ours_to_slope) = gradients
    assert torch.equal(to_x, ours_to_x)
    torch.testing.assert_close(ours_to_slope, to_slope)


def test_the_fast_gradient_is_the_limit_of_differences() -> None:
    _, ours, x = slopes((2, 3, 4, 4))
    x = (x + 0.1 * x.sign()).double()[:, :, 1:].requires_grad_()  # away from the kink
    ours = ours.double()

    def activated(x: Tensor, slope: Tensor) -> Tensor:
        return torch.func.functional_call(ours, {"weight": slope}, (x,))

    assert torch.autograd.gradcheck(activated, (x, ours.weight))
    assert torch.autograd.gradgradcheck(activated, (x, ours.weight))


def test_only_gradients_that_somebody_wants_are_made() -> None:
    _, ours, x = slopes((2, 3, 4, 4))
    ours.requires_grad_(False)(x.requires_grad_()).sum().backward()
    assert ours.weight.grad is None
    assert x.grad is not None
    ours.requires_grad_(True)(x.detach()).sum().backward()
    assert ours.weight.grad is not None


def randomized(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5 if name.endswith("var") else -1, 1)


def random_state(module: Any) -> dict[str, Tensor]:
    """A file of random weights with the names and shapes that a MobileFaceNet has."""
    convs = [layer for layer in module._network().modules() if isinstance(layer, Conv)]
    state: dict[str, Tensor] = {}
    for (conv, activation), names in zip(convs, module._names(), strict=True):
        state[f"{names.conv}.weight"] = (
            torch.randn_like(conv.weight) / conv.weight[0].numel() ** 0.5
        )
        norm = nn.BatchNorm2d(conv.out_channels).state_dict(prefix=f"{names.norm}.")
        state |= norm  # its counter of batches included, as in the real files
        if names.slope is not None:
            state[f"{names.slope}.weight"] = torch.rand_like(activation.weight)
    return state


MODULES = {MobileFaceNetMS1M: mobilefacenet_ms1m, MobileFaceNetCasia: mobilefacenet_casia}


@pytest.fixture(params=MODULES, ids=lambda c: c.name)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_mobilefacenet_of_random_weights_is_a_recognizer(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(random_state(MODULES[kind]), tmp_path / "random.pt")
    check_recognizer(kind(tmp_path / "random.pt"))


def drop(state: dict[str, Tensor]) -> None:
    state.pop(sorted(state)[5])


def add(state: dict[str, Tensor]) -> None:
    state["head.weight"] = torch.zeros(3)


def widen(state: dict[str, Tensor]) -> None:
    name = next(name for name in state if name.endswith("running_mean"))
    state[name] = state[name].repeat(2)


def spoil(state: dict[str, Tensor]) -> None:
    state[next(iter(state))].view(-1)[7] = torch.nan


def nest(state: dict[str, Any]) -> None:
    state["epoch"] = 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "no tensor '"),
        (add, "unexpected tensor 'head.weight'"),
        (widen, r"running_mean' has the shape \(128,\), not \(64,\)"),
        (spoil, "holds NaN"),
        (nest, "not a torch state dict"),
    ],
)
def test_a_state_dict_of_another_structure_is_refused(
    kind: Any, damage: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    state = random_state(MODULES[kind])
    damage(state)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=message):
        kind(tmp_path / "other.pt")


def test_one_mobilefacenet_refuses_the_file_of_the_other(tmp_path: Path) -> None:
    torch.save(random_state(mobilefacenet_casia), tmp_path / "casia.pt")
    with pytest.raises(WeightsError, match="no tensor"):
        MobileFaceNetMS1M(tmp_path / "casia.pt")


class Sneaky:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("sneaked"),)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.0.weight": Sneaky()}, tmp_path / "sneaky.pt")
    with pytest.raises(WeightsError, match="not a torch state dict"):
        MobileFaceNetMS1M(tmp_path / "sneaky.pt")
    assert not Path("sneaked").exists()


def quantised_model(block: int, axis: int) -> Any:
    """A graph that dequantises a (6, 8) constant in blocks and reshapes it to (8, 6)."""
    numbers = np.random.default_rng(0)
    length = [6, 8][axis] // block
    blocks = (length, 8) if axis == 0 else (6, length)
    constants = {
        "w_q": numbers.integers(-128, 128, (6, 8)).astype(np.int8),
        "w_s": numbers.random(blocks).astype(np.float32),
        "w_z": numbers.integers(-9, 9, blocks).astype(np.int8),
        "w_shape": np.array([8, 6]),
        "leftover": np.zeros(3, np.float32),
    }
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["w_q", "w_s", "w_z"], ["w_d"], axis=axis, block_size=block
        ),
        helper.make_node("Reshape", ["w_d", "w_shape"], ["w_r"]),
        helper.make_node("MatMul", ["data", "w_r"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [8, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(("block", "axis"), [(2, 0), (3, 0), (4, 1), (8, 1)])
def test_dequantised_blocks_equal_the_reference_evaluator(
    block: int, axis: int, tmp_path: Path
) -> None:
    model = quantised_model(block, axis)
    onnx.save(model, str(tmp_path / "q.onnx"))
    weights = read_onnx(tmp_path / "q.onnx", rename=str.upper)
    (theirs,) = ReferenceEvaluator(model).run(None, {"data": np.eye(8, dtype=np.float32)})
    torch.testing.assert_close(weights.take("W_R", (8, 6)), torch.from_numpy(theirs))
    weights.require_empty()
