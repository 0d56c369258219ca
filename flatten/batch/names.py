"""Names of outputs: a template such as ``OUT/{name}.tar.zst``, filled in."""

import os
import re
import string
from collections.abc import Mapping
from typing import Final

from ..errors import UsageError, quoted, shown
from ..sources.references import is_url

FIELDS: Final = ("name", "tag", "digest", "platform")
KEY_SUFFIX: Final = ".json"
_MAX_COMPONENT: Final = 200  # bytes; 255 less what temporary names add
_ENDINGS: Final = re.compile(r"\.(?:tar|oci|tgz|tbz2?|txz|tzst|gz|bz2|xz|zst)\Z")


class Template:
    """A template of output paths.

    Attributes:
        text: As it was written.
        fields: The fields that it uses.
    """

    def __init__(self, text: str) -> None:
        """Parse a template; ``{{`` and ``}}`` stand for braces.

        Raises:
            UsageError: It has another field, or a field with a format.
        """
        self.text = text
        self.fields: set[str] = set()
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UsageError(
                f"-o {quoted(text)}: not a valid template: {error}"
            ) from error
        for _, field, spec, conversion in parts:
            if field is None:
                continue
            if field not in FIELDS or spec or conversion:
                known = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise UsageError(
                    f"-o {quoted(text)}: {{{field}}} is not a field; the fields are "
                    f"{known}"
                )
            self.fields.add(field)

    def path(self, values: Mapping[str, str], where: str) -> str:
        """Return the path of an image's output.

        Args:
            values: The value of each field that the template uses. A slash in one
                becomes an underscore, so that no value adds a directory.
            where: The image, in messages.

        Raises:
            UsageError: A component would be ``.`` or ``..``, empty, not printable, or
                longer than a file system takes.
        """
        safe = {name: value.replace("/", "_") for name, value in values.items()}
        path = self.text.format_map(safe)
        for part, written in zip(path.split("/"), self.text.split("/"), strict=True):
            if "{" not in written:  # as the user wrote it, which may be ..
                continue
            if part in ("", ".", ".."):
                raise UsageError(
                    f"{shown(where)}: the output {quoted(path)} would leave its "
                    "directory"
                )
            if not part.isprintable() or len(os.fsencode(part)) > _MAX_COMPONENT:
                raise UsageError(
                    f"{shown(where)}: {quoted(part)} is not usable in the name of an "
                    f"output: more than {_MAX_COMPONENT} bytes, or not printable"
                )
        return path if is_url(path) else re.sub("//+", "/", path)


def key_path(output: str) -> str:
    """Return the path of the document beside an output that says it is complete.

    >>> key_path("out/app.tar.zst"), key_path("out/app/")
    ('out/app.tar.zst.json', 'out/app.json')
    """
    return output.removesuffix("/") + KEY_SUFFIX


def stem(path: str) -> str:
    """Return a file's name without the endings of archives and of compression.

    >>> stem("a/app-1.2.tar.gz"), stem("layout/")
    ('app-1.2', 'layout')
    """
    name = path.rstrip("/").rpartition("/")[2]
    while shorter := _ENDINGS.sub("", name):
        if shorter == name:
            break
        name = shorter
    return name


def split_name(name: str) -> tuple[str, str]:
    """Split an image's name into the part before its tag, and the tag.

    A name without a tag has the tag ``latest``, or the digest's first 12 digits.

    >>> split_name("library/alpine:3.20"), split_name("app")
    (('library/alpine', '3.20'), ('app', 'latest'))
    >>> split_name("app@sha256:" + "0123456789abcdef" * 4)
    ('app', '0123456789ab')
    """
    name, _, digest = name.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    tag = tag or digest.rpartition(":")[2][:12] or "latest"
    return head + slash + last, tag
