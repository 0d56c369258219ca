"""What the user says about reaching registries and web servers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach registries and web servers.

    Attributes:
        authfile: A file of credentials, which is read instead of those of podman and
            docker.
        cacert: A PEM file of certificate authorities to trust as well.
        insecure: Allow plain HTTP, and TLS certificates that cannot be verified.
    """

    authfile: str | None = None
    cacert: str | None = None
    insecure: bool = False
