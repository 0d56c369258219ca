"""The layers that BuildKit's cache needs, in docker's data root.

==============================  ===================================================
``buildkit/snapshots.db``       a bucket for each snapshot, named by its key
``committed``                   the layer's directory; if absent, it is the key itself
``chainid``                     the layer's chain id, once it is in ``layerdb``
``buildkit/containerdmeta.db``  leases, which hold snapshots by their keys; the key of
                                an image's layer is its chain id
==============================  ===================================================

With the containerd image store, the cache is in containerd's metadata instead.

Reference: moby builder/builder-next/adapters/snapshot/snapshot.go at v28.5.
"""

from dataclasses import dataclass
from typing import Final

from ..documents import DIGEST
from .bolt import Bucket
from .containerd_metadata import decode, find_needed, read_database
from .root import Root

_SNAPSHOTS: Final = "buildkit/snapshots.db"
_LEASES: Final = "buildkit/containerdmeta.db"


@dataclass(frozen=True, slots=True)
class BuildCache:
    """The layers that the build cache needs.

    Attributes:
        cache_ids: Names of layers' directories.
        chain_ids: ``sha256:<hex>`` of layers in ``layerdb``.
    """

    cache_ids: frozenset[str]
    chain_ids: frozenset[str]


def read_build_cache(root: Root) -> BuildCache:
    """Return the layers that a data root's build cache needs; none if it has no cache.

    Raises:
        FormatError: A database is malformed.
    """
    cache_ids: set[str] = set()
    keys: set[str] = set()
    if _SNAPSHOTS.encode() in root:
        for key, snapshot in read_database(root, _SNAPSHOTS, _snapshots).items():
            cache_ids.add(snapshot.get("committed", key))
            keys |= {key, snapshot.get("chainid", "")}
    if _LEASES.encode() in root:
        needed = read_database(root, _LEASES, find_needed)
        keys |= {key for _, _, key in needed.snapshots}
    chain_ids = frozenset(filter(DIGEST.fullmatch, keys))
    return BuildCache(frozenset(cache_ids), chain_ids)


def _snapshots(top: Bucket) -> dict[str, dict[str, str]]:
    return {
        decode(key): {decode(k): decode(v) for k, v in bucket.values().items()}
        for key, bucket in top.buckets().items()
    }
