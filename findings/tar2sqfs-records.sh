#!/bin/bash
# tar2sqfs keeps or loses a name, a label and an ACL by how they are spelt.
#
# Expected:  one member means the same to every reader, however its writer
#            combined PAX records with GNU name records; what the format cannot
#            hold is reported.
# Happens:   a GNU name record followed by a PAX header: the name is cut to the
#            100 bytes of the header. In the other order it is kept, as both
#            orders are by GNU tar, bsdtar, Python and node-tar.
#            RHT.security.selinux, which GNU tar --selinux writes, and
#            SCHILY.acl.access are dropped without a message. The same label as
#            SCHILY.xattr.security.selinux is kept. The exit status is always 0.
# Cause:     a PAX header clears what was read for the member so far. Of PAX
#            records only SCHILY.xattr.* and LIBARCHIVE.xattr.* are attributes.
# Matters:   a program finds its file under another name, or not at all. A root
#            file system labelled for SELinux has no labels as SquashFS, and
#            nothing can add them to a read-only file system later.
# Sources:   squashfs-tools-ng lib/tar/src/read_header.c, read_header(), and
#            pax_header.c; tar(1), "Extended file attributes".
# Versions:  squashfs-tools-ng 1.2.0 (the name also with 1.3.2 of Debian 13).
. "$(dirname "$0")/common.bash"
need python3 tar
debian squashfs-tools-ng=1.2.0-1 libsquashfs1=1.2.0-1

cat >make.py <<'PY'
import tarfile

NAME = "usr/share/" + "d" * 60 + "/" + "f" * 60


def member(name: str, typeflag: bytes, data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = typeflag, len(data), 0o644
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def pax(keyword: str, value: str) -> bytes:
    record = f" {keyword}={value}\n"
    length = len(record)
    while length != len(record) + len(str(length)):
        length = len(record) + len(str(length))
    return member("./PaxHeaders/file", b"x", (str(length) + record).encode())


gnu_name = member("././@LongLink", b"L", NAME.encode() + b"\0")
attribute = pax("SCHILY.xattr.user.origin", "layer")
header = member(NAME[:100], b"0")
for archive, parts in {
    "pax-first": (attribute, gnu_name, header),
    "gnu-first": (gnu_name, attribute, header),
    "selinux": (pax("RHT.security.selinux", "u:r:t:s0"), member("file", b"0")),
    "xattr": (pax("SCHILY.xattr.security.selinux", "u:r:t:s0"), member("file", b"0")),
    "acl": (pax("SCHILY.acl.access", "u::rw-,u:9:r--,g::r--,m::r--,o::---"), member("file", b"0")),
}.items():
    with open(archive + ".tar", "wb") as file:
        file.write(b"".join(parts) + bytes(1024))
PY
python3 make.py

# made ARCHIVE: make the image; print the exit status and what was said.
made() {
    local status=0
    tar2sqfs --quiet --force image.sqfs <"$1.tar" >said 2>&1 || status=$?
    echo "$status $(cat said)"
}
name_in_tar() { tar -tf "$1.tar" | tr -d '\n' | wc -c; }
name_in_image() { rdsquashfs --describe image.sqfs | awk '$1 == "file" { print length($2) }'; }
for order in pax-first gnu-first; do
    expect "length of the name in GNU tar, $order" 131 "$(name_in_tar $order)"
    expect "tar2sqfs, $order" "0 " "$(made $order)"
    case $order in pax-first) length=131 ;; *) length=100 ;; esac
    expect "length of the name in SquashFS" $length "$(name_in_image)"
done

attributes() { rdsquashfs --xattr file image.sqfs | sed 's/=.*//'; }
for spelling in xattr selinux acl; do
    expect "tar2sqfs, $spelling" "0 " "$(made $spelling)"
    case $spelling in xattr) kept=security.selinux ;; *) kept= ;; esac
    expect "attributes of $spelling" "$kept" "$(attributes)"
done
