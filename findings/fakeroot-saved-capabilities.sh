#!/bin/bash
# fakeroot -s and -i lose file capabilities, and keep owners and devices.
#
# Expected:  fakeroot remembers what its commands set; README.saving says of a
#            saved environment that -i "will get you exactly what you had".
# Happens:   within one run, setting and reading security.capability works.
#            In the next run, which loads what the first one saved, the owner
#            and the device node are back and the capability is not, without
#            a message.
# Cause:     faked keeps attributes in memory only. A line of the saved file has
#            dev, ino, mode, uid, gid, nlink and rdev.
# Matters:   builds in steps (unpack the layers, add files, archive the tree)
#            pass the saved file from one fakeroot to the next. The root file
#            system then has ping and newuidmap without capabilities.
# Sources:   fakeroot faked.c, save_database(); /usr/share/doc/fakeroot/README.saving.
# Versions:  fakeroot 1.31.
. "$(dirname "$0")/common.bash"
need python3
debian fakeroot=1.31-1.2 libfakeroot=1.31-1.2
library=$(find debian -name libfakeroot-sysv.so)

# Debian installs "fakeroot" and "faked" as alternatives of these two.
run() {
    fakeroot-sysv --lib "$work/$library" --faked "$work/debian/usr/bin/faked-sysv" "$@"
}

mkdir tree
touch tree/ping
cat >describe.py <<'PY'
import os, stat

node = os.stat("tree/console")
print(os.stat("tree/ping").st_uid, stat.S_ISCHR(node.st_mode), os.listxattr("tree/ping"))
PY
cat >build.py <<'PY'
import os, stat, struct

os.chown("tree/ping", 5, 5)
os.mknod("tree/console", 0o600 | stat.S_IFCHR, os.makedev(5, 1))
# Revision 2, effective, CAP_NET_RAW.
value = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
os.setxattr("tree/ping", "security.capability", value)
PY

first=$(run -s saved sh -c 'python3 build.py && python3 describe.py')
expect "owner, device, attributes in the first run" "5 True ['security.capability']" "$first"
expect "in the second run" "5 True []" "$(run -i saved python3 describe.py)"
expect "fields of the saved file" "dev ino mode uid gid nlink rdev" \
    "$(head -n 1 saved | sed 's/=[^,]*,\?/ /g; s/ $//')"
