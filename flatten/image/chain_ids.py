"""Chain ids: digests that identify a layer together with all layers below it.

Reference: OCI image-spec, config.md, "Layer ChainID".
"""

import hashlib
from collections.abc import Iterator, Sequence

from .image import Layer


def chain_ids(promised: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the chain id (hex) and the diff_id of each layer, oldest first.

    Docker and containerd identify a layer and the layers below it by its chain id.
    """
    chain = ""
    for diff_id in promised:
        text = f"{chain} {diff_id}".encode()
        chain = f"sha256:{hashlib.sha256(text).hexdigest()}" if chain else diff_id
        yield chain.removeprefix("sha256:"), diff_id


def layer_chains(layers: Sequence[Layer]) -> list[str | None]:
    """Return each layer's chain id, or None from the first unknown diff_id on."""
    known: list[str] = []
    for layer in layers:
        if layer.diff_id is None:
            break
        known.append(layer.diff_id)
    found: list[str | None] = [f"sha256:{chain_id}" for chain_id, _ in chain_ids(known)]
    return found + [None] * (len(layers) - len(found))
