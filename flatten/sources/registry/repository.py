"""A repository of a registry, as the files of an OCI layout.

So what reads layouts reads registries too. Documents are fetched when they are read.
Layers are downloaded by four threads into spools, in the order in which they are
opened; their readers, which inflate them, follow behind. The last bytes of a blob are
held back until its digest is found right, so nobody reads a wrong blob to its end.
"""

import difflib
import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import FlattenError, FormatError, IntegrityError, SourceError, shown
from ...host.spools import Pool, Spool
from ...image.blob import WholeLayerNeededError
from ...image.image import Transfer
from ...options import Access
from ..documents import MAX_DOCUMENT, Documents, Files, blob_digest
from .client import Client, Refused
from .credentials import find_credentials
from .reference import Reference
from .settings import Endpoint, Registries

if TYPE_CHECKING:
    from ..remote import RemoteFile

CONNECTIONS: Final = 4
PART: Final = 1 << 12  # bytes that are fetched of a blob at least
_MAX_TAGS: Final = 1000  # looked at for the nearest one
_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPTED: Final = ", ".join(_TYPES)
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1"

T = TypeVar("T")


class Repository(Files):
    """An image of a registry, with the names of files that a layout would have.

    Attributes:
        name: The reference, for messages.
        pool: Keeps what is downloaded, and what it inflates to.
        documents: What was parsed.
        reference: What was asked for.
        root: ``sha256:<hex>`` of the manifest or index that it refers to.
        root_type: The media type of that.
    """

    def __init__(self, text: str, pool: Pool, access: Access) -> None:
        """Fetch the manifest or index that a reference names.

        Raises:
            UsageError: It is not a reference.
            SourceError: There is no such image, or it may not be read.
            IntegrityError: The document has another digest than the one asked for.
            FlattenError: No registry can be reached.
        """
        registries = Registries.read()
        self.reference = registries.resolve(text.removeprefix("//"))
        self.name = f"docker://{self.reference}"
        self.pool = pool
        self.documents = Documents()
        self._manifests: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        self._spools: dict[str, _Download] = {}
        self._parts: dict[str, RemoteFile] = {}
        self._by_parts = access.parts
        self._todo: deque[_Download] = deque()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._client, (self.root, self.root_type) = first_answer(
            self.reference,
            registries.endpoints(self.reference, access),
            access,
            self._root,
        )

    def transfer(self) -> Transfer:
        """Return how much was fetched of the image, and what its name refers to."""
        size = sum(map(len, self._manifests.values())) + sum(self._sizes.values())
        return Transfer(self._client.fetched, size, self.root)

    def close(self) -> None:
        """Stop the downloads."""
        self._closed = True
        with self._lock:
            waiting, threads = [*self._todo], [*self._threads]
            self._todo.clear()
        for download in waiting:
            download.finish(FlattenError(f"{self.name}: cancelled"))
        self._client.close()
        for thread in threads:
            thread.join()
        for file in self._parts.values():
            file.close()

    def descriptor(self) -> dict[str, Any]:
        """Return the descriptor of the manifest or index that was asked for."""
        size = len(self._manifests[self.root])
        found: dict[str, Any] = {"digest": self.root, "size": size}
        return found | (
            {"mediaType": self.root_type} if self.root_type in _TYPES else {}
        )

    # --- the files of a layout

    def __contains__(self, name: bytes) -> bool:
        """Return True for a blob: whether it is there, only fetching it tells."""
        return blob_digest(name.decode("utf-8", "replace")) is not None

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Fetch a document, whose digest the caller checks.

        Raises:
            FormatError: It is not there, or has more than ``limit`` bytes.
        """
        digest = self._digest(name, what)
        if digest in self._manifests:
            return self._manifests[digest]
        where = f"{self.name}, {what}"
        size = self._sizes.get(digest)
        try:
            if size is None:
                path = f"manifests/{digest}"
                data, _ = self._client.document(path, ACCEPTED, limit)
            elif size > limit:
                raise FormatError(f"{size:,} bytes, over {limit:,}", where=where)
            else:
                data = b"".join(self._client.blob(f"blobs/{digest}", size))
        except Refused as refused:
            raise self._missing(what, digest, refused) from refused
        if size is None:
            self._keep(digest, data)
        return data

    def open(self, name: str, what: str) -> Spool:
        """Return a blob, whose download starts as soon as a thread is free.

        Raises:
            FormatError: No manifest that was read lists it.
        """
        digest = self._digest(name, what)
        where = f"{self.name}, {what}"
        with self._lock:
            if digest not in self._sizes:
                raise FormatError(f"{digest} is in no manifest", where=where)
            if digest not in self._spools:
                found = _Download(self.pool, where, digest, self._sizes[digest])
                self._spools[digest] = found
                self._todo.append(found)
                if len(self._threads) < CONNECTIONS:
                    self._start_thread(where)
            return self._spools[digest]

    def open_parts(self, name: str, what: str) -> "RemoteFile | None":
        """Return a blob that is fetched as it is read; None if all of it is wanted."""
        if not self._by_parts:
            return None
        from ..remote import RemoteFile  # tempfile, seldom needed

        digest = self._digest(name, what)
        if digest not in self._parts:
            where = f"{self.name}, {what}"
            fetch = _Parts(self, digest, self._sizes[digest], what)
            self._parts[digest] = RemoteFile(fetch, where, PART)
        return self._parts[digest]

    def fetch_part(self, digest: str, start: int, stop: int, what: str) -> bytes:
        """Fetch a range of a blob.

        Raises:
            WholeLayerNeededError: The registry sends no ranges.
            FlattenError: It has no such blob, or cannot be reached.
        """
        path = f"blobs/{digest}"
        try:
            return self._client.part(path, self._sizes[digest], start, stop)
        except Refused as refused:
            if refused.status == 200:
                raise WholeLayerNeededError(f"{self.name}: {refused}") from refused
            raise self._missing(what, digest, refused) from refused

    def _digest(self, name: str, what: str) -> str:
        found = blob_digest(name)
        if found is None:
            raise FormatError(
                f"{shown(name)} is not a blob", where=f"{self.name}, {what}"
            )
        return found

    def _keep(self, digest: str, data: bytes) -> None:
        """Keep a manifest, and the sizes of the blobs that it lists."""
        self._manifests[digest] = data
        with suppress(ValueError, AttributeError, TypeError, KeyError, RecursionError):
            document = json.loads(data)  # it is checked when it is used
            for blob in (document["config"], *document["layers"]):
                self._sizes[blob["digest"]] = int(blob["size"])

    # --- finding the image

    def _root(self, client: Client) -> tuple[str, str]:
        """Fetch the manifest or index; return its digest and media type."""
        version = self.reference.version
        try:
            data, kind = client.document(f"manifests/{version}", ACCEPTED, MAX_DOCUMENT)
        except Refused as refused:
            raise self._no_image(client, refused) from refused
        if kind.startswith(_SCHEMA_1):
            raise FormatError(
                "a manifest of schema 1, of Docker before 1.10; push it again with a "
                "newer one", where=self.name,
            )  # fmt: skip
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        _compare(digest, self.reference.digest or digest, self.name)
        self._keep(digest, data)
        return digest, kind

    def _no_image(self, client: Client, refused: Refused) -> FlattenError:
        """Return the error for an image that the registry does not give."""
        if refused.status in (401, 403):
            host = self.reference.host
            return SourceError(
                f"{self.name}: unauthorized ({refused}); it is private or does not "
                f"exist: log in with podman login {host} or docker login {host}, or "
                "name a file of credentials with --authfile"
            )
        if refused.status != 404:
            return FlattenError(f"{self.name}: {refused}")
        tags = self._tags(client)
        if tags is None:
            return SourceError(f"{self.name}: no such repository ({refused})")
        near = (
            difflib.get_close_matches(self.reference.tag or "", tags, 5, 0.3)
            or tags[:5]
        )
        listed = f"; it has {', '.join(map(shown, near))}" if near else ""
        more = f" and {len(tags) - len(near):,} more" if len(tags) > len(near) else ""
        what = f"digest {self.reference.digest}" if self.reference.digest else "tag"
        return SourceError(f"{self.name}: no such {what}{listed}{more}")

    @staticmethod
    def _tags(client: Client) -> list[str] | None:
        """Return the repository's tags, the first thousand; None if there is none."""
        try:
            body, _ = client.document(
                f"tags/list?n={_MAX_TAGS}", "application/json", MAX_DOCUMENT
            )
            tags = json.loads(body)["tags"]
            return [tag for tag in tags or () if isinstance(tag, str)]
        except (Refused, FlattenError, ValueError, KeyError, TypeError, RecursionError):
            return None  # this is only for a hint

    # --- downloads

    def _start_thread(self, where: str) -> None:
        thread = threading.Thread(target=self._run, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise FlattenError(f"{where}: cannot download: {error}") from error
        self._threads.append(thread)

    def _run(self) -> None:
        """Download one blob after another, in the order in which they were opened."""
        while True:
            with self._lock:
                if not self._todo or self._closed:
                    self._threads.remove(threading.current_thread())
                    return
                download = self._todo.popleft()
            try:
                download.fill(self._client)
            except Refused as refused:
                download.finish(self._missing("layer", download.promised, refused))
            except FlattenError as error:
                download.finish(error)
            except BaseException as error:
                why = f"{download.where}: cannot download: {error!r}"
                download.finish(FlattenError(why))
            else:
                download.finish()

    def _missing(self, what: str, digest: str, refused: Refused) -> FlattenError:
        if refused.status == 404:
            reason = f"the registry has no {digest}"
            return FormatError(reason, where=f"{self.name}, {what}")
        return FlattenError(f"{self.name}, {what} {digest}: {refused}")


class _Parts:
    """Ranges of a blob.

    Attributes:
        size: The size of the blob.
    """

    def __init__(
        self, repository: Repository, digest: str, size: int, what: str
    ) -> None:
        self.size = size
        self._repository = repository
        self._digest = digest
        self._what = what

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range."""
        return self._repository.fetch_part(self._digest, start, stop, self._what)


def first_answer(
    reference: Reference,
    endpoints: list[Endpoint],
    access: Access,
    ask: Callable[[Client], T],
) -> tuple[Client, T]:
    """Ask one endpoint after another; return the first that answers, and the answer.

    Raises:
        FlattenError: No endpoint answers; it is the error of the first one, or of the
            registry itself if the image is not there.
    """
    failure: FlattenError | None = None
    for endpoint in endpoints:
        credentials = partial(
            find_credentials, endpoint.registry, endpoint.repository, access.authfile
        )
        client = Client(endpoint, f"docker://{reference}", credentials, access.waiting)
        try:
            return client, ask(client)
        except FlattenError as error:
            client.close()
            failure = failure or error
            if endpoint is endpoints[-1] and isinstance(error, SourceError):
                failure = error
    assert failure is not None, "there is at least the registry itself"
    raise failure


class _Download(Spool):
    """A blob that is being downloaded; its size is known before.

    Attributes:
        promised: Its digest.
    """

    def __init__(self, pool: Pool, where: str, promised: str, size: int) -> None:
        algorithm = promised.partition(":")[0]
        super().__init__(pool.scratch, where, hashed=algorithm == "sha256")
        self.promised = promised
        self._size = size

    def size(self) -> int:
        """Return the size that the manifest says, which is the one downloaded."""
        return self._size

    def is_here(self) -> bool:
        """Return True if the download is complete."""
        return self._done

    def digest(self) -> str:
        """Wait for the end, and return the SHA-256, which was checked."""
        super().size()
        return super().digest()

    def fill(self, client: Client) -> None:
        """Download all bytes; the last ones appear only if the digest is right."""
        digest = self._hash or hashlib.new(self.promised.partition(":")[0])
        last = b""
        for chunk in client.blob(f"blobs/{self.promised}", self._size):
            digest.update(chunk)
            if last:
                self.append(last)
            last = chunk
        _compare(f"{digest.name}:{digest.hexdigest()}", self.promised, self.where)
        if last:
            self.append(last)


def _compare(found: str, expected: str, where: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"{where}: digest mismatch: expected {expected}, found {found}"
        )
