"""dive's efficiency, done the long way: trees of nodes, copied and stacked for each mark.

Written from what dive/filetree does (v0.12), to check ``flatten.views.waste`` against;
it reads layers with Python's tarfile and shares nothing with the package.
"""

import io
import posixpath
import tarfile


class Node:
    """A name in a tree."""

    def __init__(self, parent, name):
        self.parent, self.name, self.children = parent, name, {}
        self.size, self.is_dir = 0, False

    def copy(self, parent=None):
        new = Node(parent, self.name)
        new.size, new.is_dir = self.size, self.is_dir
        new.children = {name: child.copy(new) for name, child in self.children.items()}
        return new

    def is_mark(self):
        return self.name.startswith(".wh.")

    def path(self):
        parts, node = [self.name.removeprefix(".wh.")], self.parent
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return "/".join(reversed(parts))

    def find(self, path):
        node = self
        for name in path.split("/"):
            node = node.children.get(name)
            if node is None:
                return None
        return node

    def add(self, path, size, is_dir):
        node = self
        for name in path.split("/"):
            if name not in node.children:
                if name.startswith(".wh..wh.."):
                    return
                node.children[name] = Node(node, name)
            node = node.children[name]
        node.size, node.is_dir = size, is_dir

    def deepest_first(self):
        for name in sorted(self.children, key=raw):
            yield from self.children[name].deepest_first()
        if self.parent is not None:
            yield self


def raw(name):
    return name.encode("utf-8", "surrogateescape")


def tree(tar):
    root, size = Node(None, ""), 0
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as opened:
        for info in opened:
            path = posixpath.normpath("/" + info.name).lstrip("/")
            content = info.size if info.isreg() else 0
            if path:
                size += content
                root.add(path, content, info.isdir())
    return root, size


def stacked(trees):
    whole = trees[0].copy()
    for upper in trees:
        for node in upper.deepest_first():
            path = node.path()
            if not node.is_mark():
                whole.add(path, node.size, node.is_dir)
            elif (gone := whole.find(path)) is not None:
                del gone.parent.children[gone.name]
    return whole


def efficiency(tars):
    """Return dive's score, size, user size and wasted bytes."""
    trees, sizes = zip(*map(tree, tars), strict=True) if tars else ((), ())
    noted = {}
    for position, each in enumerate(trees):
        below = None
        for node in each.deepest_first():
            if node.children:
                continue
            path, size = node.path(), node.size
            entry = noted.setdefault(path, [])
            if node.is_mark():
                if below is None:
                    below = stacked(trees[:position]) if position else trees[0]
                victim = below.find(path)
                if victim is None:
                    break
                size = (
                    sum(n.size for n in victim.deepest_first()) if victim.is_dir else 0
                )
            entry.append(size)
    total = sum(map(sum, noted.values()))
    least = sum(min(entry) if entry else -1 for entry in noted.values())
    wasted = sum(sum(entry) for entry in noted.values() if len(entry) > 1)
    return (least / total if total else 1.0), sum(sizes), sum(sizes[1:]), wasted
