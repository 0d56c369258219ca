#!/bin/bash
# 7-Zip extracts devices and FIFOs as empty files, and drops set-user-ID bits.
#
# Expected:  a device in a tar is made, which takes root, or there is a warning.
# Happens:   /dev/null and a FIFO become empty regular files, /usr/bin/su loses
#            its set-user-ID bit and /tmp its sticky bit. 7-Zip prints "Everything
#            is Ok" and exits with 0, as root too.
# Cause:     7-Zip knows files, directories and links; other members are files. Of
#            a mode it takes the lower nine bits.
# Matters:   what is written to such a /dev/null stays and grows, and nobody can
#            become root in a system that was unpacked in this way.
# Sources:   ustar in pax(1) of POSIX.1-2017 (typeflags 3, 4 and 6: "appropriate
#            privileges"; without them an error is due).
# Versions:  7-Zip 26.02, which Debian 12 ships as 22.01+really26.02.
. "$(dirname "$0")/common.bash"
need python3
debian 7zip=22.01+really26.02+dfsg-0+deb12u1

python3 - <<'PY'
import tarfile

with tarfile.open("root.tar", "w", format=tarfile.GNU_FORMAT) as archive:
    for name, kind, mode in (
        ("dev/null", tarfile.CHRTYPE, 0o666),
        ("run/initctl", tarfile.FIFOTYPE, 0o666),
        ("usr/bin/su", tarfile.REGTYPE, 0o4755),
        ("tmp", tarfile.DIRTYPE, 0o1777),
    ):
        member = tarfile.TarInfo(name)
        member.type, member.mode = kind, mode
        member.devmajor, member.devminor = 1, 3
        archive.addfile(member)
PY
umask 0
expect "7-Zip" "Everything is Ok" "$(7zz x -snoi -oout root.tar | grep Everything)"
kind() { stat -c '%F, mode %a' "out/$1"; }
expect "dev/null" "regular empty file, mode 666" "$(kind dev/null)"
expect "run/initctl" "regular empty file, mode 666" "$(kind run/initctl)"
expect "usr/bin/su" "regular empty file, mode 755" "$(kind usr/bin/su)"
expect "tmp" "directory, mode 777" "$(kind tmp)"
