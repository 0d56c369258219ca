"""Make a small image of three layers, as ``docker save`` would write it.

    python examples/make_image.py image.tar

The layers have what makes flattening hard: a base with a merged /usr, a layer that
writes through a symlink, and one that replaces, removes and links files.
"""

import hashlib
import io
import json
import sys
import tarfile

MTIME = 1_700_000_000

BASE = {
    "bin": "->usr/bin",
    "etc/": None,
    "etc/motd": "hello from the base\n",
    "usr/": None,
    "usr/bin/": None,
    "usr/bin/tool": "#!/bin/sh\necho tool 1\n",
    "usr/bin/alias": "=usr/bin/tool",
    "var/cache/": None,
    "var/cache/packages": "a" * 5000,
}
APPLICATION = {
    "bin/app": "#!/bin/sh\necho app\n",  # through the symlink, to usr/bin/app
    "etc/motd": "hello from the application\n",
}
CLEANUP = {
    "usr/bin/tool": "#!/bin/sh\necho tool 2\n",  # usr/bin/alias keeps tool 1
    "var/cache/.wh..wh..opq": "",
}


def layer_tar(files: dict[str, str | None]) -> bytes:
    """Write a layer: ``name/`` is a directory, ``->t`` a symlink, ``=t`` a link."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime, info.mode = MTIME, 0o644
            data = b""
            if text is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif text.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, text[2:]
            elif text.startswith("="):
                info.type, info.linkname = tarfile.LNKTYPE, text[1:]
            else:
                data = text.encode()
                info.size = len(data)
                info.mode = 0o755 if text.startswith("#!") else 0o644
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def main(out: str) -> None:
    """Write the image to ``out``."""
    layers = [layer_tar(files) for files in (BASE, APPLICATION, CLEANUP)]
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/app"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = [{"Config": config_name, "RepoTags": ["demo:1"], "Layers": names}]
    files = dict(zip(names, layers, strict=True))
    files |= {config_name: config, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(out, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(sys.argv[1])
