"""The Python API, as the README shows it."""

import pytest

import flatten
from builders import docker_archive, layers
from listing import contents


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(layers(["a"], ["b", "-a"])))
    return path


def test_export_says_what_it_did(image, tmp_path):
    done = flatten.export(str(image), tmp_path / "out.tar")

    assert done == flatten.Exported(
        size=10_240, members=1, layers=2, verified=2, warnings=()
    )
    assert contents(tmp_path / "out.tar") == {"b": "1"}


def test_open_image_and_its_plan(image):
    with flatten.open_image(str(image)) as opened:
        assert opened.names == ("app:1",)
        assert len(opened.id) == 64
        assert opened.config["architecture"] == "amd64"
        assert all(layer.diff_id.startswith("sha256:") for layer in opened.layers)
        plan = flatten.plan_image(opened)

    assert [path for path, _ in plan] == [b"b"]
    assert (len(plan), plan.size) == (1, 10_240)


def test_the_plan_knows_the_size_before_the_first_byte(image, tmp_path):
    with flatten.open_image(str(image)) as opened:
        size = flatten.plan_image(opened).size
    flatten.export(image, tmp_path / "out.tar")

    assert (tmp_path / "out.tar").stat().st_size == size


def test_an_unknown_format_is_refused(image, tmp_path):
    with pytest.raises(
        flatten.UsageError, match="'zip' is not a valid format; choose from gnu, pax"
    ):
        flatten.export(image, tmp_path / "out.tar", format="zip")


def test_closing_an_image_closes_its_file(image):
    opened = flatten.open_image(str(image))
    layer = opened.layers[0].open()
    opened.close()
    opened.close()

    with pytest.raises(flatten.FlattenError):
        layer.read(0, 1)


def test_every_error_is_one_of_ours_with_its_exit_code():
    codes = {
        flatten.FlattenError: 1,
        flatten.UsageError: 2,
        flatten.SourceError: 3,
        flatten.FormatError: 4,
        flatten.IntegrityError: 5,
    }
    assert {kind: kind.exit_code for kind in codes} == codes
    assert all(issubclass(kind, flatten.FlattenError) for kind in codes)
