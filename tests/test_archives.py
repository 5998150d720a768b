"""Official archives are unpacked beside the prepared folder; one that would write elsewhere is refused as a whole."""

from __future__ import annotations

import errno
import io
import shutil
import stat
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import contents

from vfbench import archives, rar
from vfbench.errors import BadEnvironment, MissingData, UserError

FILES = {"UCF-101/a b.avi": b"one", "UCF-101/-c.avi": b"two", "lists/t.txt": b""}
CLIMBING = ("../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:evil", "\\\\host\\evil", "a/..\\../evil")
Unpack = Callable[..., dict[str, bytes]]


def make_zip(path: Path, members: Sequence[tuple[str, bytes]] = tuple(FILES.items()), mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            with warnings.catch_warnings(action="ignore"):  # of two members of one name
                archive.writestr(info, content)
    return path


def make_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for member in members or [tarfile.TarInfo(name) for name in FILES]:
            content = FILES.get(member.name, b"")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """Unpack archives; whatever comes of it, nothing else is written, and the temporary folder is gone."""

    def run(*paths: Path) -> dict[str, bytes]:
        before = contents(tmp_path)
        try:
            with archives.unpacked(paths, tmp_path / "out.unpacked") as folder:
                return contents(folder)
        finally:
            assert contents(tmp_path) == before
            assert not (tmp_path / "out.unpacked").exists()

    return run


# What is unpacked.


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "a.tar", "a.tar.gz", "a.tgz", "-a b.zip"])
def test_zip_and_tar_are_unpacked(unpack: Unpack, tmp_path: Path, name: str) -> None:
    assert unpack((make_zip if name.lower().endswith("zip") else make_tar)(tmp_path / name)) == FILES


def test_parts_come_together(unpack: Unpack, tmp_path: Path) -> None:
    parts = make_zip(tmp_path / "a.zip", [("x/a", b"1")]), make_zip(tmp_path / "b.zip", [("x/b", b"2"), ("x/", b"")])
    assert unpack(*parts) == {"x/a": b"1", "x/b": b"2"}
    with pytest.raises(MissingData, match=r"a\.zip: x/a is in another of the archives"):
        unpack(*parts, parts[0])


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path, place = make_zip(tmp_path / "a.zip"), tmp_path / "out.unpacked"
    with archives.unpacked([path], place) as folder:
        (folder / "old").touch()
        shutil.copytree(place, tmp_path / "left")
    (tmp_path / "left").rename(place)
    with archives.unpacked([path], place) as folder:
        assert contents(folder) == FILES


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_the_user_has_there_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, place, mine = make_zip(tmp_path / "a.zip"), tmp_path / "out.unpacked", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    if kind == "link":
        place.symlink_to(mine)
    else:
        (mine if kind == "folder" else mine / "thesis.tex").rename(place)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"out\.unpacked is in the way"), archives.unpacked([path], place):
        pass
    assert contents(tmp_path) == before
    assert place.is_symlink() == (kind == "link")


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip")

    def pressed() -> None:
        with archives.unpacked([path], tmp_path / "out.unpacked"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pressed()
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_within_a_tar_is_kept(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", info("d/t"), info("d/e/link", tarfile.SYMTYPE, "../t"))
    with archives.unpacked([path], tmp_path / "out.unpacked") as folder:
        assert (folder / "d/e/link").resolve() == (folder / "d/t").resolve()


# What is refused.


@pytest.mark.parametrize("name", CLIMBING)
def test_paths_that_lead_outside_are_refused(unpack: Unpack, tmp_path: Path, name: str) -> None:
    for path in (make_zip(tmp_path / "a.zip", [("fine", b""), (name, b"")]), make_tar(tmp_path / "a.tar", info(name))):
        with pytest.raises(MissingData, match=r"its member .*evil.* leads outside of the folder"):
            unpack(path)


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("d/link", tarfile.SYMTYPE, "../../evil"),
        ("link", tarfile.SYMTYPE, "/tmp"),
        ("d/link", tarfile.LNKTYPE, "../evil"),
        ("link", tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_links_that_lead_outside_are_refused(
    unpack: Unpack, tmp_path: Path, name: str, kind: bytes, target: str
) -> None:
    with pytest.raises(MissingData, match=r"its member '.*link' leads outside"):
        unpack(make_tar(tmp_path / "a.tar", info("fine"), info(name, kind, target)))


def test_a_link_in_a_zip_is_refused(unpack: Unpack, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="its member 'link' leads outside"):
        unpack(make_zip(tmp_path / "a.zip", [("link", b"/etc")], stat.S_IFLNK | 0o777))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(unpack: Unpack, tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(MissingData, match="its member 'dev' is a device or a pipe"):
        unpack(make_tar(tmp_path / "a.tar", info("dev", kind)))


def test_two_members_of_one_name_are_refused(unpack: Unpack, tmp_path: Path) -> None:
    for path in (
        make_zip(tmp_path / "a.zip", [("d/a", b"1"), ("d/a", b"2")]),
        make_tar(tmp_path / "a.tar", info("d/a"), info("./d//a")),
        make_tar(tmp_path / "a.tar", info("a"), info("a", tarfile.DIRTYPE)),
        make_tar(tmp_path / "a.tar", info("a", tarfile.DIRTYPE), info("a", tarfile.SYMTYPE, "b")),
    ):
        with pytest.raises(MissingData, match=r"its member '.*a' is there twice"):
            unpack(path)


@pytest.mark.parametrize(("one", "two"), [("d/a", "D/a"), ("\u00e9", "e\u0301"), ("d/\u00df", "d/SS")])
def test_names_that_are_one_to_some_disk_are_refused(unpack: Unpack, tmp_path: Path, one: str, two: str) -> None:
    for path in (
        make_zip(tmp_path / "a.zip", [(one, b"1"), (two, b"2")]),
        make_tar(tmp_path / "a.tar", info(one), info(two)),
    ):
        with pytest.raises(MissingData, match=r"its member '.*' is there twice"):
            unpack(path)
    parts = make_zip(tmp_path / "a.zip", [(one, b"")]), make_zip(tmp_path / "b.zip", [(two, b"")])
    with pytest.raises(MissingData, match=r"b\.zip: .* is in another of the archives"):
        unpack(*parts)


BELOW = "stands below a file or a link"


@pytest.mark.parametrize(
    "members",
    [
        [info("a"), info("a/evil")],
        [info("a/evil"), info("A")],
        [info("d", tarfile.SYMTYPE, "e"), info("d/x")],
        [info("d/x/y"), info("d", tarfile.SYMTYPE, "e")],
    ],
)
def test_what_stands_below_a_file_or_a_link_is_refused(
    unpack: Unpack, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    with pytest.raises(MissingData, match=BELOW):
        unpack(make_tar(tmp_path / "a.tar", *members))
    if len({member.name for member in members}) == 2 and members[0].isfile():
        parts = [make_tar(tmp_path / f"{i}.tar", member) for i, member in enumerate(sorted(members, key=len_of_name))]
        with pytest.raises(MissingData, match=rf"1\.tar: .*{BELOW}"):
            unpack(*parts)


def len_of_name(member: tarfile.TarInfo) -> int:
    return len(member.name)


def test_a_folder_after_its_files_is_kept(unpack: Unpack, tmp_path: Path) -> None:
    members = [info("d/t"), info("d", tarfile.DIRTYPE), info("d/", tarfile.DIRTYPE)]
    assert unpack(make_tar(tmp_path / "a.tar", *members)) == {"d/t": b""}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_a_disk_that_fills_up_is_no_damage(
    unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name)
    for archive in (zipfile.ZipFile, tarfile.TarFile):
        monkeypatch.setattr(archive, "extract", full)
    with pytest.raises(BadEnvironment, match=r"cannot be unpacked \(No space left on device\): .* another --output"):
        unpack(path)


@pytest.mark.parametrize("kind", ["xz", "bz2", "gz"])
def test_a_packed_tar_that_is_damaged_within_is_named(unpack: Unpack, tmp_path: Path, kind: str) -> None:
    member, path = tarfile.TarInfo("a"), tmp_path / f"a.tar.{kind}"
    member.size = 1 << 20
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]  # not known to be one of them
        archive.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(member.size)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    path.write_bytes(content)
    with pytest.raises(MissingData, match=rf"a\.tar\.{kind}: cannot be unpacked .*; get this archive again"):
        unpack(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_a_damaged_archive_is_named(unpack: Unpack, tmp_path: Path, name: str) -> None:
    path = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name)
    for content in (path.read_bytes()[:40], b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(MissingData, match=rf"{name}: cannot be unpacked .*; get this archive again"):
            unpack(path)


def test_a_byte_that_changed_is_noticed(unpack: Unpack, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("a", b"0123456789")])
    path.write_bytes(path.read_bytes().replace(b"345", b"346"))
    with pytest.raises(MissingData, match="Bad CRC-32"):
        unpack(path)


def test_what_is_not_there_or_no_archive_is_refused(unpack: Unpack, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"a\.zip is not there"):
        unpack(tmp_path / "a.zip")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt is no archive that can be unpacked: known are \.zip, \.rar, \.tar"):
        unpack(tmp_path / "a.txt")


def test_a_full_disk_is_said_before_the_work(unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("usage", (), {"free": 2}))
    with pytest.raises(BadEnvironment, match=r"0 MB, and 0 MB are free: choose another --output"):
        unpack(make_zip(tmp_path / "a.zip"))


# Rar, by programs.


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found."""
    folder = tmp_path_factory.mktemp("programs")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(programs: Path, members: Sequence[tuple[str, str]], work: str) -> None:
    """An `unrar` that lists such names and types, and does so in the folder it is to unpack in."""
    listing = "".join(f"\n        Name: {name}\n        Type: {kind}\n        Size: 5\n" for name, kind in members)
    script = f"""#!{sys.executable}
import os, pathlib, sys
if sys.argv[1] == "lt":
    print({listing!r})
else:
    assert sys.argv[1] == "x" and sys.argv[-2].startswith("/")
    os.chdir(sys.argv[-1])
    {work}
"""
    path = programs / "unrar"
    path.write_text(script)
    path.chmod(0o755)


A_FILE = [("a", "File")]
WRITE = "[(pathlib.Path(p).parent.mkdir(exist_ok=True), pathlib.Path(p).write_text(p)) for p in {!r}]"


@pytest.fixture
def rar_file(tmp_path: Path) -> Path:
    path = tmp_path / "-UCF $(touch x).rar"
    path.write_bytes(b"Rar!")
    return path


def test_rar_is_left_to_a_program(unpack: Unpack, programs: Path, rar_file: Path) -> None:
    stand_in(programs, [("UCF-101/a", "File"), ("UCF-101", "Directory")], WRITE.format(["UCF-101/a"]))
    assert unpack(rar_file) == {"UCF-101/a": b"UCF-101/a"}


def test_without_a_program_it_is_said_how_to_get_one(unpack: Unpack, programs: Path, rar_file: Path) -> None:
    with pytest.raises(BadEnvironment, match=r"nothing is installed .*: apt install unar, or brew install unar"):
        unpack(rar_file)


@pytest.mark.parametrize("name", CLIMBING)
def test_rar_that_lists_a_path_outside_is_not_unpacked(
    unpack: Unpack, programs: Path, rar_file: Path, tmp_path: Path, name: str
) -> None:
    stand_in(programs, [("fine", "File"), (name, "File")], f"pathlib.Path({str(tmp_path / 'done')!r}).touch()")
    with pytest.raises(MissingData, match="leads outside"):
        unpack(rar_file)


@pytest.mark.parametrize(
    ("work", "why"),
    [
        ("os.symlink('/tmp', 'a')", "'a' is a link or a device"),
        ("os.mkfifo('a')", "'a' is a link or a device"),
        ("open('../b', 'w')", "'b' was unpacked outside of its folder"),
    ],
)
def test_what_a_program_left_is_looked_at(unpack: Unpack, programs: Path, rar_file: Path, work: str, why: str) -> None:
    stand_in(programs, A_FILE, work)
    with pytest.raises(MissingData, match=f"its member {why}"):
        unpack(rar_file)


@pytest.mark.parametrize("kind", ["Unix symbolic link", "Hard link", "File reference", "File\n        Type: Unix", ""])
def test_rar_with_a_link_is_not_unpacked(
    unpack: Unpack, programs: Path, rar_file: Path, tmp_path: Path, kind: str
) -> None:
    stand_in(programs, [("d", kind), ("d/evil", "File")], f"pathlib.Path({str(tmp_path / 'done')!r}).touch()")
    with pytest.raises(MissingData, match="its member 'd' is a link"):
        unpack(rar_file)


def test_a_program_that_fills_the_disk_is_no_damage(
    unpack: Unpack, programs: Path, rar_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(programs, A_FILE, "sys.exit('Write error')")
    monkeypatch.setattr(rar, "FULL", 1 << 60)
    with pytest.raises(BadEnvironment, match=r"the disk of .*out\.unpacked is full: make room"):
        unpack(rar_file)


def test_a_program_that_knows_no_rar_is_no_damage(unpack: Unpack, programs: Path, rar_file: Path) -> None:
    stand_in(programs, A_FILE, "sys.exit('ERROR: Unsupported Method : a')")
    with pytest.raises(BadEnvironment, match="cannot unpack rar: apt install unar"):
        unpack(rar_file)


def test_a_program_that_fails_is_quoted(unpack: Unpack, programs: Path, rar_file: Path) -> None:
    stand_in(programs, A_FILE, "sys.exit('Checksum error')")
    with pytest.raises(MissingData, match=r"rar: unrar cannot read it \(Checksum error\); get it again"):
        unpack(rar_file)


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Leave one program to be used, if it is here."""
    unpacker = rar.UNPACKERS[name]
    if not (shutil.which(unpacker.listing[0]) and shutil.which(unpacker.unpacking[0])):
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(rar, "UNPACKERS", {name: unpacker})


@pytest.mark.parametrize("name", ["7z", "unar", "bsdtar"])  # unrar reads nothing but rar, which nothing free writes
def test_each_program_lists_and_unpacks(
    unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    only(monkeypatch, name)
    path = make_zip(tmp_path / "zip.zip").rename(tmp_path / "a.rar")  # they look at the content, not at the name
    listed = {member.name.rstrip("/"): member.size for member in archives.members(path)}
    assert set(FILES) <= listed.keys() <= {*FILES, "UCF-101", "lists"}
    assert name == "bsdtar" or {file: listed[file] for file in FILES} == {file: len(FILES[file]) for file in FILES}
    assert unpack(path) == FILES


@pytest.mark.parametrize("name", ["7z", "unar"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_each_program_tells_links(
    unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: bytes
) -> None:
    only(monkeypatch, name)
    folder = info("f", tarfile.DIRTYPE)
    folder.mode = 0o755
    path = make_tar(tmp_path / "a.tar", folder, info("d/t"), info("d/link", kind, "d/t")).rename(tmp_path / "a.rar")
    kinds = {member.name: member.kind for member in archives.members(path)}
    assert {file: kinds[file] for file in ("f", "d/t", "d/link")} == {"f": "folder", "d/t": "file", "d/link": "link"}
    with pytest.raises(MissingData, match="its member 'd/link' is a link"):
        unpack(path)


def test_the_listing_of_unrar() -> None:
    """As unrar 6.21 prints it."""
    listed = rar.UNPACKERS["unrar"].members(UNRAR)
    assert [tuple(member)[:3] for member in listed] == [
        ("sub/with space/a: b.txt", "file", 8),
        ("data_link", "link", 8),
        ("sub", "folder", 0),
    ]


UNRAR = """
UNRAR 6.21 freeware      Copyright (c) 1993-2023 Alexander Roshal

Archive: a.rar
Details: RAR 4

        Name: sub/with space/a: b.txt
        Type: File
        Size: 8
 Packed size: 8
       mtime: 2020-07-20 21:02:17,499892000
  Attributes: -rw-r--r--
     Host OS: Unix

        Name: data_link
        Type: Unix symbolic link
      Target: data.txt
        Size: 8
  Attributes: lrwxrwxrwx

        Name: sub
        Type: Directory
 Packed size: 0
  Attributes: drwxr-xr-x
"""
