"""The data type of a case, and the authorities that cases cite."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..images import Layer, Words
from ..trees import Expected

_LAYER = "OCI image-spec, layer.md: "
WHITEOUTS = _LAYER + "Whiteouts"
OPAQUE = _LAYER + "Opaque Whiteout"
EXISTING = _LAYER + "Changeset over existing files"
APPLYING = _LAYER + "Applying Changesets"
ATTRIBUTES = _LAYER + "File Attributes"
FILE_TYPES = _LAYER + "File Types"
HARD_LINKS = _LAYER + "Hardlinks"
FORMAT = _LAYER + "Distributable Format"
MEDIA_TYPES = "OCI image-spec, layer.md: +gzip and +zstd Media Types"
VERIFICATION = "OCI image-spec, descriptor.md: Verification"
DIFF_IDS = "OCI image-spec, config.md: rootfs"
USTAR = "POSIX.1-2017, pax: ustar Interchange Format"
PAX = "POSIX.1-2017, pax: pax Interchange Format"
GNU = "GNU tar manual: Basic Tar Format"
GNU_SPARSE = "GNU tar manual: Storing Sparse Files"
EXTRACTION = "POSIX.1-2017, pathname resolution, as tar -x does"
ENGINES = "docker (vfs), podman (vfs) and umoci, which agree"
AUFS = "docker's archive package: names that start with .wh..wh. are AUFS metadata"
OVERLAY = "Linux, overlayfs.rst: extended attributes of the overlay itself"
UMOCI_CVE = "CVE-2021-29136 (umoci: a root that is a symlink)"
TAR_CVE = "CVE-2025-62518 (astral-tokio-tar: the PAX size)"
ESCAPE_CVE = "CVE-2019-14271, CVE-2018-15664 and others: paths that leave the root"


class Refused:
    """The expectation that a tool ends with an error."""


REFUSED = Refused()
Outcome = Expected | Refused


@dataclass(frozen=True)
class Case:
    """A small image, and the tree that it must become.

    Attributes:
        rule: The number of the rule in flatten's docs/semantics.md.
        name: The rule as a sentence about this image.
        source: The authority that published the rule.
        layers: The layers, oldest first.
        outcomes: Every outcome that is right; more than one if the authority leaves
            the outcome open.
        forms: The forms of an image that can hold this one.
    """

    rule: int
    name: str
    source: str
    layers: Sequence[Words | Layer]
    outcomes: tuple[Outcome, ...]
    forms: tuple[str, ...] = ("docker-archive", "oci")

    @property
    def id(self) -> str:
        """The rule's number and the name: what ``--only`` searches."""
        return f"{self.rule} {self.name}"


def case(
    rule: int,
    name: str,
    source: str,
    layers: Sequence[Words | Layer],
    *outcomes: Outcome,
    forms: tuple[str, ...] = ("docker-archive", "oci"),
) -> Case:
    """Return a case; with several outcomes it is one that is open."""
    return Case(rule, name, source, layers, outcomes, forms)
