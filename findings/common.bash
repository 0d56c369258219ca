# shellcheck shell=bash
# Helpers of the scripts in this directory. Source this file; do not run it.
#
# A script works in a temporary folder that is removed at exit. Exit status:
# 0 the behaviour is as described, 1 it changed, 77 it could not be tried here.
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC
unset SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

skip() {
    echo "skipped: $*" >&2
    exit 77
}

# need PROGRAM...: skip unless all of them are installed.
need() {
    local program
    for program; do
        command -v "$program" >/dev/null || skip "$program is not installed"
    done
}

# debian NAME=VERSION...: unpack these packages below $work/debian without
# installing them, and put their programs and $libraries first.
debian() {
    need apt-get dpkg-deb
    mkdir -p downloads debian
    # As root, apt would switch to a user who may not write to this folder.
    (cd downloads && apt-get -qq -o APT::Sandbox::User=root download "$@") ||
        skip "apt-get cannot download $* (needs Debian 12 and apt-get update)"
    local package
    for package in downloads/*.deb; do
        dpkg-deb -x "$package" debian
    done
    libraries=$(echo "$work"/debian/usr/lib/*-linux-gnu)
    PATH="$work/debian/bin:$work/debian/sbin:$PATH"
    export PATH="$work/debian/usr/bin:$work/debian/usr/sbin:$PATH"
    export LD_LIBRARY_PATH="$libraries:${libraries/usr\/lib/lib}"
    # ldd fails for scripts, which it leaves out.
    find debian -path '*bin/*' -type f -exec ldd {} + >ldd.log 2>/dev/null || true
    if grep 'not found' ldd.log >&2; then
        skip "the programs need libraries that are not installed"
    fi
    echo "versions: $*"
}

# forky NAME=VERSION...: install these packages of Debian 14 (testing) and what they
# need into $work/root, for `unshare --mount chroot root`. Needs root.
forky() {
    need chroot debootstrap unshare
    [ "$(id -u)" = 0 ] || skip "needs root, for debootstrap"
    local names=("${@%%=*}") package found
    local release=/usr/share/debootstrap/scripts/forky
    [ -e "$release" ] || release=${release/forky/sid} # newer than debootstrap
    # debootstrap's mounts are in a namespace of their own: none is left at the end.
    unshare --mount debootstrap --variant=minbase --include="$(IFS=, && echo "${names[*]}")" \
        forky "$work/root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" "$release" \
        &>debootstrap.log || skip "debootstrap fails: $(tail -n 1 debootstrap.log)"
    for package; do
        # shellcheck disable=SC2016 # a format of dpkg-query
        found=$(chroot root dpkg-query --show --showformat='${Package}=${Version}' "${package%%=*}")
        [ "$found" = "$package" ] || skip "Debian testing has $found now, not $package"
    done
    echo "versions: $*"
}

# pypi NAME==VERSION...: install these into a virtual environment, whose
# interpreter is then called "python".
pypi() {
    need python3
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check "$@" 2>pip.log ||
        skip "pip cannot install $*: $(tail -n 1 pip.log)"
    export PATH="$work/venv/bin:$PATH"
    echo "versions: $*, $(python --version)"
}

# npm_install NAME@VERSION...: install these into $work/node_modules.
npm_install() {
    need node npm
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" "$@" \
        >npm.log 2>&1 || skip "npm cannot install $*: $(tail -n 1 npm.log)"
    echo "versions: $*, node $(node --version)"
}

# expect WHAT EXPECTED FOUND: print what was found; end the script if it is
# not what was expected.
expect() {
    echo "$1: $3"
    if [ "$2" != "$3" ]; then
        echo "CHANGED: $1: expected $2" >&2
        exit 1
    fi
}
