"""Steps and layers: the listing, an image as it stood, and what cannot be told."""

import json

import pytest

import flatten
from builders import layers
from flatten.image.history import Point, cut, read_history
from flatten.image.instructions import config_after
from kinds import KINDS, docker, history, run
from listing import contents

TARS = layers(["a", "b"], ["-a", "c"], ["d"])
STEPS = history(
    "ADD rootfs.tar /", "-ENV A=1", "RUN rm a", "-ENV A=2 B=x", "RUN touch d"
)
MORE = {"history": STEPS, "config": {"Env": ["A=2", "B=x"]}, "created": "2025"}


@pytest.fixture
def image(tmp_path):
    return docker(tmp_path, TARS, **MORE)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_history_lists_steps_with_their_layers(tmp_path, kind):
    got = json.loads(run("history", kind(tmp_path, TARS, **MORE), "--json").stdout)

    rows = [(row["step"], row["layer"], row["size"]) for row in got["steps"]]
    assert rows == [(1, 1, 2), (2, None, 0), (3, 2, 1), (4, None, 0), (5, 3, 1)]
    assert [row["created_by"] for row in got["steps"]] == [
        step["created_by"] for step in STEPS
    ]
    assert got["problem"] is None


def test_history_for_people(image):
    lines = run("history", image).stdout.splitlines()

    assert lines[0].split() == [
        "STEP",
        "LAYER",
        "CREATED",
        "SIZE",
        "DIFF",
        "ID",
        "COMMAND",
    ]
    assert lines[2].split() == [
        "2",
        "-",
        "2024-01-02T00:00:00Z",
        "-",
        "-",
        "ENV",
        "A=1",
    ]
    assert len(lines) == 6


POINTS = {
    "after the first step": (["--at", "1"], {"a": "0", "b": "0"}),
    "after an empty step": (["--at", "2"], {"a": "0", "b": "0"}),
    "after the last step": (["--at", "5"], {"b": "0", "c": "1", "d": "2"}),
    "before all steps": (["--at", "0"], {}),
    "after a layer": (["--at-layer", "2"], {"b": "0", "c": "1"}),
    "after a command": (["--until", "rm a"], {"b": "0", "c": "1"}),
    "after a command, with a star": (["--until", "RUN*d"], {"b": "0", "c": "1", "d": "2"}),
}  # fmt: skip


@pytest.mark.parametrize(("options", "want"), POINTS.values(), ids=POINTS)
def test_the_tree_as_it_stood(image, tmp_path, options, want):
    got = run(image, *options, "-o", tmp_path / "out.tar")

    assert (got.returncode, got.stderr) == (0, "")
    assert contents(tmp_path / "out.tar") == want


REFUSED = {
    "a step there is not": (["--at", "6"], 2, "no step 6; its history has 5"),
    "a step below none": (["--at", "-1"], 2, "no step -1; its history has 5"),
    "a layer there is not": (["--at-layer", "4"], 2, "no layer 4; it has 3"),
    "a pattern of no step": (["--until", "yum"], 2, "no step has 'yum' in its command"),
    "a pattern of several steps": (
        ["--until", "RUN"], 2, "2 steps have 'RUN' in their commands: 3 ('RUN rm a'), 5",
    ),
    "two points": (["--at", "1", "--at-layer", "1"], 2, "not allowed with argument"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "code", "text"), REFUSED.values(), ids=REFUSED)
def test_points_that_are_not(image, tmp_path, options, code, text):
    got = run(image, *options, "-o", tmp_path / "out.tar")

    assert got.returncode == code
    assert text in got.stderr
    assert not (tmp_path / "out.tar").exists()


def test_the_config_of_an_earlier_step_is_the_one_docker_would_have_stored(image):
    got = json.loads(run("config", image, "--at", "3").stdout)

    whole = json.loads(run("config", image).stdout)
    assert got["history"] == STEPS[:3]
    assert got["rootfs"]["diff_ids"] == whole["rootfs"]["diff_ids"][:2]
    assert got["created"] == STEPS[2]["created"]
    assert got["config"]["Env"] == ["A=1"]
    assert (got["os"], got["architecture"]) == ("linux", "amd64")


def test_the_config_of_the_last_step_is_the_images(image):
    assert run("config", image, "--at", "5").stdout == run("config", image).stdout


def test_a_layer_without_history_is_still_a_point(tmp_path):
    image = docker(tmp_path, TARS)

    got = json.loads(run("config", image, "--at-layer", "1").stdout)
    assert len(got["rootfs"]["diff_ids"]) == 1
    assert "history" not in got


PROBLEMS = {
    "no history": ({}, "the image has 3 layers, but no history"),
    "too short": (
        {"history": STEPS[:3]},
        "the history has 2 layer-creating steps, the image 3 layers",
    ),
    "too long": (
        {"history": history("a", "b", "c", "d")},
        "the history has 4 layer-creating steps, the image 3 layers",
    ),
}


@pytest.mark.parametrize(("more", "text"), PROBLEMS.values(), ids=PROBLEMS)
def test_steps_and_layers_that_do_not_agree(tmp_path, more, text):
    image = docker(tmp_path, TARS, **more)

    shown = run("history", image)
    rows = json.loads(run("history", image, "--json").stdout)["steps"]
    refused = run(image, "--at", "1", "-o", tmp_path / "out.tar")

    assert text in shown.stderr
    assert [row["layer"] for row in rows if row["step"] is None] == [1, 2, 3]
    assert {row["layer"] for row in rows if row["step"] is not None} <= {None}
    assert refused.returncode == 4
    assert text in refused.stderr
    assert "--at-layer N" in refused.stderr


BROKEN = {
    "a history that is not a list": (
        "all of it",
        '"history" is not a list, or has more than 65,536 entries',
    ),
    "a step that is not an object": (["RUN"], "a step is not an object"),
    "a command that is not text": (
        [{"created_by": 1}],
        "created_by of a step is not a string",
    ),
}


@pytest.mark.parametrize(("steps", "text"), BROKEN.values(), ids=BROKEN)
def test_broken_histories(tmp_path, steps, text):
    got = run("history", docker(tmp_path, TARS, history=steps))

    assert got.returncode == 4
    assert text in got.stderr


def test_from_python(image):
    with flatten.open_image(image, at=flatten.Point(step=3)) as opened:
        assert len(opened.layers) == 2
        assert len(read_history(opened).steps) == 3
        assert len(cut(opened, Point(layer=1)).layers) == 1


NOP = "/bin/sh -c #(nop) "
SETTINGS = {
    "what no later step touched stays as it is": (
        {"Cmd": ["sh"], "Env": ["P=a b c=d"]}, [], [], {"Cmd": ["sh"], "Env": ["P=a b c=d"]},
    ),
    "a variable set later is gone": (
        {"Env": ["P=1", "Q=2"]}, [], [f"{NOP} ENV Q=2"], {"Env": ["P=1"]},
    ),
    "a command replaced later is the one before": (
        {"Cmd": ["b"]}, [f'{NOP} CMD ["sh" "-c" "a \\"q\\""]'], [f'{NOP} CMD ["b"]'],
        {"Cmd": ["sh", "-c", 'a "q"']},
    ),
    "an entrypoint takes the command of before away": (
        {"Entrypoint": ["e"]}, [f'{NOP} CMD ["c"]'], [f'{NOP} ENTRYPOINT ["e"]'],
        {"Cmd": ["c"]},
    ),
    "labels, ports and volumes are undone one by one": (
        {"Labels": {"a": "1", "b": "2"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}},
        ["LABEL a=0", "VOLUME [/v]"], ["LABEL a=1 b=2", "EXPOSE map[80/tcp:{}]", "VOLUME [/v]"],
        {"Labels": {"a": "0"}, "Volumes": {"/v": {}}},
    ),
    "the user and the directory": (
        {"User": "u2", "WorkingDir": "/w2"}, [f"{NOP} USER u1"],
        [f"{NOP} USER u2", f"{NOP} WORKDIR /w2"], {"User": "u1"},
    ),
    "what runs sets nothing": (
        {"User": "u"}, [], ["/bin/sh -c USER=x make", "RUN /bin/sh -c ENV A=1 # buildkit"],
        {"User": "u"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "done", "later", "want"), SETTINGS.values(), ids=SETTINGS
)
def test_settings_before_later_steps(config, done, later, want):
    assert config_after(config, done, later) == want
