"""Files that live outside the package, weights mostly: found, downloaded, checked by hash.

Nothing else in deidbench downloads. Environment: DEIDBENCH_HOME moves the cache,
DEIDBENCH_MIRROR names a folder that is searched first, DEIDBENCH_OFFLINE=1 forbids the network.
"""

from __future__ import annotations

from .download import sha256_of
from .registry import Asset, Source, registry
from .store import (
    AssetStatus,
    fetch,
    fetch_asset,
    find,
    hash_note,
    home,
    is_here,
    needed_by,
    status,
    verify,
    weights,
)
from .unpickle import load_numpy_pickle

__all__ = [
    "Asset",
    "AssetStatus",
    "Source",
    "fetch",
    "fetch_asset",
    "find",
    "hash_note",
    "home",
    "is_here",
    "load_numpy_pickle",
    "needed_by",
    "registry",
    "sha256_of",
    "status",
    "verify",
    "weights",
]
