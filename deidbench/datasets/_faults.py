"""Images of public sets that are known to show another person than their folder says.

Such an image makes genuine pairs of two people and impostor pairs of one, and a few of them decide
the AUC of a good recognizer: one of the two below is in 14 of the 1,259 genuine pairs of a draw of
60 people, and takes sface from .9999 to .997.

An image is listed when all four recognizers of deidbench agree, over the 610 people with four or
more images: its median similarity to its own folder is below what 99.9 % of impostors reach, and
its median similarity to another folder is above that. Two of 4,631 images are of this kind; both
are reported by others as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from deidbench.types import Sample

FAULTS = {
    "Michael_Schumacher/Michael_Schumacher_0008": "LFW: it shows Rubens Barrichello",
    "Recep_Tayyip_Erdogan/Recep_Tayyip_Erdogan_0004": "LFW: it shows Abdullah Gul",
}
"""By sample id without its ending: copies in other formats keep the names."""


def mark_faults(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The same samples, with what is known to be wrong in their labels."""
    return tuple(
        replace(sample, fault=FAULTS.get(PurePosixPath(sample.id).with_suffix("").as_posix()))
        for sample in samples
    )
