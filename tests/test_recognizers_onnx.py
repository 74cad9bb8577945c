"""Anybody's network through onnxruntime, against onnxruntime itself."""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from deidbench import plugins
from deidbench.errors import DeidbenchError
from deidbench.geometry import ARC112, align, chip_template
from deidbench.recognizers.mobilefacenet_casia import MobileFaceNetCasia
from deidbench.recognizers.mobilefacenet_ms1m import MobileFaceNetMS1M
from deidbench.recognizers.onnx import Onnx, read_sidecar
from deidbench.testing import BrokenPromiseError, check_recognizer

DESCRIPTION = {
    "width": 32, "height": 32, "colour": "rgb", "mean": 127.5, "scale": 128.0,
    "layout": "nchw", "template": "arc112", "similarity": "cosine",
}  # fmt: skip


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def save_network(
    path: Path,
    *,
    batch: int | str | None = "n",
    sides: tuple[int | None, int | None] = (32, 32),
    layout: str = "nchw",
    extra_output: bool = False,
    outer: float = 1.0,
) -> Path:
    """A strided convolution, a mean over the image and a linear layer: 16 numbers a face."""
    height, width = sides
    shape = [batch, 3, height, width] if layout == "nchw" else [batch, height, width, 3]
    first = "image"
    nodes = []
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", ["image"], ["chw"], perm=[0, 3, 1, 2]))
        first = "chw"
    nodes += [
        helper.make_node("Conv", [first, "kernel"], ["maps"], strides=[4, 4]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["small"]),
        helper.make_node("Mul", ["small", "outer"], ["embedding"]),
    ]
    names = ["embedding", "flat"] if extra_output else ["embedding"]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, None]) for name in names],
        [
            numpy_helper.from_array(weights(8, 3, 4, 4), "kernel"),
            numpy_helper.from_array(weights(8, 16, seed=1), "matrix"),
            numpy_helper.from_array(np.float32(outer), "outer"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def describe(path: Path, **changes: Any) -> Path:
    """Write the TOML file; a change to None leaves the entry out."""
    entries = {name: value for name, value in (DESCRIPTION | changes).items() if value is not None}
    path.write_text("".join(f"{name} = {toml(value)}\n" for name, value in entries.items()))
    return path


def toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = save_network(tmp_path / "mine.onnx")
    describe(tmp_path / "mine.onnx.toml")
    return path


def faces(count: int = 5) -> tuple[Tensor, Tensor]:
    chips = torch.rand(count, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    return chips, chip_template().expand(count, 5, 2)


def plain(path: Path, images: Tensor) -> Tensor:
    """onnxruntime as its manual shows it, one image at a time."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: image[None].numpy()})[0] for image in images]
    return torch.from_numpy(np.concatenate(rows))


def test_a_network_of_ones_own_keeps_the_contract(file: Path) -> None:
    recognizer = plugins.build("recognizers", f"onnx:{file}")
    check_recognizer(recognizer)
    assert recognizer.name == "onnx:mine"
    assert (recognizer.similarity, recognizer.differentiable) == ("cosine", False)
    assert not recognizer.by_default and recognizer.needs_argument


@pytest.mark.parametrize("batch", ["n", None, 1])
@pytest.mark.parametrize("sides", [(32, 32), (None, None)])
def test_embeddings_equal_plain_onnxruntime(
    tmp_path: Path, batch: int | str | None, sides: tuple[int | None, int | None]
) -> None:
    path = save_network(tmp_path / "mine.onnx", batch=batch, sides=sides)
    describe(tmp_path / "mine.onnx.toml")
    chips, landmarks = faces()
    crops = align(chips, landmarks, (ARC112 + 0.5) * 32 / 112 - 0.5, 32)
    theirs = plain(path, (crops * 255 - 127.5) / 128)
    ours = Onnx(str(path)).embed(chips, landmarks)
    assert ours.shape == (5, 16) and ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_colours_layout_and_a_crop_that_is_not_square(tmp_path: Path, layout: str) -> None:
    path = save_network(tmp_path / "mine.onnx", sides=(40, 32), layout=layout)
    points = [[8, 15], [24, 15.5], [16, 20], [10, 28], [22, 28]]
    mean, scale = [10.0, 20.0, 30.0], [50.0, 60.0, 70.0]
    describe(
        tmp_path / "mine.onnx.toml",
        height=40, colour="bgr", mean=mean, scale=scale, layout=layout, template=points,
        similarity="negative-euclidean",
    )  # fmt: skip
    chips, landmarks = faces()
    crops = align(chips, landmarks, torch.tensor(points), 64)[..., :40, :32].flip(1) * 255
    ready = (crops - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(scale).reshape(3, 1, 1)
    ready = ready if layout == "nchw" else ready.permute(0, 2, 3, 1).contiguous()
    recognizer = Onnx(str(path))
    torch.testing.assert_close(
        recognizer.embed(chips, landmarks), plain(path, ready), rtol=0, atol=1e-6
    )
    assert recognizer.similarity == "negative-euclidean"


def test_the_output_can_be_chosen_by_name(tmp_path: Path) -> None:
    path = save_network(tmp_path / "mine.onnx", extra_output=True)
    describe(tmp_path / "mine.onnx.toml")
    with pytest.raises(DeidbenchError, match="several outputs; write output = one of embedding, f"):
        Onnx(str(path))
    describe(tmp_path / "mine.onnx.toml", input="image", output="flat")
    assert Onnx(str(path)).embed(*faces(2)).shape == (2, 8)
    describe(tmp_path / "mine.onnx.toml", input="photo", output="flat")
    with pytest.raises(DeidbenchError, match="no input 'photo'; write input = one of image"):
        Onnx(str(path))


def test_the_description_may_share_the_stem(tmp_path: Path) -> None:
    path = save_network(tmp_path / "mine.onnx")
    describe(tmp_path / "mine.toml")
    assert Onnx(str(path)).similarity == "cosine"
    describe(tmp_path / "mine.onnx.toml", similarity="negative-euclidean")  # the nearer one
    assert Onnx(str(path)).similarity == "negative-euclidean"


def test_the_hash_is_of_both_files(tmp_path: Path, file: Path) -> None:
    hashes = [Onnx(str(file)).weights_sha256, Onnx(str(file)).weights_sha256]
    describe(tmp_path / "mine.onnx.toml", mean=127.0)
    hashes.append(Onnx(str(file)).weights_sha256)
    save_network(file, outer=2.0)
    hashes.append(Onnx(str(file)).weights_sha256)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    both = (file, tmp_path / "mine.onnx.toml")
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in both]
    assert hashes[-1] == hashlib.sha256(" ".join(parts).encode()).hexdigest()


def test_what_is_not_finite_stays_so(tmp_path: Path) -> None:
    path = save_network(tmp_path / "mine.onnx", outer=float("nan"))
    describe(tmp_path / "mine.onnx.toml")
    assert bool(Onnx(str(path)).embed(*faces(2)).isnan().all())
    with pytest.raises(BrokenPromiseError, match="finite"):
        check_recognizer(Onnx(str(path)))


def test_it_computes_with_the_threads_of_torch(file: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            session = Onnx(str(file)).network[1]._session
            assert session.get_session_options().intra_op_num_threads == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("batch", ["n", 1])
def test_no_faces_have_no_embeddings(file: Path, batch: int | str) -> None:
    save_network(file, batch=batch)
    none = Onnx(str(file)).embed(torch.zeros(0, 3, 160, 160), torch.zeros(0, 5, 2))
    assert none.shape == (0, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": None}, "width is missing"),
        ({"width": 4}, "width: expected pixels from 8 to 2048, but got 4"),
        ({"height": "tall"}, "height: expected pixels from 8 to 2048, but got 'tall'"),
        ({"colour": "grey"}, "colour: expected rgb or bgr, but got 'grey'"),
        ({"color": "rgb"}, "color is not known; there are width, height, colour"),
        ({"mean": [1, 2]}, "mean: expected a number or three, but got [1, 2]"),
        ({"mean": math.nan}, "mean: expected a number or three, but got nan"),
        ({"scale": 0}, "scale: expected a number above 0 or three, but got 0"),
        ({"scale": [1, 1, -1]}, "scale: expected a number above 0 or three, but got [1, 1, -1]"),
        ({"layout": "chw"}, "layout: expected nchw or nhwc, but got 'chw'"),
        ({"template": "arc"}, "template: expected arc112 or five points [x, y], but got 'arc'"),
        ({"template": [[1, 2]] * 4}, "template: expected arc112 or five points [x, y], but got [["),
        ({"template": [[1, 2, 3]] * 5}, "template: expected arc112 or five points [x, y]"),
        ({"similarity": "dot"}, "similarity: expected cosine or negative-euclidean or"),
        ({"input": 3}, "input: expected a name, but got 3"),
        ({"height": 40}, "template arc112 is square, but the crop is 32 x 40; write five points"),
        ({"width": 4, "colour": None}, "from 8 to 2048, but got 4; colour is missing"),
    ],
)  # fmt: skip
def test_each_wrong_entry_is_told_in_one_line(
    tmp_path: Path, file: Path, changes: dict[str, Any], message: str
) -> None:
    describe(tmp_path / "mine.onnx.toml", **changes)
    with pytest.raises(DeidbenchError, match=re.escape(message)) as caught:
        Onnx(str(file))
    assert str(caught.value).startswith("mine.onnx.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["width = ", "a = 1\na = 2", "\x00", "é".encode("latin-1")])
def test_what_is_no_toml_is_told(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DeidbenchError, match=r"mine\.toml cannot be read as TOML") as caught:
        read_sidecar(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", [None, ""])
def test_a_file_must_be_named(argument: str | None) -> None:
    with pytest.raises(DeidbenchError, match="Write onnx:FILE"):
        Onnx(argument)


def test_a_missing_file_or_description_is_named(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DeidbenchError, match=r"there is no file .*nowhere"):
        Onnx(str(tmp_path / "nowhere.onnx"))
    (tmp_path / "mine.onnx.toml").unlink()
    with pytest.raises(DeidbenchError, match=r"Write mine\.onnx\.toml beside it"):
        Onnx(str(file))


@pytest.mark.parametrize("cut", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(file: Path, cut: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(DeidbenchError, match=r"mine\.onnx cannot be used: ") as caught:
        Onnx(str(file))
    assert "\n" not in str(caught.value)


def test_another_kind_of_file_is_refused(file: Path) -> None:
    file.write_text("<html>404: not found</html>" * 100)
    with pytest.raises(DeidbenchError, match=r"mine\.onnx cannot be used: it is not a whole ONNX"):
        Onnx(str(file))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"batch": 4}, "it wants 4 images at once; export it for one, or for any number"),
        ({"sides": (48, 48)}, "the description says nchw of [3, 32, 32]"),
        ({"layout": "nhwc"}, "the description says nchw of [3, 32, 32]"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    file: Path, network: dict[str, Any], message: str
) -> None:
    save_network(file, **network)
    with pytest.raises(DeidbenchError, match=re.escape(message)):
        Onnx(str(file))


def one_node(path: Path, kind: int, shape: list[Any], op: str = "Identity") -> None:
    graph = helper.make_graph(
        [helper.make_node(op, ["image"], ["out"])],
        "one",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("out", kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (TensorProto.UINT8, ["n", 3, 32, 32], "expected float32 images"),
        (TensorProto.FLOAT, ["n", 3072], "expected an input of 4 axes"),
    ],
)
def test_another_kind_of_input_is_refused(
    file: Path, kind: int, shape: list[Any], message: str
) -> None:
    one_node(file, kind, shape)
    with pytest.raises(DeidbenchError, match=message):
        Onnx(str(file))


def test_one_answer_for_all_faces_is_refused(file: Path) -> None:
    one_node(file, TensorProto.FLOAT, ["n", 3, 32, 32], op="ReduceSum")
    with pytest.raises(DeidbenchError, match=r"expected 2 embeddings, but got \(1, 1, 1, 1\)"):
        Onnx(str(file)).embed(*faces(2))


def test_a_network_that_fails_at_work_is_told_in_one_line(file: Path, tmp_path: Path) -> None:
    save_network(file, sides=(None, None))
    model = onnx.load(str(file))
    kernel = next(i for i in model.graph.initializer if i.name == "matrix")
    kernel.CopyFrom(numpy_helper.from_array(weights(9, 16), "matrix"))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(model, str(file))
    with pytest.raises(DeidbenchError, match=r"mine\.onnx cannot be used: ") as caught:
        Onnx(str(file)).embed(*faces(2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", [False, True], ids=["initializer", "constant"])
def test_weights_in_other_files_are_refused(file: Path, tmp_path: Path, inside: bool) -> None:
    """They would escape the hash, and their place may be any path."""
    model = onnx.load(str(file))
    matrix = next(i for i in model.graph.initializer if i.name == "matrix")
    (tmp_path / "matrix.bin").write_bytes(matrix.raw_data)
    onnx.external_data_helper.set_external_data(matrix, "matrix.bin")
    matrix.ClearField("raw_data")
    if inside:
        node = helper.make_node("Constant", [], ["matrix"], value=matrix)
        model.graph.initializer.remove(matrix)
        model.graph.node.insert(0, node)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(DeidbenchError, match="keeps weights in other files; save it as one file"):
        Onnx(str(file))


@pytest.mark.real
@pytest.mark.parametrize(
    ("kind", "folder", "mean", "scale"),
    [
        (MobileFaceNetCasia, "mobilefacenet_bubbliiiing", 127.5, 127.5),
        (
            MobileFaceNetMS1M,
            "mobilefacenet_foamliu",
            [0.485 * 255, 0.456 * 255, 0.406 * 255],
            [0.229 * 255, 0.224 * 255, 0.225 * 255],
        ),
    ],
)
def test_the_mobilefacenets_give_the_embeddings_of_our_ports(
    tmp_path: Path, kind: Any, folder: str, mean: Any, scale: Any
) -> None:
    root = os.environ.get("DEIDBENCH_TEST_ASSETS")
    if not root or not Path(root).is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder of real weights")
    theirs = next(Path(root, "weights", folder).glob("*.onnx"))
    path = tmp_path / theirs.name
    path.write_bytes(theirs.read_bytes())
    describe(path.with_suffix(".toml"), width=112, height=112, mean=mean, scale=scale)
    port = kind(next(Path(root, "weights", folder).glob("*.pt*")))
    ours, ported = Onnx(str(path)).embed(*faces(4)), port.embed(*faces(4))
    assert float((ours - ported).norm(dim=1).max() / ported.norm(dim=1).min()) < 1e-5
