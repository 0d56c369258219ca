"""Random images against the naive model: the same tree, and the same bytes for it.

``HYPOTHESIS_PROFILE=fuzz`` runs it for long.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listing import listing
from oracle import MAX_LINKS, Entry, Refused, flattened, records, squashed
from random_images import Image, exported, images, repaired


def outcome(image: Image) -> list[dict[str, object]] | None:
    """List what flatten makes of an image; None if it refuses it."""
    tar = exported(image)
    if tar is None:
        return None
    assert len(tar) % 10_240 == 0
    assert tar.endswith(bytes(1024))
    return listing(tar)


def expected(image: Image) -> list[dict[str, object]] | None:
    """List what the model makes of an image; None if it refuses it."""
    try:
        return records(flattened(image))
    except Refused:
        return None


PLNK_1 = b".wh..wh.plnk/1.2"
FOUND: dict[str, Image] = {
    "a whiteout below a link that is hidden, too, does what it does before it": [
        [Entry(b"s", "symlink", target=b"d"), Entry(b"d/x")],
        [Entry(b".wh.s"), Entry(b"s/.wh.x")],
    ],
    "an opaque mark in a listed directory leaves what a link there led to": [
        [
            Entry(b"lib", "symlink", target=b"usr/lib"),
            Entry(b"usr/lib/d", "symlink", target=b"/srv"),
            Entry(b"srv/x"),
        ],
        [Entry(b"lib/d/", "dir"), Entry(b"lib/d/.wh..wh..opq")],
    ],
    "a whiteout does not pass a link where its layer lists a directory": [
        [
            Entry(b"a", "symlink", target=b"b"),
            Entry(b"b", "symlink", target=b"c"),
            Entry(b"c/x"),
        ],
        [Entry(b"b/", "dir"), Entry(b"a/.wh.x")],
    ],
    "nor if another name of the link's place is the listed one": [
        [
            Entry(b"s", "symlink", target=b"d"),
            Entry(b"d/l", "symlink", target=b"../e"),
            Entry(b"e/x"),
        ],
        [Entry(b"d/l/", "dir"), Entry(b"s/l/.wh.x")],
    ],
    "a link in a circle may become an opaque directory with directories": [
        [Entry(b"a", "symlink", target=b"a")],
        [Entry(b"a/", "dir"), Entry(b"a/.wh..wh..opq"), Entry(b"a/d/", "dir")],
    ],
    "no whiteout's name comes in by a symlink": [
        [Entry(b"s", "symlink", target=b".wh.d"), Entry(b"s/x")],
    ],
    "an opaque mark among AUFS's bookkeeping is bookkeeping": [
        [Entry(b".wh..wh.orph/d/.wh..wh..opq")],
    ],
    "a hard link to a directory of AUFS's bookkeeping is an error": [
        [Entry(b".wh..wh.plnk/", "dir"), Entry(b"a", "hardlink", target=PLNK_1[:12])],
    ],
    "AUFS's own link names the inode that its target named at that moment": [
        [
            Entry(b"a", content=b"old"),
            Entry(PLNK_1, "hardlink", target=b"a"),
            Entry(b"a", content=b"new"),
            Entry(b"b", "hardlink", target=PLNK_1),
        ],
    ],
    "a hard link to nothing is an error even if its name is listed again": [
        [Entry(b"a", "hardlink", target=b"nothing"), Entry(b"a")],
    ],
    "a hard link through a hard link to a symlink that comes later is resolved": [
        [
            Entry(b"a", "hardlink", target=b"s"),
            Entry(b"b", "hardlink", target=b"a/x"),
            Entry(b"s", "symlink", target=b"d"),
            Entry(b"d/x"),
        ],
    ],
    "an empty xattr is kept": [[Entry(b"a", xattrs=((b"user.z", b""),))]],
}


@pytest.mark.parametrize("image", FOUND.values(), ids=FOUND)
def test_what_was_found_stays_fixed(image: Image) -> None:
    assert outcome(image) == expected(image)


@given(images())
def test_the_tree_is_the_one_the_model_makes(image: Image) -> None:
    assert outcome(image) == expected(image)


@given(images().map(repaired))
def test_a_tree_squashed_into_one_layer_gives_the_same_bytes(image: Image) -> None:
    squash = [squashed(flattened(image))]

    tar = exported(image)

    assert tar is not None
    assert tar == exported(squash)


@given(images().map(repaired), st.data())
def test_other_layers_give_the_same_bytes_if_and_only_if_the_tree_is_the_same(
    image: Image, data: st.DataObject
) -> None:
    flat = [entry for each in image for entry in each]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(flat)), max_size=4)))
    split = [
        flat[start:end]
        for start, end in zip([0, *cuts], [*cuts, len(flat)], strict=True)
    ]
    shuffled = data.draw(st.permutations(image))
    for other in (split, shuffled):
        same_tree = expected(other) == expected(image)

        assert (exported(other) == exported(image)) == same_tree


@given(st.integers(MAX_LINKS - 3, MAX_LINKS + 3), st.booleans(), st.booleans())
def test_forty_links_on_the_way_are_followed_and_not_one_more(
    count: int, one_layer: bool, whiteout: bool
) -> None:
    links = [
        Entry(b"l%d" % n, "symlink", target=b"l%d" % (n + 1)) for n in range(count)
    ]
    ground = [*links, Entry(b"l%d/x" % count)]
    top = [Entry(b"l0/.wh.x" if whiteout else b"l0/a/y")]
    image = [[*ground, *top]] if one_layer else [ground, top]

    assert outcome(image) == expected(image)
