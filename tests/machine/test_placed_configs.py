# SPDX-License-Identifier: Apache-2.0
"""Configs in their directory: what a process finds there, and what a hostile process cannot do with it."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from maestro_py.daemon import configs
from maestro_py.errors import MaestroError
from maestro_py.spec.model import ConfigFile, ConfigSpec
from maestro_py.spec.resolved import ResolvedProcess

GID = 65534 if os.geteuid() == 0 else os.getgid()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "web"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a directory that no config may reach."""
    path = tmp_path / "outside"
    path.mkdir(mode=0o700)
    (path / "precious").write_text("mine")
    return path


def process(top: Path, *held: ConfigSpec, composite: bool = False, **fields: Any) -> ResolvedProcess:
    return ResolvedProcess(
        name="web",
        members=tuple({config.job: None for config in held}),
        composite_id="web" if composite else "",
        configs=held,
        config_dir=str(top),
        **fields,
    )


def place(top: Path, *held: ConfigSpec, **more: Any) -> None:
    configs.place(process(top, *held, **more), {}, GID)


def data(name: str, content: str = "x", job: str = "web") -> ConfigSpec:
    return ConfigSpec(name, job, content)


def with_file(where: str, name: str = "default") -> ConfigSpec:
    return ConfigSpec(name, "web", files=(ConfigFile("http://x/f", where),))


def tree(top: Path) -> dict[str, bytes]:
    return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}


def untouched(outside: Path) -> bool:
    info = outside.stat()
    return (
        tree(outside) == {"precious": b"mine"}
        and stat.S_IMODE(info.st_mode) == 0o700
        and (info.st_gid == os.getegid())
    )


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    path = tmp_path / "download"
    path.write_bytes(b"downloaded")
    path.chmod(0o600)
    return path


# What is placed


def test_data_lies_under_its_configs_name_as_utf8_or_decoded_base64(top: Path) -> None:
    binary = ConfigSpec("key", "web", base64.b64encode(b"\0\xff").decode(), "base64")
    place(top, data("default", "grüße\n"), binary, data("a/../b"))
    assert tree(top) == {"default": "grüße\n".encode(), "key": b"\0\xff", "a%2F..%2Fb": b"x"}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_only_the_process_may_read_and_only_the_daemon_may_write(
    top: Path, downloaded: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        held = process(top, data("default"), with_file("sub/deep/f", "more"))
        configs.place(held, {("web", "more", "sub/deep/f"): str(downloaded)}, GID)
    finally:
        os.umask(before)
    for path in (top, top / "sub", top / "sub/deep"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
        assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), GID)
    for path in (top / "default", top / "sub/deep/f"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), GID)


def test_members_of_a_composite_have_a_directory_each(top: Path) -> None:
    place(top, data("default", "1", "a"), data("default", "2", "b/c"), composite=True)
    assert tree(top) == {"a/default": b"1", "b%2Fc/default": b"2"}


def test_a_downloaded_file_is_moved_into_place(top: Path, downloaded: Path) -> None:
    files = {("web", "default", "etc/app/f"): str(downloaded)}
    configs.place(process(top, with_file("etc/app/f")), files, GID)
    assert tree(top) == {"etc/app/f": b"downloaded"}
    assert not downloaded.exists()
    assert files == {}


def test_a_file_that_was_not_downloaded_again_stays(top: Path, downloaded: Path) -> None:
    held = with_file("f")
    configs.place(process(top, held), {("web", "default", "f"): str(downloaded)}, GID)
    place(top, held, data("more"))
    assert tree(top) == {"f": b"downloaded", "more": b"x"}


def test_a_download_on_another_file_system_is_placed_too(top: Path) -> None:
    elsewhere = Path("/dev/shm") / f"maestro-test-{os.getpid()}"
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == top.parent.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    elsewhere.write_bytes(b"downloaded")
    try:
        configs.place(process(top, with_file("a/f")), {("web", "default", "a/f"): str(elsewhere)}, GID)
    finally:
        elsewhere.unlink(missing_ok=True)
    assert tree(top) == {"a/f": b"downloaded"}
    assert stat.S_IMODE((top / "a/f").stat().st_mode) == 0o440


def test_missing_files_are_named(top: Path, downloaded: Path) -> None:
    held = ConfigSpec("default", "web", files=(ConfigFile("u", "a/f"), ConfigFile("u", "g")))
    assert configs.missing(process(top, held), held) == ["a/f", "g"]
    configs.place(process(top, held), {("web", "default", "g"): str(downloaded)}, GID)
    assert configs.missing(process(top, held), held) == ["a/f"]


# Changing


def test_a_reader_of_the_old_file_keeps_it_whole_and_a_new_one_gets_the_new_whole(top: Path) -> None:
    place(top, data("default", "old" * 5000))
    with open(top / "default") as reader:
        assert reader.read(3) == "old"
        place(top, data("default", "new" * 9000))
        assert reader.read() == "old" * 4999
    assert tree(top) == {"default": b"new" * 9000}


def test_the_directory_stays_the_same_one_because_it_may_be_mounted(top: Path) -> None:
    place(top, data("default", "old"))
    before = top.stat().st_ino
    place(top, data("default", "new"))
    place(top, ConfigSpec("default", "web"))  # a config without data: nothing in it, but it is announced
    assert tree(top) == {}
    assert top.stat().st_ino == before


def test_what_no_config_holds_any_more_is_taken_away(top: Path, downloaded: Path) -> None:
    both = process(top, with_file("a/b/f"), data("more"))
    configs.place(both, {("web", "default", "a/b/f"): str(downloaded)}, GID)
    (top / "planted").write_text("x")
    (top / "a" / "empty").mkdir()
    place(top, data("more"))
    assert tree(top) == {"more": b"x"}
    assert os.listdir(top) == ["more"]


def test_removing_takes_the_whole_directory_away_and_again_is_no_error(top: Path) -> None:
    held = process(top, data("default"), data("more"))
    configs.place(held, {}, GID)
    configs.remove(held)
    assert not top.exists()
    configs.remove(held)


def test_a_config_named_like_another_with_a_suffix_loses_nothing(top: Path) -> None:
    held = [data(f"x{tail}", f"content{tail}") for tail in (".new", ".tmp", "")]
    for _ in range(2):
        place(top, *held)
        assert tree(top) == {each.name: each.data.encode() for each in held}


def test_what_cannot_be_placed_is_named_and_leaves_the_old_whole_and_nothing_half(top: Path) -> None:
    place(top, data("default", "old"), data("zzz", "old"))
    (top / "zzz").unlink()
    (top / "zzz" / "in the way").mkdir(parents=True)
    with pytest.raises(MaestroError, match=r"^cannot place the config of web: .*zzz"):
        place(top, data("zzz", "new"))
    assert (top / "default").read_text() == "old"
    assert sorted(os.listdir(top)) == ["default", "zzz"]


# Links planted by a process that may write there (it has the daemon's uid, or is root)


def test_a_link_planted_where_data_goes_is_replaced_and_not_followed(top: Path, outside: Path) -> None:
    place(top, data("default", "old"))
    (top / "default").unlink()
    (top / "default").symlink_to(outside / "precious")
    place(top, data("default", "new"))
    assert not (top / "default").is_symlink()
    assert (top / "default").read_text() == "new"
    assert untouched(outside)


def test_links_planted_where_the_new_file_is_written_first_are_not_followed(top: Path, outside: Path) -> None:
    place(top, data("default", "old"))
    for name in ("default.new", "default.tmp", ".default.new", ".maestro-new", ".new"):
        (top / name).symlink_to(outside / "precious")
    place(top, data("default", "new"))
    assert tree(top) == {"default": b"new"}
    assert untouched(outside)


def test_a_link_planted_as_a_directory_on_the_way_is_not_followed(
    top: Path, outside: Path, downloaded: Path
) -> None:
    place(top, data("more"))
    (top / "sub").symlink_to(outside)
    held = process(top, data("more"), with_file("sub/precious"))
    configs.place(held, {("web", "default", "sub/precious"): str(downloaded)}, GID)
    assert untouched(outside)
    assert not (top / "sub").is_symlink()
    assert tree(top) == {"more": b"x", "sub/precious": b"downloaded"}


def test_a_link_planted_as_the_directory_itself_is_not_followed(top: Path, outside: Path) -> None:
    top.symlink_to(outside)
    place(top, data("default"))
    assert untouched(outside)
    assert not top.is_symlink()
    assert tree(top) == {"default": b"x"}


def test_links_lying_about_are_removed_and_what_they_point_to_stays(top: Path, outside: Path) -> None:
    held = process(top, data("default"))
    configs.place(held, {}, GID)
    (top / "to a directory").symlink_to(outside)
    (top / "to a file").symlink_to(outside / "precious")
    (top / "to nothing").symlink_to("nowhere")
    configs.place(held, {}, GID)
    assert os.listdir(top) == ["default"]
    (top / "to a directory").symlink_to(outside)
    configs.remove(held)
    assert not os.path.lexists(top)
    assert untouched(outside)
