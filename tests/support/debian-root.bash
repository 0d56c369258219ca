# shellcheck shell=bash
# A root of a Debian release with the tools that a script measures. Source this file as
# root, in a mount namespace of its own:
#
#   debian_root SUITE NAME PACKAGE...   # makes and mounts it, and sets "root"
#   inside COMMAND...                   # runs a command in it
#
# debootstrap makes a root once, in ${XDG_CACHE_HOME:-/var/cache}/flatten-NAME/SUITE. The
# directory "repository" of this machine is /repository in it, until the script ends.
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
  DEBIAN_FRONTEND=noninteractive PYTHONPYCACHEPREFIX=/var/cache/python)
for name in http_proxy https_proxy no_proxy PIP_CERT PIP_INDEX_URL PIP_TRUSTED_HOST \
  PIP_DEFAULT_TIMEOUT NODE_EXTRA_CA_CERTS; do
  if [ -n "${!name:-}" ]; then settings+=("$name=${!name}"); fi
done
inside() { chroot "$root" env -i "${settings[@]}" "$@"; }

debian_root() {
  local suite=$1 name packages script
  root=${XDG_CACHE_HOME:-/var/cache}/flatten-$2/$1
  shift 2
  packages=$*
  if [ ! -e "$root.debootstrap" ]; then
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    script=/usr/share/debootstrap/scripts/$suite
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # newer than debootstrap
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" \
      "$script" >&2
    touch "$root.debootstrap"
  fi

  # How this machine reaches the package registries.
  for name in etc/resolv.conf etc/hosts etc/ssl/certs/ca-certificates.crt; do
    if [ -e "/$name" ]; then cp --remove-destination -L "/$name" "$root/$name"; fi
  done
  grep -ls Acquire:: /etc/apt/apt.conf.d/* 2>/dev/null |
    xargs -r cp -t "$root/etc/apt/apt.conf.d" || true

  mount --make-rprivate /
  mount --bind "$root" "$root" # engines remount "/", which must be a mount point
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/run"
  mkdir -p "$root/repository"
  # shellcheck disable=SC2154 # the script that sources this file sets it
  mount --bind "$repository" "$root/repository"

  if [ "$(cat "$root.packages" 2>/dev/null)" != "$packages" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # start no services
    chmod 755 "$root/usr/sbin/policy-rc.d"
    inside apt-get update -qq
    inside apt-get install -qq --no-install-recommends "$@" >/dev/null
    echo "$packages" >"$root.packages"
  fi
}
