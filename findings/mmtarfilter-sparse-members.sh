#!/bin/bash
# mmtarfilter, and any copy of members by Python's tarfile, ruins sparse files.
#
# Expected:  mmtarfilter (of mmdebstrap) copies the members that it does not
#            filter. tarfile reads sparse members, so `addfile(member,
#            extractfile(member))` writes them as ordinary files.
# Happens:   the data is written in full, but the member still says that it is
#            sparse. From `tar -S --format=posix` comes an archive that GNU tar
#            stops at ("numeric overflow in sparse archive member", exit status
#            2) and tarfile cannot open. From --format=gnu comes a member that
#            GNU tar reads in full and tarfile as 0 bytes. mmtarfilter exits
#            with 0 both times.
# Cause:     tarfile keeps typeflag S, whose map it does not write, and the
#            records GNU.sparse.major and GNU.sparse.realsize, for whose map a
#            reader then takes the first bytes of the file.
# Matters:   /var/log/lastlog and /var/log/faillog are sparse on many systems, as
#            are databases. Whether the result can be read depends on the
#            reader that its maker tried. The way out is to set the type to
#            REGTYPE and drop the GNU.sparse records before addfile().
# Sources:   CPython Lib/tarfile.py, _proc_gnusparse_10(), _proc_sparse() and
#            create_pax_header(); mmdebstrap's mmtarfilter, main(); GNU tar
#            manual, "Storing Sparse Files".
# Versions:  mmtarfilter 1.3.5; Python 3.11; GNU tar 1.34.
. "$(dirname "$0")/common.bash"
need python3
debian mmdebstrap=1.3.5-7 tar=1.34+dfsg-1.2+deb12u1
python3 --version

truncate --size 1M lastlog
printf login | dd of=lastlog bs=1 seek=100000 conv=notrunc status=none
for format in gnu posix; do
    tar --sparse --format=$format -cf $format.tar lastlog
    mmtarfilter '--path-exclude=/usr/share/doc/*' <$format.tar >$format-filtered.tar
done

cat >read.py <<'PY'
import sys, tarfile

try:
    with tarfile.open(sys.argv[1]) as archive:
        data = archive.extractfile("lastlog").read()
except (tarfile.TarError, ValueError) as error:
    print("cannot open:", error)
else:
    print(len(data), data.count(b"login"))
PY

# with_tar ARCHIVE: GNU tar's exit status and the size that it extracts.
with_tar() {
    local status=0
    tar -xOf "$1" >out 2>errors || status=$?
    echo "$status $(stat -c %s out)"
}
for format in gnu posix; do
    expect "tarfile before, $format" "1048576 1" "$(python3 read.py $format.tar)"
    expect "GNU tar before, $format" "0 1048576" "$(with_tar $format.tar)"
done
expect "tarfile after, gnu" "0 0" "$(python3 read.py gnu-filtered.tar)"
expect "GNU tar after, gnu" "0 1048576" "$(with_tar gnu-filtered.tar)"
expect "tarfile after, posix" \
    "cannot open: not enough values to unpack (expected 2, got 1)" \
    "$(python3 read.py posix-filtered.tar)"
expect "GNU tar after, posix" "2 0" "$(with_tar posix-filtered.tar)"
