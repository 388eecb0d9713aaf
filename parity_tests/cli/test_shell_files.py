"""Output files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import rnnx
from rnnx.errors import FileError
from rnnx.files import check_output, read_bytes, write_bytes, writing

posix = pytest.mark.skipif(os.name != "posix", reason="not run: limits and signals of POSIX")

KILLED = """
    import os, signal, sys
    from rnnx.files import writing
    with writing(sys.argv[1]) as temporary:
        temporary.write_bytes(b"half of the new one")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def run(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(FileError) as caught:
        call()
    assert caught.value.exit_code == 2
    return caught.value.code


def test_file_is_written_with_the_usual_rights(tmp_path: Path) -> None:
    write_bytes(tmp_path / "out", b"new")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write() -> None:
        with writing(path) as temporary:
            temporary.write_bytes(b"half of the")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    program = """
        import resource, signal, sys
        from rnnx.errors import FileError
        from rnnx.files import write_bytes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_bytes(sys.argv[1], bytes(100_000))
        except FileError as error:
            print(error.code)
    """
    ended = run(program, path)
    assert (ended.stdout, ended.stderr) == ("disk-full\n", "")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    assert run(KILLED, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "out"
    assert code(lambda: check_output(path)) == "output-folder-missing"
    assert code(lambda: write_bytes(path, b"")) == "output-folder-missing"
    assert not path.parent.exists()


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    assert code(lambda: write_bytes(tmp_path / "file" / "out", b"")) == "output-folder-missing"
    assert (tmp_path / "file").read_bytes() == b"old"


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert code(lambda: write_bytes(tmp_path, b"")) == "output-is-folder"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alias", ["same", "dotted", "symbolic link", "hard link"])
def test_output_that_is_also_an_input(tmp_path: Path, alias: str) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"old")
    output = tmp_path / "link"
    if alias == "symbolic link":
        output.symlink_to(source)
    elif alias == "hard link":
        output.hardlink_to(source)
    else:
        output = source if alias == "same" else tmp_path / ".." / tmp_path.name / "in"
    assert code(lambda: check_output(output, inputs=(source,))) == "output-is-input"
    assert source.read_bytes() == b"old"


def test_output_beside_its_input_is_fine(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"same")
    output.write_bytes(b"same")
    assert check_output(output, inputs=(source,)) == output


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="not run: no /dev/null")
def test_device_is_not_replaced_by_a_file() -> None:
    assert code(lambda: check_output("/dev/null")) == "output-not-a-file"
    assert Path("/dev/null").is_char_device()


def test_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_link_that_leads_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "y.npy").symlink_to("y.npy")
    for write in (check_output, lambda path: write_bytes(path, b"new")):
        assert code(lambda write=write: write(tmp_path / "y.npy")) == "cannot-write"
    assert os.listdir(tmp_path) == ["y.npy"]


def test_name_longer_than_the_file_system_allows(tmp_path: Path) -> None:
    assert code(lambda: check_output(tmp_path / ("n" * 256))) == "name-too-long"
    assert code(lambda: check_output(tmp_path / ("é" * 128))) == "name-too-long"


def test_a_device_without_end_is_not_read() -> None:
    assert code(lambda: read_bytes("/dev/zero", what="a model")) == "cannot-read"


@pytest.mark.skipif(os.geteuid() == 0, reason="not run: root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert code(lambda: check_output(tmp_path / "y.npy")) == "cannot-write"


@posix
def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "out"
    run(KILLED, path)
    assert len(list(tmp_path.iterdir())) == 1
    write_bytes(tmp_path / "outer", b"of another name")
    assert len(list(tmp_path.iterdir())) == 2
    write_bytes(path, b"new")
    assert {found.name for found in tmp_path.iterdir()} == {"out", "outer"}


@posix
def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with writing(path) as temporary:
        temporary.write_bytes(b"the later one")
        run("import sys, rnnx.files; rnnx.files.write_bytes(sys.argv[1], b'the earlier one')", path)
        assert path.read_bytes() == b"the earlier one"
    assert path.read_bytes() == b"the later one"
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_files_mode_survives_replacing_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(mode)
    with writing(path) as temporary:
        assert temporary.stat().st_mode & 0o777 & ~mode == 0, "what is secret is secret while it is written"
        temporary.write_bytes(b"new")
    assert path.stat().st_mode & 0o777 == mode


@posix
@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root may give files away")
def test_a_files_owner_survives_replacing_it(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    os.chown(path, 1234, 1235)
    write_bytes(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


@posix
def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the whole process's: for a moment other threads would write files that all may read and write."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changed"))
    write_bytes(tmp_path / "out", b"new")


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_command_leave_nothing_half_written(tmp_path: Path, name: str) -> None:
    program = f"""
        import os, signal, sys
        from rnnx.cli.group import guarded
        from rnnx.files import writing

        def command():
            with writing(sys.argv[1]) as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getpid(), signal.{name})

        sys.exit(guarded(command, show_traceback=False))
    """
    ended = run(program, tmp_path / "out")
    assert ended.returncode == 128 + getattr(signal, name)
    assert ended.stderr == f"rnnx: ended by {name}\n"
    assert list(tmp_path.iterdir()) == []


@posix
def test_who_ignores_a_signal_goes_on_doing_so(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from rnnx.cli.group import guarded
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        sys.exit(guarded(lambda: os.kill(os.getpid(), signal.SIGHUP) or 7, show_traceback=False))
    """
    assert run(program).returncode == 7


@pytest.mark.parametrize("name", ["a\0b", "\ud800.onnx"])
def test_names_that_no_file_can_have_are_told(name: str) -> None:
    assert code(lambda: read_bytes(name, what="a model")) == "name-invalid"
    assert code(lambda: check_output(name)) == "name-invalid"
    assert code(lambda: rnnx.load(name)) == "name-invalid"
