"""Learned perceptual image patch similarity."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench import assets
from deidbench.errors import DeidbenchError
from deidbench.geometry import inner_face_box

from ._images import checked, checked_pair, require_size

if TYPE_CHECKING:
    from typing_extensions import Self

    Network = Literal["alex", "vgg", "squeeze"]

ASSETS = {"alex": "lpips-alexnet", "vgg": "lpips-vgg16", "squeeze": "lpips-squeezenet"}
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels that leave one for the last layer


class LPIPS:
    """Perceptual distance of each image to its treated version; 0: identical, the lower the better.

    LPIPS v0.1: features of a network trained on ImageNet, compared with weights fitted to human
    judgements (``alex``: the authors' choice for evaluation; ``vgg`` and ``squeeze`` are other
    scales, so their numbers carry other names). Zhang et al., CVPR 2018, arXiv 1801.03924.

    Args:
        net: the network.
        weights: its ImageNet weights, a torchvision state dict (.pth) or a pickle of numpy arrays
            (.ckpt); fetched by default.

    Raises:
        AssetUnavailableError: the weights cannot be had.
        DeidbenchError: the file holds other weights.
    """

    version = 1
    kind: Literal["image"] = "image"
    higher_is_better = False
    unit = "distance"

    def __init__(self, net: Network = "alex", weights: Path | None = None) -> None:
        self.name = "lpips" if net == "alex" else f"lpips-{net}"
        self._smallest = SMALLEST[net]
        self._model: Any = _model(net, assets.fetch(ASSETS[net]) if weights is None else weights)

    def to(self, device: Any) -> Self:
        """Move the network; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,) float32.

        Raises:
            DeidbenchError: the images are too small for the network, or not in [0, 1].
        """
        original, treated = checked_pair(self.name, original, treated)
        require_size(self.name, original, self._smallest)
        # The network was fitted to [-1, 1]: images in [0, 1] would give plausible, wrong numbers.
        distances: Tensor = self._model(2 * original - 1, 2 * treated - 1)
        return distances.flatten()

    @torch.no_grad()
    def features(self, chips: Tensor) -> Tensor:
        """What the network sees in an aligned face, for a classifier: (N, 3, S, S) -> (N, D).

        Its third layer over the inner face, each place scaled to length 1 as for LPIPS, averaged
        over a grid of 5 x 5, so that features take less room than chips. Layer and size were
        chosen by how well expressions are read, cross-validated over synthid's training people.

        Raises:
            DeidbenchError: the chips are not in [0, 1].
        """
        chips = checked(self.name, "given", chips)
        left, top, right, bottom = inner_face_box(chips.shape[-1])
        inner = F.interpolate(chips[..., top:bottom, left:right], (180, 160), mode="bilinear")
        layers = self._model.net(self._model.scaling_layer(2 * inner - 1))
        return F.adaptive_avg_pool2d(F.normalize(layers[2], dim=1), 5).flatten(1)


def _model(net: Network, weights: Path) -> torch.nn.Module:
    """The network of the lpips package, with its heads and the given features."""
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):  # nothing drawn at random, or filled
        for old in ("The parameter 'pretrained' is deprecated", "Arguments other than a weight"):
            warnings.filterwarnings("ignore", old, UserWarning)
        model: torch.nn.Module = lpips.LPIPS(
            net=net, pretrained=False, pnet_rand=True, verbose=False
        )
    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    state = torch.load(heads, map_location="cpu", weights_only=True)
    try:
        state |= _features(weights, [key for key in model.state_dict() if key.startswith("net.")])
        model.load_state_dict(state, strict=False, assign=True)  # "lins" are the heads once more
    except (KeyError, RuntimeError) as error:
        raise DeidbenchError(
            f"lpips: {weights.name} holds other weights than '{net}'; give those of torchvision."
        ) from error
    model.to(memory_format=torch.channels_last)  # a third faster on a CPU
    return model.requires_grad_(False).eval()


def _features(path: Path, keys: list[str]) -> dict[str, Tensor]:
    """Weights by the keys of lpips: ``net.slice2.3.weight`` is torchvision's ``features.3.weight``.

    A pickle numbers the convolutions in the same order, and its kernels are HWIO.
    """
    if path.suffix != ".ckpt":
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return {key: stored["features." + key.split(".", 2)[2]] for key in keys}
    networks: Any = assets.load_numpy_pickle(path)
    (layers,) = (layers for name, layers in networks.items() if not name.startswith("NetLin"))
    arrays = []
    for number in range(len(layers)):
        layer = layers[f"Conv_{number}"]
        arrays += [layer["kernel"].transpose(3, 2, 0, 1).copy(), layer["bias"]]
    return {key: torch.from_numpy(array) for key, array in zip(keys, arrays, strict=True)}
