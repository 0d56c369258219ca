"""The data directories of docker, podman and containerd."""
