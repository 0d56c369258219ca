"""Which image was built on which, what two share, what a build would reuse."""

import json
from dataclasses import dataclass

import pytest

import flatten
from builders import archive, config, digest, layers
from fixtures import needs_fixtures
from flatten.cli.commands import match as match_command
from flatten.image.image import Image
from flatten.sources.open import open_family
from flatten.views.ancestry import ancestors, common, derived, match
from kinds import docker, history, run


@dataclass
class Layer:
    name: str
    diff_id: str | None


def image(name, layers="", steps=(), parent=None, **more):
    """Make an image whose layers are letters; a layer ``?`` has no known diff_id."""
    promised = [None if letter == "?" else f"sha256:{letter}" for letter in layers]
    document = {"history": history(*steps), **more}
    return Image(
        "source", name, (), document,
        tuple(Layer(letter, diff_id) for letter, diff_id in zip(layers, promised, strict=True)),
        parent=parent,
    )  # fmt: skip


FAMILIES = {
    "more steps and layers": (
        image("a", "x", ["1"]), image("b", "xy", ["1", "2"]), "history",
    ),
    "one more step without a layer": (
        image("a", "x", ["1"]), image("b", "x", ["1", "-2"]), "history",
    ),
    "the same steps": (image("a", "x", ["1"]), image("b", "x", ["1"]), ""),
    "the same layers with other steps": (
        image("a", "x", ["1"]), image("b", "xy", ["0", "2"]), "layers",
    ),
    "more layers with other steps": (
        image("a", "x", ["1"]), image("b", "x", ["0", "-2"]), "",
    ),
    "other layers with the same steps": (
        image("a", "x", ["1"]), image("b", "zy", ["1", "2"]), "",
    ),
    "no history": (image("a", "x"), image("b", "xy"), "layers"),
    "an image without layers": (image("a"), image("b", "x", ["1"]), "history"),
    "unknown diff_ids are not equal": (image("a", "?"), image("b", "??"), ""),
    "a parent record": (image("a", "?"), image("b", "??", parent="a"), "parent"),
    "a parent record goes before the history": (
        image("a", "x", ["1"]), image("b", "xy", ["1", "2"], parent="a"), "parent",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("older", "newer", "how"), FAMILIES.values(), ids=FAMILIES)
def test_how_images_are_related(older, newer, how):
    want = [how] if how else []

    assert [relative.how for relative in ancestors(newer, [older, newer])] == want
    assert [relative.how for relative in derived(older, [older, newer])] == want
    assert ancestors(older, [newer]) == []


LINE = [
    image("a", "x", ["1"]), image("b", "xy", ["1", "2"], parent="a"),
    image("c", "xy", ["1", "2", "-3"], parent="b"), image("d", "xyz", ["1", "2", "-3", "4"], parent="c"),
]  # fmt: skip


def test_the_nearest_ancestor_comes_first():
    others = [LINE[2], LINE[0], LINE[3], LINE[1], LINE[0]]

    assert [relative.image.id for relative in ancestors(LINE[3], others)] == [
        "c",
        "b",
        "a",
    ]
    assert [relative.image.id for relative in derived(LINE[0], others)] == [
        "b",
        "c",
        "d",
    ]


def test_parents_end_at_an_unknown_image():
    assert [relative.how for relative in ancestors(LINE[3], [LINE[0], LINE[1]])] == [
        "history"
    ] * 2


def test_parents_in_a_circle():
    circle = [image("a", "x", parent="b"), image("b", "y", parent="a")]

    for find in (ancestors, derived):
        with pytest.raises(
            flatten.FormatError, match=r"the parents of [ab] go in a circle"
        ):
            find(circle[0], circle)


SHARED = {
    "nothing": (image("a", "x", ["1"]), image("b", "y", ["2"]), (0, 0, 0)),
    "all of one": (image("a", "x", ["1"]), image("b", "xy", ["1", "2"]), (1, 1, 1)),
    "an equal step with another layer": (
        image("a", "xy", ["1", "2"]), image("b", "xz", ["1", "2"]), (1, 1, 1),
    ),
    "more equal layers than steps": (
        image("a", "xyz", ["1", "-e", "2", "3"]), image("b", "xyw", ["1", "-f", "2", "4"]), (1, 1, 2),
    ),
    "empty steps at the end": (
        image("a", "x", ["1", "-e", "-f"]), image("b", "x", ["1", "-e", "-g"]), (2, 1, 1),
    ),
    "a history that does not match the layers": (
        image("a", "xy", ["1"]), image("b", "xy", ["1"]), (0, 0, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("one", "other", "want"), SHARED.values(), ids=SHARED)
def test_common_steps_and_layers(one, other, want):
    got = common(one, other)

    assert (got.steps, got.step_layers, got.layers) == want


def made(name, parent, created, **settings):
    return image(
        name, "x", ["1"], parent=parent, created=created,
        container_config={"Cmd": ["c"], **settings},
    )  # fmt: skip


WANTED = {"Cmd": ["c"], "Env": ["A=1"], "Labels": None}
EARLY, LATE = "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00.45Z"
REUSED = {
    "the child with the same settings": ([made("b", "a", EARLY, Env=["A=1"])], ("b", "parent", None)),
    "the newest of several children": (
        [made("b", "a", LATE, Env=["A=1"]), made("c", "a", EARLY, Env=["A=1"])], ("c", "parent", None),
    ),
    "names of host and image are ignored": (
        [made("b", "a", EARLY, Env=["A=1"], Hostname="h", Image="i")], ("b", "parent", None),
    ),
    "another environment": ([made("b", "a", EARLY, Env=["A=2"])], None),
    "another parent": ([made("b", "z", EARLY, Env=["A=1"])], None),
    "another user": ([made("b", "a", EARLY, Env=["A=1"], User="u")], None),
    "one more label": ([made("b", "a", EARLY, Env=["A=1"], Labels={"l": "1"})], None),
    "one more port": ([made("b", "a", EARLY, Env=["A=1"], ExposedPorts={"80/tcp": {}})], None),
    "a container that reads standard input": ([made("b", "a", EARLY, Env=["A=1"], OpenStdin=True)], None),
    "a history that continues with the command": ([image("b", "xy", ["0", "c"])], ("b", "history", None)),
    "a history that goes on after the command": ([image("b", "xy", ["0", "c", "-d"])], ("b", "history", 2)),
    "another command": ([image("b", "xy", ["0", "d"])], None),
}  # fmt: skip


@pytest.mark.parametrize(("images", "want"), REUSED.values(), ids=REUSED)
def test_match_of_images(images, want):
    got = match(image("a", "x", ["0"]), WANTED, images)

    assert (got and (got.image.id, got.how, got.step)) == want


def test_match_of_a_first_step():
    got = match(None, {"Cmd": ["c"]}, [image("a", "x", ["c", "d"], parent="z")])

    assert (got.image.id, got.how, got.step) == ("a", "history", 1)


# --- the commands


@pytest.fixture
def two(tmp_path):
    """Return an archive of an image and one that was built on it."""
    tars = layers(["a"], ["b"])
    documents = [
        json.dumps(
            config(tars[:1], history=history("one"), config={"Env": ["A=1"]})
        ).encode(),
        json.dumps(config(tars, history=history("one", "/bin/sh -c two"))).encode(),
    ]
    manifest = [
        {"Config": f"{digest(data)}.json", "RepoTags": [f"app:{number}"],
         "Layers": [f"{n}/layer.tar" for n in range(number)]}
        for number, data in enumerate(documents, 1)
    ]  # fmt: skip
    manifest[1]["Parent"] = f"sha256:{digest(documents[0])}"
    (tmp_path / "two.tar").write_bytes(archive([
        *((f"{n}/layer.tar", tar) for n, tar in enumerate(tars)),
        *((f"{digest(data)}.json", data) for data in documents),
        ("manifest.json", json.dumps(manifest).encode()),
    ]))  # fmt: skip
    return tmp_path / "two.tar"


def test_ancestors_and_derived(two):
    up = run("ancestors", f"{two}#app:2", "--json")
    down = run("derived", f"{two}#app:1").stdout.splitlines()

    (row,) = json.loads(up.stdout)
    assert (row["names"], row["how"], row["layers"], row["steps"]) == (
        ["app:1"],
        "parent",
        1,
        1,
    )
    assert down[1].split()[1:] == ["parent", "2", "app:2"]


def test_among_searches_other_sources(two, tmp_path):
    alone = docker(
        tmp_path, layers(["a"], ["b"], ["c"]), history=history("one", "x", "y")
    )

    assert json.loads(run("ancestors", alone, "--json").stdout) == []
    got = json.loads(run("ancestors", alone, "--among", two, "--json").stdout)
    assert [(row["names"], row["how"]) for row in got] == [
        (["app:2"], "layers"), (["app:1"], "history"),
    ]  # fmt: skip


def test_common(two):
    got = run("common", f"{two}#app:1", f"{two}#app:2")
    document = json.loads(
        run("common", f"{two}#app:1", f"{two}#app:2", "--json").stdout
    )

    assert got.stdout == "by history: 1 step with 1 layer\nby layers: 1 layer\n"
    assert (document["steps"], document["layers"], document["by"]) == (1, 1, "history")
    assert len(document["diff_ids"]) == 1


def test_match(two):
    got = run("match", f"{two}#app:1", "--cmd", "two")
    none = run("match", f"{two}#app:1", "--exec", '["two"]')
    first = json.loads(
        run("match", two, "--scratch", "--exec", '["one"]', "--json").stdout
    )

    assert got.stdout.split()[1:] == ["history", "app:2"]
    assert (none.returncode, none.stdout) == (1, "")
    assert (first["names"], first["how"], first["step"]) == (["app:1"], "history", None)


def test_settings_from_a_file(two, tmp_path):
    (tmp_path / "s.json").write_text('{"Cmd": ["/bin/sh", "-c", "two"]}')

    assert (
        run("match", f"{two}#app:1", "--settings", tmp_path / "s.json").returncode == 0
    )


MATCH_FAILS = {
    "no step": ([], "one of the arguments --cmd --exec --settings is required"),
    "not a JSON list": (["--exec", "make"], "'make' is not a JSON list of strings"),
    "no file of settings": (["--settings", "/nowhere"], "'/nowhere': "),
}


@pytest.mark.parametrize(("args", "text"), MATCH_FAILS.values(), ids=MATCH_FAILS)
def test_match_with_invalid_arguments(two, args, text):
    got = run("match", f"{two}#app:1", *args)

    assert got.returncode == 2
    assert text in got.stderr


def test_a_broken_image_is_left_out(two):
    data = two.read_bytes()
    two.write_bytes(data.replace(b'"1/layer.tar"', b'"9/layer.tar"', 1))

    got = run("derived", f"{two}#app:1")

    assert "warning: left out: " in got.stderr
    assert "no image was found that was built on this image" in got.stderr
    assert got.stdout == ""


# --- what docker's builder recorded itself


@needs_fixtures
def test_match_finds_every_step_that_docker_built(data_root):
    root = data_root("tiny-docker20-overlay2")
    with open_family(str(root)) as (images, broken):
        known = {image.id: image for image in images}
        built = [
            image
            for image in images
            if image.parent and image.names != ("fx/tiny-commit:1",)
        ]
        got = {}
        for image in built:
            step = image.config["history"][-1]["created_by"].removeprefix("/bin/sh -c ")
            args = match_command.argparse.Namespace(settings=None, exec=None, cmd=step)
            parent = known[image.parent]
            found = match(
                parent, match_command._settings(args, parent.config["config"]), images
            )
            got[image.id] = found and (found.image.id, found.how)

    assert broken == []
    assert len(built) == 8
    assert got == {image.id: (image.id, "parent") for image in built}


@needs_fixtures
def test_the_config_of_a_step_is_what_docker_stored(data_root):
    root = data_root("tiny-docker20-overlay2")
    with open_family(str(root)) as (images, _):
        known = {image.id: image for image in images}
        (child,) = (image for image in images if "fx/tiny-child:1" in image.names)
        parent = known[child.parent]
        while parent.parent:  # the last one is the base, to which FROM added a PATH
            step = flatten.image.history.Point(step=len(parent.config["history"]))
            got = flatten.image.history.cut(child, step).config
            same = ("history", "rootfs", "created", "os", "architecture")
            assert {key: got[key] for key in same} == {
                key: parent.config[key] for key in same
            }
            for key in ("Env", "Cmd", "WorkingDir", "Labels", "Entrypoint"):
                assert (got["config"].get(key) or None) == (
                    parent.config["config"].get(key) or None
                )
            parent = known[parent.parent]
