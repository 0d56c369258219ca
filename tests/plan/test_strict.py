"""``--strict``: what it refuses, what it lets pass."""

import pytest

import flatten
from builders import docker_archive, layer, member
from flatten.plan.strict import SETUID

CAPABILITY = {b"SCHILY.xattr.security.capability": b"\1\0\0\2"}

REFUSED = {
    "a device": (member("dev/null", type=b"3", device=(1, 3)), "'dev/null' is a device"),
    "a disk": (member("sda", type=b"4", device=(8, 0)), "'sda' is a device"),
    "a setuid file": (member("opt/su", mode=0o4755), "'opt/su' is setuid"),
    "a setgid file": (member("opt/x", mode=0o2755), "'opt/x' is setuid or setgid"),
    "capabilities": (member("opt/x", records=CAPABILITY), "or has capabilities"),
    "a name with a line end": (member(b"a\nb"), "has control characters"),
    "a directory with an escape": (member(b"a\x1b[2J/", type=b"5"), "control characters"),
    "a target with a DEL": (member("s", type=b"2", target=b"a\x7f"), "control characters"),
    "a link out of the root": (
        member("a/s", type=b"2", target="../../etc"), "leaves the root, to '../../etc'",
    ),
    "a link that climbs through a link to the same directory": (
        [member("d/", type=b"5"), member("d/same", type=b"2", target="."),
         member("d/s", type=b"2", target="same/../..")], "leaves the root",
    ),
    "a link that climbs through links that descend": (
        [member("a/", type=b"5"), member("a/top", type=b"2", target="../b/.."),
         member("b/", type=b"5"), member("s", type=b"2", target="a/top/../x")],
        "'s' is a symlink that leaves the root",
    ),
    "a link that goes in and out": (member("s", type=b"2", target="/a/../.."), "leaves"),
}  # fmt: skip


@pytest.mark.parametrize(("word", "why"), REFUSED.values(), ids=REFUSED)
def test_strict_refuses(tmp_path, word, why):
    (tmp_path / "i.tar").write_bytes(
        docker_archive([layer(*(word if isinstance(word, list) else [word]))])
    )

    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")
    with pytest.raises(flatten.FormatError, match="--strict: ") as caught:
        flatten.export(tmp_path / "i.tar", tmp_path / "strict.tar", strict=True)

    assert why in str(caught.value)
    assert not (tmp_path / "strict.tar").exists()


def test_strict_lets_pass_what_images_have(tmp_path):
    words = [
        member("usr/bin/su", mode=0o4755), member("bin/ping", records=CAPABILITY),
        member("var/mail/", type=b"5", mode=0o2775), member("tmp/", type=b"5", mode=0o1777),
        "etc/s->/usr/lib/x", "a/b/s->../../x", "ünï",
        # By its text this one leaves; where it leads through is a directory further down.
        "p/q/r/", "down->p/q/r", "up->down/../../../x",
        "loop->loop", "into->loop/../..",
        member("opt/mine", mode=0o4755),
    ]  # fmt: skip
    (tmp_path / "i.tar").write_bytes(docker_archive([layer(*words)]))

    flatten.export(
        tmp_path / "i.tar", tmp_path / "o.tar", strict=True, allow_setuid=("opt/mine",)
    )


def test_strict_says_how_many_there_are(tmp_path):
    words = [member(f"{n}", mode=0o4755) for n in range(5)]
    (tmp_path / "i.tar").write_bytes(docker_archive([layer(*words)]))

    with pytest.raises(flatten.FormatError, match=r"'0' is setuid .*, and 4 more$"):
        flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", strict=True)


def test_the_list_is_of_paths():
    assert b"usr/bin/sudo" in SETUID
    assert not any(path.startswith(b"/") for path in SETUID)
