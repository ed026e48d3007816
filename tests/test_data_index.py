"""The index of large image folders: what it saves, and that it never shows what is not there."""

import os
import shutil
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import folder as folders
from minidl.data import index
from minidl.data.folder import ImagePaths, read_folder
from minidl.data.index import Listing, read_index, write_index

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An index of any folder, trusted at once, and a cache of the test's own."""
    monkeypatch.setattr(folders, "LARGE", 1)
    monkeypatch.setattr(index, "SETTLED", -(10**18))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_tree(root, per_class=3):
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            (root / name / f"{i:05}.JPEG").touch()
    (root / "bee/more/deep").mkdir(parents=True)
    (root / "bee/more/deep/x.png").touch()
    return root


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "data/train")


@pytest.fixture
def scanned(monkeypatch):
    """The folders that were read."""
    seen, scandir = [], os.scandir

    def recording(path):
        seen.append(Path(str(path)).name)  # rmtree gives a number
        return scandir(path)

    monkeypatch.setattr(os, "scandir", recording)
    return seen


def contents(tree):
    paths, labels = read_folder(tree, CLASSES)
    assert len(paths) == len(labels)
    return [
        (path.relative_to(tree).as_posix(), int(label))
        for path, label in zip(paths, labels, strict=True)
    ]


def walked(tree):
    """The same without an index, in any order."""
    return sorted(
        (path.relative_to(tree).as_posix(), CLASSES.index(path.relative_to(tree).parts[0]))
        for path in tree.rglob("*.*")
        if path.is_file()
    )


def test_a_second_look_reads_no_class_folder(tree, scanned):
    first = contents(tree)
    assert (tree.parent / ".train.minidl-index").is_file()
    assert scanned == ["train", "ant", "bee", "more", "deep", "cat"]
    scanned.clear()
    assert contents(tree) == first
    assert scanned == ["train"]
    assert sorted(first) == walked(tree)


def add(tree):
    (tree / "bee/new.jpg").touch()


def remove(tree):
    (tree / "cat/00001.JPEG").unlink()


def rename(tree):
    (tree / "ant/00000.JPEG").rename(tree / "ant/99999.JPEG")


def add_deep(tree):
    (tree / "bee/more/deep/y.png").touch()


def add_folder(tree):
    (tree / "cat/late").mkdir()
    (tree / "cat/late/z.gif").touch()


def remove_folder(tree):
    shutil.rmtree(tree / "bee/more")


def replace_folder(tree):
    """The same times, other images: as when an archive is unpacked that holds its times."""
    times = os.stat(tree / "ant")
    shutil.rmtree(tree / "ant")
    (tree / "ant").mkdir()
    (tree / "ant/other.png").touch()
    os.utime(tree / "ant", ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES = [add, remove, rename, add_deep, add_folder, remove_folder, replace_folder]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed_and_then_known(tree, scanned, change):
    contents(tree)
    change(tree)
    scanned.clear()
    after = contents(tree)
    assert len(scanned) < 5  # only what has changed is read again
    scanned.clear()
    assert contents(tree) == after
    assert scanned == ["train"]
    assert sorted(after) == walked(tree)


def test_a_folder_that_changed_just_now_is_read_again(tree, scanned, monkeypatch):
    monkeypatch.setattr(index, "SETTLED", 3600 * 10**9)
    first = contents(tree)
    scanned.clear()
    assert contents(tree) == first
    assert len(scanned) == 6


@given(data=st.data())
def test_damaged_indexes_count_as_none(tmp_path_factory, data):
    tree = tmp_path_factory.mktemp("data") / "train"
    make_tree(tree)
    expected = contents(tree)
    path = tree.parent / ".train.minidl-index"
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert read_index(tree) == {}
    assert contents(tree) == expected
    assert len(read_index(tree)) == 5  # and a whole one has taken its place


def test_where_the_folder_cannot_be_written_the_cache_is_used(tree, tmp_path, scanned):
    (tree.parent / ".train.minidl-index").mkdir()  # in the way, also of root
    first = contents(tree)
    (path,) = (tmp_path / "cache/minidl").iterdir()
    assert path.suffix == ".minidl-index"
    scanned.clear()
    assert contents(tree) == first
    assert scanned == ["train"]


def test_without_any_place_for_an_index_folders_are_listed_each_time(tree, tmp_path):
    (tree.parent / ".train.minidl-index").mkdir()
    (tmp_path / "cache").touch()
    assert sorted(contents(tree)) == sorted(contents(tree)) == walked(tree)


def test_of_two_indexes_the_newer_is_taken(tree, tmp_path):
    place = tree.parent / ".train.minidl-index"
    place.mkdir()
    write_index(tree, [Listing("ant", None, b"old.png\0")])
    place.rmdir()
    write_index(tree, [Listing("ant", None, b"new.png\0")])
    (cached,) = (tmp_path / "cache/minidl").iterdir()
    os.utime(cached, (1, 1))
    assert read_index(tree)["ant"].names == b"new.png\0"
    os.utime(place, (0, 0))
    assert read_index(tree)["ant"].names == b"old.png\0"


def test_small_folders_leave_no_index(tree, monkeypatch):
    monkeypatch.setattr(folders, "LARGE", 11)
    contents(tree)
    assert [path.name for path in tree.parent.iterdir()] == ["train"]


def test_many_at_once_all_see_the_same(tree):
    expected, found = sorted(walked(tree)), []

    def look():
        for i in range(15):
            found.append(sorted(contents(tree)))
            (tree.parent / ".train.minidl-index").write_bytes(b"minidl index 1\n" + bytes(i))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    assert all(names == expected for names in found)


def test_names_that_are_no_utf8_and_pipes(tmp_path):
    root = tmp_path / "train"
    (root / "ant").mkdir(parents=True)
    odd = [b"new\nline.png", b"\xff\xfe.jpg", "großer Käfer.jpg".encode(), b"a,b;c.gif"]
    for name in odd:
        open(os.path.join(os.fsencode(root / "ant"), name), "wb").close()
    os.mkfifo(root / "ant/pipe.png")
    os.symlink("nowhere", root / "ant/link.png")
    for _ in range(2):  # from the folder, and from the index
        paths, labels = read_folder(root, CLASSES)
        assert sorted(os.fsencode(path.name) for path in paths) == sorted([*odd, b"link.png"])
        assert labels.tolist() == [0] * 5
        assert sum(path.is_file() for path in paths) == 4


def test_paths_are_a_sequence(tree):
    paths, _ = read_folder(tree, CLASSES)
    assert paths[-1] == paths[len(paths) - 1] == tree / "cat/00002.JPEG"
    assert paths[6] == tree / "bee/more/deep/x.png"
    assert paths[1:3] == [paths[1], paths[2]]
    assert next(reversed(paths)) == paths[-1]
    with pytest.raises(IndexError):
        paths[len(paths)]


@pytest.mark.slow
def test_tens_of_thousands_of_images_take_few_bytes_each(tmp_path, scanned):
    root = tmp_path / "train"
    names = tuple(f"n{label:08}" for label in range(30))
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(1000):
            (root / name / f"{name}_{i}.JPEG").touch()
    for known in (False, True):
        scanned.clear()
        tracemalloc.start()
        paths, labels = read_folder(root, names)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(paths) == len(labels) == 30_000
        assert kept / 30_000 < 50  # a Path takes some 400
        assert peak / 30_000 < 200
        assert scanned == (["train"] if known else ["train", *names])
    assert isinstance(paths, ImagePaths)
    assert paths[12_345] == sorted((root / "n00000012").iterdir())[345]
