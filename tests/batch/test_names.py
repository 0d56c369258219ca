"""Names of outputs: each value fills one component, and none leaves the directory."""

import pytest

from flatten.batch.names import Template, key_path
from flatten.errors import UsageError


def path(template, **values):
    return Template(template).path(values, "the image")


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("out/{name}.tar", {"name": "app"}, "out/app.tar"),
        ("{name}-{tag}.tar", {"name": "app", "tag": "1.2"}, "app-1.2.tar"),
        ("out/{name}/", {"name": "app"}, "out/app/"),
        ("out/{name}.tar", {"name": "org/app"}, "out/org_app.tar"),
        ("../out/{name}.tar", {"name": "app"}, "../out/app.tar"),
        ("/out/{name}.tar", {"name": "app"}, "/out/app.tar"),
        ("s3://bucket/a/{name}.tar", {"name": "app"}, "s3://bucket/a/app.tar"),
        ("out/{{{name}}}.tar", {"name": "app"}, "out/{app}.tar"),
        ("out/all.tar", {}, "out/all.tar"),
    ],
)
def test_a_template_is_filled(template, values, expected):
    assert path(template, **values) == expected


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "../../etc/passwd\n", "a\0b", "a" * 201, "é" * 101],
)
@pytest.mark.parametrize(
    "template", ["out/{name}/", "../out/{name}/", "./out/../{name}/", "a//{name}/"]
)
def test_a_value_that_would_leave_the_directory_is_refused(template, name):
    with pytest.raises(UsageError):
        path(template, name=name)


def test_a_message_about_a_name_is_one_line():
    with pytest.raises(UsageError) as raised:
        Template("out/{name}/").path({"name": "a\nb"}, "layout#a\nb")
    assert "\n" not in str(raised.value)


def test_a_parent_directory_in_a_value_stays_in_its_component():
    assert path("out/{name}.tar", name="../../x") == "out/.._.._x.tar"


@pytest.mark.parametrize(
    "template", ["{id}.tar", "{name:>9}.tar", "{name!r}", "{", "{}"]
)
def test_other_fields_and_formats_are_refused(template):
    with pytest.raises(UsageError):
        Template(template)


def test_the_document_of_a_directory_is_beside_it():
    assert key_path("out/app/") == "out/app.json"
