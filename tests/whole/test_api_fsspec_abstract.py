"""fsspec's own tests for file systems: those of ``get``, which only read from one."""

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract

from builders import docker_archive, layers, member
from flatten.fsspec import FlattenFileSystem


class Prepared(FlattenFileSystem):
    """An image that already has the directory and the file that a test wants to make."""

    def mkdir(self, path):
        assert self.isdir(path)

    def touch(self, path):
        assert self.info(path)["size"] == 0


class Fixtures(abstract.AbstractFixtures):
    """The directories that the tests expect, which are all in one image."""

    @pytest.fixture
    def fs(self, tmp_path):
        host = LocalFileSystem(auto_mkdir=True)
        scenarios = {
            "bulk": self._bulk_operations_scenario_0,
            "glob": self._glob_edge_cases_files,
            "prefix": self._dir_and_file_with_same_name_prefix,
            "hashed": self._10_files_with_hashed_names,
        }
        top = tmp_path / "tree"
        for name, make in scenarios.items():
            make(host, lambda *parts: "/".join(map(str, parts)), top / name)
        host.touch(top / "recursive" / "src" / "file")
        paths = sorted(top.rglob("*"))
        entries = [
            member(str(path.relative_to(top)), type=b"5", mode=0o755)
            if path.is_dir()
            else member(str(path.relative_to(top)), path.read_bytes())
            for path in paths
        ]
        (tmp_path / "i.tar").write_bytes(docker_archive(layers(entries)))
        return Prepared(tmp_path / "i.tar")

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self):
        return "recursive"

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self):
        return "bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self):
        return "glob/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self):
        return "prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self):
        return "hashed/source"


class TestGet(abstract.AbstractGetTests, Fixtures):
    """fsspec's tests of ``get``."""
