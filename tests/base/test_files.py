"""write_file: the old content or the new, whatever prevents the write."""

import os
import stat
import threading

import pytest
from watchdog import PATIENCE

from headgate._base import files
from headgate._base.files import write_file

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes are POSIX's")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_and_replaced(tmp_path):
    path = tmp_path / "file"
    for data in (b"one", b"another", b""):
        write_file(path, data)
        assert path.read_bytes() == data
        write_file(str(path), data * 2)
        assert path.read_bytes() == data * 2
    assert names(tmp_path) == ["file"]


@POSIX
def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_file(path, b"one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o604, 0o666):
            path.chmod(mode)
            write_file(path, b"another")
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@POSIX
def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    """Even where the name of the new file is foreseen."""
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"mine")
    monkeypatch.setattr(files, "urandom", lambda size: b"foreseen")
    (tmp_path / f".headgate-{b'foreseen'.hex()}.new").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_file(path, b"data")
    assert victim.read_bytes() == b"mine"
    assert not path.exists()


@POSIX
def test_a_link_at_the_path_itself_is_replaced(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"mine")
    path.symlink_to(victim)
    write_file(path, b"data")
    assert victim.read_bytes() == b"mine"
    assert path.read_bytes() == b"data" and not path.is_symlink()


@POSIX
def test_a_pipe_is_written_to(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    write_file(path, b"data")
    reader.join(PATIENCE)
    assert read == [b"data"]
    assert names(tmp_path) == ["pipe"] and path.is_fifo()


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"(?i)directory|denied"):
        write_file(tmp_path, b"data")
    assert names(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"data")
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]
