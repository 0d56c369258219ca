#!/bin/bash
# ostree export loses every extended attribute, although it has --no-xattrs.
#
# Expected:  `ostree export` writes what the commit has. It has an option
#            --no-xattrs to leave attributes out, so they are in by default.
# Happens:   the commit has security.capability, as `ostree ls -X` shows; the
#            exported tar has none, with the option or without, and nothing is
#            said. Two names of one file become two files of full size.
# Cause:     libostree gives the attributes to libarchive, and the command asks
#            libarchive for GNU format, which cannot hold them. libarchive
#            drops them without a warning.
# Matters:   the manual page names converting commits to Docker images as a use.
#            ping and newuidmap in the image have no capabilities; a checkout
#            (`ostree checkout`, then tar) keeps them.
# Sources:   ostree src/ostree/ot-builtin-export.c ("this is hardcoded for now");
#            github.com/ostreedev/ostree/pull/179, which chose GNU format;
#            ostree-export(1).
# Versions:  ostree 2022.7 of Debian 12 (the source is still so in August 2026).
. "$(dirname "$0")/common.bash"
need python3 tar
debian ostree=2022.7-2+deb12u1 libostree-1-1=2022.7-2+deb12u1 \
    libavahi-glib1=0.8-10+deb12u1

python3 - <<'PY'
import io, struct, tarfile

with tarfile.open("tree.tar", "w", format=tarfile.PAX_FORMAT) as archive:
    root = tarfile.TarInfo(".")
    root.type, root.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(root)
    ping = tarfile.TarInfo("./ping")
    ping.size, ping.mode = 1000, 0o755
    # Revision 2, effective, CAP_NET_RAW.
    value = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode()
    ping.pax_headers = {"SCHILY.xattr.security.capability": value}
    archive.addfile(ping, io.BytesIO(bytes(1000)))
    link = tarfile.TarInfo("./ping6")
    link.type, link.linkname = tarfile.LNKTYPE, "./ping"
    archive.addfile(link)
PY
cat >describe.py <<'PY'
import sys, tarfile

with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        if member.isdir():
            continue
        kind = "hard link" if member.islnk() else f"file of {member.size} bytes"
        print(kind, *member.pax_headers, end="; ")
PY

ostree --repo=repository init --mode=archive
ostree --repo=repository commit --branch=image --tree=tar=tree.tar >/dev/null
expect "attributes in the commit" security.capability \
    "$(ostree --repo=repository ls -X image /ping | grep -o 'security.capability')"
expect "before" "file of 1000 bytes SCHILY.xattr.security.capability; hard link; " \
    "$(python3 describe.py tree.tar)"
for option in "" --no-xattrs; do
    ostree --repo=repository export $option --output=exported.tar image
    expect "after export $option" "file of 1000 bytes; file of 1000 bytes; " \
        "$(python3 describe.py exported.tar)"
done
