#!/bin/bash
# setuptools ignores SOURCE_DATE_EPOCH when it makes a source archive.
#
# Expected:  SOURCE_DATE_EPOCH replaces the time of the build, and is the latest time
#            that an output has, so two builds of one tree give the same bytes.
# Happens:   with it, setuptools writes the current time into the gzip header and
#            into the members that it makes, and so two builds differ. flit_core and
#            hatchling give the same bytes twice. setuptools' own wheels do, too.
# Cause:     the archive is made by distutils' make_tarball(), which does not read
#            the variable; the module that makes wheels does.
# Matters:   a source archive cannot be verified by building it again, nor can a
#            layer of an image that contains one.
# Sources:   reproducible-builds.org/specs/source-date-epoch;
#            github.com/pypa/setuptools/issues/2133, open since 2020.
# Versions:  PyPI setuptools 84.2.1, flit_core 4.2.0, hatchling 1.33.0.
. "$(dirname "$0")/common.bash"
pypi setuptools==84.2.1 flit_core==4.2.0 hatchling==1.33.0
export SOURCE_DATE_EPOCH=1000000000 # 2001

mkdir -p tree/app
echo '"""An application."""' >tree/app/__init__.py
touch -d 2000-01-01 tree/app/__init__.py
echo text >tree/README
# builds MODULE KIND: build twice, a second apart; print whether the bytes are equal.
builds() {
    local number
    rm -rf build outputs
    for number in 1 2; do
        [ $number = 1 ] || sleep 1.1
        rm -rf build
        cp -a tree build
        printf '[build-system]\nrequires = []\nbuild-backend = "%s"\n[project]\nname = "app"\nversion = "1"\ndescription = "An application"\n' \
            "$1" >build/pyproject.toml
        mkdir -p outputs/$number
        (cd build && python -c "import $1 as backend; backend.build_$2('../outputs/$number')") \
            &>build.log
    done
    if cmp -s outputs/1/* outputs/2/*; then echo equal; else echo different; fi
}
expect "setuptools, wheel" equal "$(builds setuptools.build_meta wheel)"
expect "flit_core, sdist" equal "$(builds flit_core.buildapi sdist)"
expect "hatchling, sdist" equal "$(builds hatchling.build sdist)"
expect "setuptools, sdist" different "$(builds setuptools.build_meta sdist)"
expect "year of the newest member" "$(date +%Y)" \
    "$(tar -tvf outputs/1/*.tar.gz | awk '{ print substr($4, 1, 4) }' | sort | tail -n 1)"
