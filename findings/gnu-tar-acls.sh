#!/bin/bash
# GNU tar's --acls erases an ACL that --xattrs has just restored.
#
# Expected:  `tar --acls --xattrs --xattrs-include='*'` restores at least what
#            either option restores alone.
# Happens:   an ACL in a record SCHILY.xattr.system.posix_acl_access is restored
#            with --xattrs-include, and lost when --acls is added. An archive
#            that has this spelling and SCHILY.acl.access, for two files,
#            cannot be restored by any set of options: each loses one ACL.
# Cause:     --acls also sets the ACL of a member without a SCHILY.acl record,
#            to the one that its mode amounts to, after the attributes.
# Matters:   GNU tar and libarchive write SCHILY.acl.access. Go programs, such
#            as container engines, write an ACL as any other attribute, in
#            SCHILY.xattr. A merged root file system can have both, and giving
#            all options to be safe is not safe.
# Sources:   GNU tar src/extract.c, set_stat() (attributes, then ACLs), and
#            src/xattrs.c, xattrs_acls_set().
# Versions:  GNU tar 1.34.
. "$(dirname "$0")/common.bash"
need python3
debian tar=1.34+dfsg-1.2+deb12u1

cat >acl.py <<'PY'
import io, os, struct, sys, tarfile

KEY = "system.posix_acl_access"
# u::rw-, u:1000:rw-, g::r--, m::rw-, o::r--, each as tag, permissions and id.
ENTRIES = (1, 6, -1), (2, 6, 1000), (4, 4, -1), (16, 6, -1), (32, 4, -1)
VALUE = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in ENTRIES)
if sys.argv[1] == "supported":
    open("probe", "w").close()
    os.setxattr("probe", KEY, VALUE)
elif sys.argv[1] == "make":
    records = {
        "as-acl": {"SCHILY.acl.access": "u::rw-,u:1000:rw-,g::r--,m::rw-,o::r--"},
        "as-xattr": {"SCHILY.xattr." + KEY: VALUE.decode("utf-8", "surrogateescape")},
    }
    with tarfile.open("acls.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, pax in records.items():
            member = tarfile.TarInfo(name)
            member.mode, member.pax_headers = 0o664, pax
            archive.addfile(member)
else:
    names = [n for n in ("as-acl", "as-xattr") if KEY in os.listxattr("out/" + n)]
    print(*names)
PY
python3 acl.py supported 2>/dev/null || skip "the temporary folder has no POSIX ACLs"
python3 acl.py make

# restored OPTION...: print the names of the files that get their ACL.
restored() {
    rm -rf out
    mkdir out
    tar "$@" --warning=no-unknown-keyword -xf acls.tar -C out
    python3 acl.py list
}
every='--xattrs-include=*'
expect "--acls" "as-acl" "$(restored --acls)"
expect "--xattrs $every" "as-xattr" "$(restored --xattrs "$every")"
expect "--acls --xattrs $every" "as-acl" "$(restored --acls --xattrs "$every")"
