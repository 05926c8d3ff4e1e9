"""The view over folders and zips: what it shows, what it leaves out, what it refuses."""

import os
import stat
import zipfile

import pytest
from made_releases import write

from mlprobe_utils.datasets import file_tree
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.errors import InputError


def forge(path, entries):
    """A zip of (name or ZipInfo, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def test_a_zip_reads_as_if_unpacked_where_it_lies(tmp_path):
    write(tmp_path / "a/plain.png", b"plain")
    forge(tmp_path / "a/b.zip", [("b/one%0.png", b"one"), ("b/deep/two.png", b"two")])
    tree = FileTree(tmp_path)
    assert tree.paths == ["a/b/deep/two.png", "a/b/one%0.png", "a/plain.png"]
    assert [tree.read(path) for path in tree.paths] == [b"two", b"one", b"plain"]
    assert tree.folders_in("a/b") == ["deep"]
    assert "b.zip" in tree.source("a/b/one%0.png")


def test_the_root_may_be_a_zip_and_a_zip_may_hold_zips(tmp_path):
    inner = forge(tmp_path / "inner.zip", [("images/x.png", b"x")]).read_bytes()
    outer = forge(tmp_path / "COVID-CT-master.ZIP", [("COVID-CT-master/Images/inner.zip", inner)])
    tree = FileTree(outer)
    assert tree.paths == ["COVID-CT-master/Images/images/x.png"]
    assert tree.read(tree.paths[0]) == b"x"


def test_zips_nested_too_deep_are_refused(tmp_path):
    content = b"x"
    for i in range(file_tree.ZIP_DEPTH + 1):
        content = forge(tmp_path / f"{i}.zip", [(f"{i}.zip" if i else "x.png", content)]).read_bytes()
    with pytest.raises(InputError, match="unpack the outer ones"):
        _ = FileTree(tmp_path / f"{i}.zip").paths


def test_junk_is_left_out_and_listed(tmp_path):
    for name in (".DS_Store", "a/Thumbs.db", "__MACOSX/._x.png", ".git/config", "a/x.png"):
        write(tmp_path / name, b"1")
    forge(tmp_path / "z.zip", [("__MACOSX/z/._y.png", b"1"), ("z/.DS_Store", b"1"), ("z/y.png", b"1")])
    tree = FileTree(tmp_path)
    assert tree.paths == ["a/x.png", "z/y.png"]
    assert len(tree.junk) == 6  # four on disk (a hidden folder counts once), two in the zip


def test_a_file_that_is_also_zipped(tmp_path):
    write(tmp_path / "x.png", b"same")
    forge(tmp_path / "z.zip", [("x.png", b"size")])
    assert FileTree(tmp_path).read("x.png") == b"same"
    write(tmp_path / "x.png", b"longer")
    with pytest.raises(InputError, match=r"x\.png .6 bytes. and .*z\.zip: x\.png .4 bytes. differ"):
        _ = FileTree(tmp_path).paths


def linked():
    entry = zipfile.ZipInfo("link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../out.png", "leads out"),
        ("a/../../out.png", "leads out"),
        ("/etc/passwd", "leads out"),
        ("C:/out.png", "leads out"),
        ("c:out.png", "leads out"),
        ("a\\..\\..\\out.png", "leads out"),
        ("\\\\server\\out.png", "leads out"),
        (linked(), "is a link"),
    ],
)
def test_unsafe_entries_are_refused(tmp_path, name, problem):
    forge(tmp_path / "bad.zip", [(name, b"x")])
    with pytest.raises(InputError, match=rf"bad\.zip: the entry .*{problem}"):
        _ = FileTree(tmp_path).paths


def patched(path, signature, offset, value):
    """Overwrites bytes at an offset from the last occurrence of a record's signature."""
    data = bytearray(path.read_bytes())
    start = data.rindex(signature) + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)


def test_encrypted_and_absurd_entries_are_refused(tmp_path):
    encrypted = forge(tmp_path / "a/locked.zip", [("x.png", b"x")])
    patched(encrypted, b"PK\x01\x02", 8, b"\x01\x00")
    with pytest.raises(InputError, match=r"locked\.zip: the entry 'x.png' is encrypted"):
        _ = FileTree(tmp_path / "a").paths
    bomb = forge(tmp_path / "b/bomb.zip", [("x.png", b"x")])
    patched(bomb, b"PK\x01\x02", 24, (2**31).to_bytes(4, "little"))
    with pytest.raises(InputError, match=r"bomb\.zip: the entry 'x.png' claims 2147483648 bytes"):
        _ = FileTree(tmp_path / "b").paths


def test_damaged_zips_are_refused(tmp_path):
    whole = forge(tmp_path / "a/cut.zip", [("x.png", b"x" * 1000)])
    content = whole.read_bytes()
    write(whole, content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.zip is no zip or a damaged one"):
        _ = FileTree(tmp_path / "a").paths
    write(tmp_path / "b/flipped.zip", content.replace(b"x" * 1000, b"x" * 999 + b"y"))
    tree = FileTree(tmp_path / "b")
    with pytest.raises(InputError, match=r"flipped\.zip: x\.png cannot be unpacked"):
        tree.read("x.png")


def test_links(tmp_path):
    root = tmp_path / "root"
    inside = write(root / "x.png", b"x")
    (root / "y.png").symlink_to(inside)
    assert FileTree(root).read("y.png") == b"x"
    (tmp_path / "linked_root").symlink_to(root)
    assert FileTree(tmp_path / "linked_root").paths == ["x.png", "y.png"]
    outside = write(tmp_path / "secret.png", b"s")
    (root / "z.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"z\.png is a link that leaves"):
        _ = FileTree(root).paths
    os.unlink(root / "z.png")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(InputError, match="folder is a link to the folder"):
        _ = FileTree(root).paths


def test_a_missing_root_or_another_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        FileTree(tmp_path / "nowhere")
    with pytest.raises(InputError, match="give the folder"):
        _ = FileTree(write(tmp_path / "x.png", b"x")).paths
    with pytest.raises(InputError, match="holds no file y"):
        FileTree(tmp_path).read("y")


def test_the_fingerprint_follows_the_files_and_opens_none(tmp_path):
    file = write(tmp_path / "a/x.zip", b"no zip at all")
    first = FileTree(tmp_path).fingerprint()
    assert FileTree(tmp_path).fingerprint() == first
    os.utime(file, ns=(1, 1))
    assert FileTree(tmp_path).fingerprint() != first
