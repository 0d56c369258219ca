"""Write the image that make.sh hands to the tools: ``python3 image.py image.tar``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from builders import docker_archive, layers, member

CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)

TARS = layers(
    [
        "etc/", member("etc/conf", b"one\n" * 50), "etc/old", "lib->usr/lib",
        "usr/", "usr/lib/", member("bin/su", b"su", mode=0o4755),
        member("bin/ping", b"ping", records={b"SCHILY.xattr.security.capability": CAPABILITY}),
        "a", "b=a", member("n" * 150, b"long"),
    ],
    ["-etc/old", member("etc/conf", b"two\n"), "lib/through", "a"],
    ["usr/lib/*", "usr/lib/fresh"],
)  # fmt: skip

if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(docker_archive(TARS))
