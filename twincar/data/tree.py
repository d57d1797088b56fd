"""Folders of pictures -> class folders, for sources without annotation tables.

`scan` lists the tree below a source once. `find_classes` decides which folders are classes: folders by class, with or
without train/, val/ and test/ above or below them, and nested make/model(/year) folders, whose names are joined.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from twincar.config import (
    BODIES,
    MAKES,
    OTHER_IMAGE_SUFFIXES,
    STANFORD_CARS,
    canonical_class_name,
    parse_class_name,
    stanford_name,
)
from twincar.data.listing import CROP_FILE, DataError, split_of
from twincar.files import is_picture, is_system_name
from twincar.text import count

# Folders below a class folder whose names say nothing about the class
INNER = frozenset(
    (
        "photo", "photos", "picture", "pictures", "image", "images", "img", "imgs", "jpg", "jpeg", "jpegs", "png",
        "heic", "raw", "original", "originals", "more", "new", "front", "rear", "back", "side", "left", "right",
        "interior", "exterior", "inside", "outside",
    )
)  # fmt: skip
LABELS = frozenset(("labels", "annotations"))  # next to one of INNER: a dataset for detection
TABLES = frozenset(
    (
        ".csv", ".html", ".ipynb", ".json", ".mat", ".md", ".parquet", ".pdf", ".py", ".txt", ".xml", ".yaml",
        ".yml",
    )
)  # fmt: skip
SYSTEM, CROPS, UNLISTED = "system folder", "crops that `twincar crop` wrote", "cannot be listed"
SHOWN = 5  # folders named in a message


@dataclass
class Folder:
    """A folder of a source.

    Attributes:
        path: The folder.
        parts: Its names below the source.
        pictures: Names of the pictures directly in it, sorted.
        children: The folders in it, sorted.
        suffixes: Number of its other files, by suffix.
        ignored: Why the folder and what is below it is not read, or "".
    """

    path: Path
    parts: tuple[str, ...] = ()
    pictures: list[str] = field(default_factory=list)
    children: list["Folder"] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    ignored: str = ""

    def walk(self, ignored: bool = False) -> Iterator["Folder"]:
        """Yield this folder and those below it, those at a smaller depth first, with or without the ignored ones."""
        level = [self]
        while level:
            yield from level
            level = [child for folder in level for child in folder.children if ignored or not child.ignored]

    def __str__(self) -> str:
        return "/".join(self.parts) + "/" if self.parts else "the source itself"


@dataclass
class ClassFolder:
    """The pictures of a class and split in one folder.

    Attributes:
        name: The class name.
        split: train, val or test.
        folder: Where the pictures are.
    """

    name: str
    split: str
    folder: Folder


def scan(root: Path, skip: Path | None = None) -> Folder:
    """List a source and all folders below it, without `skip`. Links are followed, except into a folder above."""

    def listed(path: Path, parts: tuple[str, ...], above: frozenset[str], ignored: str) -> Folder:
        folder = Folder(path, parts, ignored=ignored)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:  # another user's folder next to the pictures
            folder.ignored = folder.ignored or "cannot be listed"
            return folder
        if parts and any(entry.name == CROP_FILE for entry in entries):
            folder.ignored = folder.ignored or CROPS
        for entry in entries:
            below = Path(entry.path)
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if below != skip and real not in above:
                    why = folder.ignored or (SYSTEM if is_system_name(entry.name) else "")
                    folder.children.append(listed(below, (*parts, entry.name), above | {real}, why))
            elif is_picture(entry.name):
                folder.pictures.append(entry.name)
            elif not is_system_name(entry.name):
                folder.suffixes[below.suffix.lower()] += 1
        return folder

    return listed(root, (), frozenset([os.path.realpath(root)]), "")


def pictures_in(folder: Folder) -> int:
    """Number of pictures in a folder and below it."""
    return sum(len(each.pictures) for each in folder.walk())


def describe_tree(root: Folder) -> str:
    """Say where the pictures are, for a refusal."""
    found = [(len(folder.pictures), str(folder)) for folder in root.walk() if folder.pictures]
    shown = [f"{count(n, 'picture')} in {where}" for n, where in found[:SHOWN]]
    if rest := found[SHOWN:]:
        shown.append(f"{count(sum(n for n, _ in rest), 'picture')} in {count(len(rest), 'other folder')}")
    return "found " + ", ".join(shown) if shown else "found no pictures"


def refuse_detection(root: Folder) -> None:
    """Raise DataError for a dataset for detection: images/ next to labels/, and no class folders in images/."""
    for folder in root.walk():
        images = [child for child in folder.children if child.path.name.lower() in INNER | {"jpegimages"}]
        labels = [child for child in folder.children if child.path.name.lower() in LABELS and not pictures_in(child)]
        inside = [each.parts[len(image.parts) :] for image in images for each in image.walk() if each.pictures]
        if labels and inside and all(split_of(part) for parts in inside for part in parts):
            raise DataError(
                f"{folder.path} holds pictures in {images[0].path.name}/ and their boxes in {labels[0].path.name}/: "
                "this is a dataset for detection, without classes; sort the pictures into one folder per class first."
            )


def count_unused(root: Folder, used: set[str], reason: str, reasons: dict[Path, str]) -> list[tuple[str, str, int]]:
    """Count the pictures of a tree that are not used: (folder, reason, number), most first.

    Args:
        root: The tree.
        used: Paths of the pictures that are used.
        reason: Why others are not.
        reasons: The reason for folders where it is another one.
    """
    found: Counter[tuple[str, str]] = Counter()
    for folder in root.walk(ignored=True):
        where = str(folder)
        if folder.ignored == SYSTEM:  # every folder of a NAS may hold one: counted together
            where = next(part for part in folder.parts if is_system_name(part)) + "/"
        left = sum(str(folder.path / name) not in used for name in folder.pictures)
        found[where, folder.ignored or reasons.get(folder.path, reason)] += left
        if not folder.ignored:
            for suffix in folder.suffixes.keys() & OTHER_IMAGE_SUFFIXES:
                found[where, f"{suffix} is not read"] += folder.suffixes[suffix]
    return [(where, why, n) for (where, why), n in found.most_common() if n]


# Classes ----------------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """Folders of the same name in all splits: `parts` are their names without those of the splits."""

    parts: tuple[str, ...] = ()
    places: list[tuple[str, Folder]] = field(default_factory=list)
    children: dict[str, "_Node"] = field(default_factory=dict)

    def walk(self) -> Iterator["_Node"]:
        yield self
        for child in self.children.values():
            yield from child.walk()

    @property
    def direct(self) -> int:
        return sum(len(folder.pictures) for _, folder in self.places)

    @property
    def total(self) -> int:
        return sum(node.direct for node in self.walk())

    @property
    def is_inner(self) -> bool:
        return self.parts[-1].lower() in INNER and all(child.is_inner for child in self.children.values())


def find_classes(root: Folder) -> tuple[list[ClassFolder], list[str]]:
    """Find the class folders of a tree, and notes about its folders; none if there are no two and no splits.

    A folder is a class if its name is complete (one of Stanford Cars, or with a year), or if most of the pictures in it
    are directly in it. What is below a class folder belongs to it.

    Raises:
        DataError: It cannot be decided which folders are classes.
    """
    top, has_splits = _without_splits(root)
    while len(top.children) == 1:  # car_data/car_data/, but not Audi/ with one folder per model
        [child] = top.children.values()
        if child.direct >= child.total - child.direct or _complete_name(child) is not None or _is_make(child.parts[-1]):
            break
        top = child
    nodes = [found for child in top.children.values() for found in _classes(child)]
    if len(nodes) < (1 if has_splits else 2) or {node.parts[-1].lower() for node in nodes} <= INNER:
        return [], []
    names = _names(nodes, len(top.parts), root)
    classes, notes = [], []
    for node, name in zip(nodes, names, strict=True):
        classes += [ClassFolder(name, split, folder) for each in node.walk() for split, folder in each.places]
    for node, name in zip(nodes, names, strict=True):
        if canonical_class_name(name) not in map(canonical_class_name, node.parts):
            notes.append(f"Class names are made of nested folders, such as {name} from {'/'.join(node.parts)}/.")
            break
    return classes, [*notes, *_empty_folders(root, {class_folder.folder.path for class_folder in classes})]


def _without_splits(root: Folder) -> tuple[_Node, bool]:
    """The tree with the folders of all splits merged, and whether there are any."""
    found = []
    for folder in root.walk():
        if folder.pictures and folder.parts:
            split, parts = None, list(folder.parts)
            place = next((i for i, part in enumerate(parts) if split_of(part)), None)
            if place is not None:
                split = split_of(parts.pop(place))
                while place < len(parts) and split_of(parts[place]) == split:  # train/train/: unpacked twice
                    parts.pop(place)
            found.append((split, parts, folder))
    splits = {split for split, parts, _ in found if split and parts}
    top = _Node()
    for split, parts, folder in found:
        if split in splits or (split is None and "train" not in splits):
            node = top
            for i, part in enumerate(parts, 1):
                node = node.children.setdefault(part, _Node((*parts[:i],)))
            node.places.append((split or "train", folder))
    return top, bool(splits)


def _classes(node: _Node) -> Iterator[_Node]:
    """Yield the nodes at and below `node` that are classes."""
    others = [child for child in node.children.values() if not child.is_inner]
    below = sum(child.total for child in others)
    if not others or _complete_name(node) is not None or node.total - below >= below:
        yield node
    else:
        for child in others:
            yield from _classes(child)


def _complete_name(node: _Node) -> str | None:
    """The class name of a folder that has a complete one, which folders below it do not add to."""
    for start in range(len(node.parts)):
        if name := stanford_name(" ".join(node.parts[start:])):
            return name
    years = [each for each in node.walk() if re.search(r"(?:^|[\s_$-])(?:19|20)\d\d$", each.parts[-1])]
    return "" if years == [node] else None


def _is_make(name: str) -> bool:
    return name.casefold() in {make.casefold() for make in MAKES} | {
        parse_class_name(car).make.casefold() for car in STANFORD_CARS
    }


def _names(nodes: list[_Node], depth: int, root: Folder) -> list[str]:
    """The class names of nodes below a folder at `depth`: their folder names, joined."""
    parts = [_plain_parts(node.parts[depth:]) for node in nodes]
    official = [_complete_name(node) for node in nodes]
    open_ = [i for i, name in enumerate(official) if name is None]
    shallow = min(map(len, parts))
    beginnings = Counter(each[:shallow] for each in parts)
    for i in open_:  # a/inner/ next to b/ is the class a
        if beginnings[parts[i][:shallow]] == 1:
            parts[i] = parts[i][:shallow]
    while len(open_) > 1 and min(len(parts[i]) for i in open_) > 1 and len({parts[i][-1] for i in open_}) == 1:
        if parts[open_[0]][-1].lower() in map(str.lower, BODIES):
            break
        for i in open_:  # every class folder has one folder, of the same name
            parts[i] = parts[i][:-1]
    depths = {len(parts[i]): nodes[i] for i in reversed(open_)}
    if len(depths) > 1:
        first, *_, last = ("/".join(node.parts) + "/" for _, node in sorted(depths.items()))
        raise DataError(
            f"The folders with pictures in {root.path} are at different depths, such as {first} and {last}: name the "
            "folder that holds one folder per class, or one per make with one per model in each."
        )
    return [name or " ".join(each) for name, each in zip(official, parts, strict=True)]


def _plain_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Folder names without those that say nothing, and without repetitions: Audi/images/A4/A4 -> Audi, A4."""
    plain = [part for i, part in enumerate(parts) if i == 0 or (part.lower() not in INNER and part != parts[i - 1])]
    return tuple(plain)


def _empty_folders(root: Folder, classes: set[Path]) -> list[str]:
    """A note about folders without a picture where class folders are expected."""
    found: list[str] = []

    def search(folder: Folder) -> None:
        for child in folder.children:
            if child.ignored or child.path in classes:
                continue
            if pictures_in(child):
                search(child)
            elif not (suffixes := sum((each.suffixes for each in child.walk()), Counter())):
                found.append(str(child))
            elif not suffixes.keys() <= TABLES:
                found.append(f"{child} ({', '.join(f'{n:,} {s or chr(39) * 2}' for s, n in suffixes.most_common(3))})")

    search(root)
    if not found:
        return []
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return [f"{count(len(found), 'folder')} without a readable picture left out: {', '.join(found[:SHOWN])}{more}."]
