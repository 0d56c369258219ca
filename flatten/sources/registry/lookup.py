"""Questions about a repository that need no image: a tag's digest, and the tags."""

import json
import re
from collections.abc import Iterator
from typing import Final

from ...errors import FlattenError, FormatError, SourceError
from ...host.limits import Limits
from ...host.spools import Pool
from ...options import Access
from ..documents import MAX_DOCUMENT
from .client import Client, Refused
from .repository import ACCEPTED, Repository, first_answer
from .settings import Registries

_PAGE: Final = 1000  # tags asked for at once
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def find_digest(text: str, access: Access) -> str:
    """Return the digest that a reference stands for now.

    It is asked for by HEAD, which Docker Hub does not count as a pull. Where that gives
    no digest, the manifest or index is fetched. A digest in the reference is returned.

    Raises:
        UsageError: The reference is not valid.
        SourceError: There is no such image, or it may not be read.
        FlattenError: No registry can be reached.
    """
    registries = Registries.read()
    reference = registries.resolve(text.removeprefix("//"))
    if reference.digest is not None:
        return reference.digest

    def ask(client: Client) -> str | None:
        try:
            return client.digest(f"manifests/{reference.version}", ACCEPTED)
        except Refused:  # the answer to GET has the reason
            return None

    endpoints = registries.endpoints(reference, access)
    client, digest = first_answer(reference, endpoints, access, ask)
    client.close()
    if digest is not None and _DIGEST.fullmatch(digest):
        return digest
    pool = Pool(Limits(memory=0))
    try:
        repository = Repository(text, pool, access)
        repository.close()
    finally:
        pool.close()
    return repository.root


def list_tags(text: str, access: Access) -> Iterator[str]:
    """Yield the tags of a repository, in the registry's order.

    Args:
        text: A reference; its tag is ignored.
        access: How to reach the registry.

    Raises:
        SourceError: There is no such repository, or it may not be read.
        FormatError: The list is not one of tags.
        FlattenError: No registry can be reached.
    """
    registries = Registries.read()
    reference = registries.resolve(text.removeprefix("//"))
    where = f"docker://{reference.host}/{reference.repository}"

    def ask(client: Client) -> tuple[bytes, str | None]:
        try:
            return client.page(f"tags/list?n={_PAGE}", MAX_DOCUMENT)
        except Refused as refused:
            raise SourceError(f"{where}: cannot list the tags: {refused}") from refused

    endpoints = registries.endpoints(reference, access)
    client, (body, after) = first_answer(reference, endpoints, access, ask)
    try:
        yield from _tags(body, where)
        while after is not None:
            body, after = client.page(after, MAX_DOCUMENT)
            yield from _tags(body, where)
    except Refused as refused:
        raise FlattenError(f"{where}: cannot list the tags: {refused}") from refused
    finally:
        client.close()


def _tags(body: bytes, where: str) -> list[str]:
    try:
        tags = json.loads(body)["tags"] or []
        return [tag for tag in tags if isinstance(tag, str)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(
            "the list of tags is not a JSON list of strings", where=where
        ) from error
