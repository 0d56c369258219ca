"""What became of a job, for people and for programs."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from .jobs import Job, Target

State = Literal["done", "unchanged", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one output.

    Attributes:
        reference: The reference, as in the list.
        state: ``done``; ``unchanged`` if it was done before; or ``failed``.
        digest: What the reference stands for; None if that could not be found.
        image: The image's id.
        layers: Number of layers.
        members: Number of entries in the output.
        output: The output's path or URL.
        bytes: The output's size; None for a directory.
        sha256: The output's digest in hex; None for a directory.
        root_hash: The root hash (hex) of its dm-verity hash tree; None without one.
        devices: The files that an EROFS index points at; None for other outputs.
        seconds: The time that it took, in the last attempt.
        bytes_fetched: Bytes received from registries and web servers.
        shared_bytes: Bytes of layers, uncompressed, that were read for another image.
        attempts: Number of attempts.
        exit_code: As of the command for one image.
        message: The error, or "".
        warnings: One sentence each.
        lost: Whether the process that did it was killed. It is not reported.
    """

    reference: str
    state: State = "failed"
    digest: str | None = None
    image: str | None = None
    layers: int | None = None
    members: int | None = None
    output: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    root_hash: str | None = None
    devices: tuple[str, ...] | None = None
    seconds: float = 0.0
    bytes_fetched: int = 0
    shared_bytes: int = 0
    attempts: int = 1
    exit_code: int = 0
    message: str = ""
    warnings: tuple[str, ...] = ()
    lost: bool = field(default=False, compare=False)

    def document(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        found = asdict(self)
        del found["lost"]
        return found

    @classmethod
    def unchanged(cls, target: Target, document: dict[str, Any]) -> "Result":
        """Return the result of an output that was done before, by its document."""
        known: dict[str, Any] = {name: document.get(name) for name in _RECORDED}
        return cls(
            reference=target.reference, state="unchanged", output=target.path, **known
        )


_RECORDED: Final = (
    "digest", "image", "layers", "members", "bytes", "sha256", "root_hash", "devices",
)  # fmt: skip


def failed(
    reference: str,
    error: Exception,
    exit_code: int = 1,
    *,
    digest: str | None = None,
    output: str | None = None,
) -> Result:
    """Return the result of an output that could not be made."""
    return Result(
        reference=reference,
        digest=digest,
        output=output,
        exit_code=exit_code,
        message=str(error),
    )


def lost(job: Job, error: Exception) -> list[Result]:
    """Return the results of a job whose process was killed."""
    return [
        replace(
            failed(target.reference, error, digest=job.digest, output=target.path),
            lost=True,
        )
        for target in job.targets
    ]


def again(result: Result, attempts: int) -> Result:
    """Return a result with the number of attempts that it took."""
    return replace(result, attempts=attempts)
