"""Official archives are unpacked beside the prepared folder; one that would write elsewhere is refused as a whole."""

from __future__ import annotations

import io
import shutil
import stat
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import contents

from vfbench import archives
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


def test_what_a_killed_process_left_is_removed(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "out.unpacked" / "unpacked").mkdir(parents=True)
    (tmp_path / "out.unpacked" / "unpacked" / "old").touch()
    path = make_zip(tmp_path / "a.zip")
    with archives.unpacked([path], tmp_path / "out.unpacked") as folder:
        assert contents(folder) == FILES


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
    ):
        with pytest.raises(MissingData, match=r"its member '.*a' is there twice"):
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


def stand_in(programs: Path, listing: str, work: str) -> None:
    """An `unrar` that lists so, and does so in the folder it is to unpack in."""
    script = f"""#!{sys.executable}
import os, pathlib, sys
if sys.argv[1] == "lb":
    print({listing!r})
else:
    assert sys.argv[1] == "x" and sys.argv[-2].startswith("/")
    os.chdir(sys.argv[-1])
    {work}
"""
    path = programs / "unrar"
    path.write_text(script)
    path.chmod(0o755)


WRITE = "[(pathlib.Path(p).parent.mkdir(exist_ok=True), pathlib.Path(p).write_text(p)) for p in {!r}]"


@pytest.fixture
def rar(tmp_path: Path) -> Path:
    path = tmp_path / "-UCF $(touch x).rar"
    path.write_bytes(b"Rar!")
    return path


def test_rar_is_left_to_a_program(unpack: Unpack, programs: Path, rar: Path) -> None:
    stand_in(programs, "UCF-101\nUCF-101/a\n", WRITE.format(["UCF-101/a"]))
    assert unpack(rar) == {"UCF-101/a": b"UCF-101/a"}


def test_without_a_program_it_is_said_how_to_get_one(unpack: Unpack, programs: Path, rar: Path) -> None:
    with pytest.raises(BadEnvironment, match=r"nothing is installed .*: apt install unar, or brew install unar"):
        unpack(rar)


@pytest.mark.parametrize("name", CLIMBING)
def test_rar_that_lists_a_path_outside_is_not_unpacked(
    unpack: Unpack, programs: Path, rar: Path, tmp_path: Path, name: str
) -> None:
    stand_in(programs, f"fine\n{name}", f"pathlib.Path({str(tmp_path / 'done')!r}).touch()")
    with pytest.raises(MissingData, match="leads outside"):
        unpack(rar)


@pytest.mark.parametrize(
    ("work", "why"),
    [
        ("os.symlink('/tmp', 'a')", "'a' is a link or a device"),
        ("os.mkfifo('a')", "'a' is a link or a device"),
        ("open('../b', 'w')", "'b' was unpacked outside of its folder"),
    ],
)
def test_what_a_program_left_is_looked_at(unpack: Unpack, programs: Path, rar: Path, work: str, why: str) -> None:
    stand_in(programs, "a", work)
    with pytest.raises(MissingData, match=f"its member {why}"):
        unpack(rar)


def test_a_program_that_fails_is_quoted(unpack: Unpack, programs: Path, rar: Path) -> None:
    stand_in(programs, "a", "sys.exit('Checksum error')")
    with pytest.raises(MissingData, match=r"rar: unrar cannot read it \(Checksum error\); get it again"):
        unpack(rar)


@pytest.mark.parametrize("name", sorted(archives.UNPACKERS))
def test_each_program_lists_and_unpacks(
    unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    unpacker = archives.UNPACKERS[name]
    if name == "unrar" or not (shutil.which(unpacker.listing[0]) and shutil.which(unpacker.unpacking[0])):
        pytest.skip(f"{name} is not installed, or reads nothing but rar")
    monkeypatch.setattr(archives, "UNPACKERS", {name: unpacker})
    path = make_zip(tmp_path / "zip.zip").rename(tmp_path / "a.rar")  # they look at the content, not at the name
    listed = {member.name.rstrip("/") for member in archives.members(path)}
    assert set(FILES) <= listed <= {*FILES, "UCF-101", "lists"}
    assert unpack(path) == FILES
