"""XM2VTS, the still images, from a folder that you bought from the University of Surrey."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._scan import Named, first_matches, require_comparable, scan_named

GRAMMAR = re.compile(r"(?P<subject>\d{3})_(?P<session>[1-4])_(?P<light>[lr]?)(?P<shot>[12])")
LAYOUT = "XM2VTS, 003_1_2.ppm (subject, session, shot)"
LIGHTS = {"": "even", "l": "left", "r": "right"}


def _ids(*numbers: int) -> frozenset[str]:
    return frozenset(f"{number:03d}" for number in numbers)


# The Lausanne protocol: who is an impostor; the other 200 of the 295 people are clients.
EVALUATION_IMPOSTORS = _ids(
    0, 2, 7, 46, 57, 62, 83, 93, 104, 120, 143, 157, 158, 177, 187, 189, 203, 212, 215, 242, 276,
    284, 301, 314, 331,
)  # fmt: skip
TEST_IMPOSTORS = _ids(
    1, 8, 10, 11, 23, 28, 31, 39, 43, 44, 48, 59, 67, 70, 81, 86, 87, 88, 95, 96, 98, 107, 109, 111,
    114, 119, 127, 128, 130, 131, 134, 142, 147, 149, 153, 155, 160, 161, 170, 171, 172, 174, 175,
    176, 185, 190, 199, 200, 201, 202, 225, 226, 234, 241, 250, 263, 271, 272, 280, 283, 286, 300,
    313, 315, 317, 318, 323, 335, 341, 367,
)  # fmt: skip
CLIENTS = 200
TRAINING = {1: ("1_1", "2_1", "3_1"), 2: ("1_1", "1_2", "2_1", "2_2")}
"""The images, as session_shot, that stand for a client in each configuration."""
TEST_ACCESS = ("4_1", "4_2")
ALL_SHOTS = tuple(f"{session}_{shot}" for session in range(1, 5) for shot in (1, 2))


class XM2VTS:
    """Samples of ``xm2vts:<dir>``: 295 people in 4 sessions of 2 frontal shots each.

    Images are named ``<subject>_<session>_<shot>``, in whichever folders. Those of the darkened set
    (lit from one side) are named ``<subject>_4_l1``. Labels: session, shot and light ('even',
    'left' or 'right').

    The official pairs are the test part of the Lausanne protocol: each client's training images
    against their own two images of session 4, and against all 8 of the 70 test impostors.

    Args:
        configuration: of the Lausanne protocol, 1 or 2.
    Raises:
        DeidbenchError: no folder is given, or there is no such configuration; ``samples`` raises
            when an image is named otherwise, ``pairs`` when the set is not whole.

    Source: Messer et al. 1999, XM2VTSDB, AVBPA; protocol: Luettin & Maitre 1998, IDIAP-Com 98-05,
    the lists of people as in the package bob.db.xm2vts.
    """

    name = "xm2vts"
    version = 1
    synthetic = False

    def __init__(self, argument: str | None = None, configuration: int = 1) -> None:
        if not argument:
            raise DeidbenchError(f"xm2vts: where is it? Write xm2vts:<dir>, a folder of {LAYOUT}.")
        if configuration not in TRAINING:
            raise DeidbenchError(f"xm2vts: configuration is 1 or 2, but got {configuration}.")
        self.root = expanded(argument, "the dataset")
        self.configuration = configuration

    @classmethod
    def recognises(cls, path: Path) -> str | None:
        """Why the path looks like this dataset, or None."""
        return f"images are named as in {LAYOUT}" if first_matches(path, GRAMMAR) else None

    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by id, the path below the folder; subjects as ``xm2vts-003``."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """The test of the Lausanne protocol.

        Raises:
            DeidbenchError: images that it needs are missing.
        """
        by_name = {one.path.stem: one.id for one in self._found}
        clients = {one.fields["subject"] for one in self._found} - _IMPOSTORS
        training = TRAINING[self.configuration]
        missing = set(_needed(clients, training)) - by_name.keys()
        if missing or len(clients) != CLIENTS:
            raise DeidbenchError(
                f"{self.root}: the Lausanne protocol needs {CLIENTS} clients and {len(missing)} "
                f"more images of these {len(clients)} and the test impostors. Get the whole set, "
                "or compare all images that there are with --pairs cross."
            )
        return tuple(_test_pairs(sorted(clients), training, by_name))

    @cached_property
    def _found(self) -> list[Named]:
        return scan_named(self.root, GRAMMAR, LAYOUT)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        samples = tuple(_sample(one) for one in self._found)
        require_comparable(samples, self.root)
        return samples


_IMPOSTORS = EVALUATION_IMPOSTORS | TEST_IMPOSTORS


def _sample(image: Named) -> Sample:
    fields = image.fields
    labels = {
        "session": fields["session"],
        "shot": fields["shot"],
        "light": LIGHTS[fields["light"]],
    }
    return Sample(image.id, f"xm2vts-{fields['subject']}", image.path, labels)


def _needed(clients: set[str], training: Sequence[str]) -> Iterator[str]:
    yield from (f"{one}_{shot}" for one in clients for shot in (*training, *TEST_ACCESS))
    yield from (f"{one}_{shot}" for one in TEST_IMPOSTORS for shot in ALL_SHOTS)


def _test_pairs(
    clients: Sequence[str], training: Sequence[str], by_name: Mapping[str, str]
) -> Iterator[Pair]:
    strangers = [by_name[f"{one}_{shot}"] for one in sorted(TEST_IMPOSTORS) for shot in ALL_SHOTS]
    for client in clients:
        own = [by_name[f"{client}_{shot}"] for shot in TEST_ACCESS]
        for reference in (by_name[f"{client}_{shot}"] for shot in training):
            yield from (Pair(reference, probe, same=True) for probe in own)
            yield from (Pair(reference, probe, same=False) for probe in strangers)
