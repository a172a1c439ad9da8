# SPDX-License-Identifier: Apache-2.0
"""The image store: what counts as installed, atomic switching, and cleaning up after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.errors import Conflict, MaestroError, NotFound
from maestro_py.images import store as store_module
from maestro_py.images.files import remove_tree
from maestro_py.images.staging import SLICE
from maestro_py.images.store import ImageStore
from maestro_py.spec.model import Checksum, ImageSpec


def image(version: str = "1.0", job: str = "web", digit: str = "a", **more: Any) -> ImageSpec:
    checksum = Checksum("sha256sum", digit * 64)
    return ImageSpec(job=job, version=version, url=f"http://x/{version}.tgz", checksum=checksum, **more)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(str(tmp_path / "images"), str(tmp_path / "scratch"))
    store.clean_staging()
    return store


def staged(store: ImageStore, spec: ImageSpec, content: str = "x") -> str:
    tree = store.stage(spec)
    (Path(tree) / "d").mkdir(parents=True)
    (Path(tree) / "d" / "file").write_text(content)
    return tree


def install(store: ImageStore, spec: ImageSpec, content: str = "x", **meta: Any) -> str:
    return store.publish(spec, staged(store, spec, content), {"bytes": len(content), **meta})


def empty(store: ImageStore) -> None:
    while store.empty_trash():
        pass
    assert os.listdir(store.trash) == []


def test_a_published_image_is_installed_where_the_path_says(store: ImageStore) -> None:
    spec = image()
    assert not store.installed(spec)
    path = install(store, spec)
    assert path == store.path(spec) == f"{store.root}/web/1.0-aaaaaaaaaaaa"
    assert store.installed(spec)
    assert Path(path, "d/file").read_text() == "x"
    assert os.listdir(store.staging) == []


def test_another_checksum_or_version_is_another_image(store: ImageStore) -> None:
    install(store, image())
    assert not store.installed(image(digit="b"))
    assert not store.installed(image("1.1"))
    same_digits = ImageSpec("web", "1.0", "u", checksum=Checksum("sha256sum", "a" * 12 + "b" * 52))
    assert store.path(same_digits) == store.path(image())
    assert not store.installed(same_digits)


def test_without_a_checksum_the_url_stands_for_the_content(store: ImageStore) -> None:
    spec = ImageSpec("web", "1", "http://x/one")
    install(store, spec)
    assert store.installed(spec)
    assert not store.installed(ImageSpec("web", "1", "http://x/two"))


def test_publishing_again_replaces_the_content_and_keeps_the_old_one_out_of_the_way(
    store: ImageStore,
) -> None:
    path = install(store, image(), "old")
    with open(path + "/d/file") as held:
        install(store, image(), "new")
        assert held.read() == "old"
    assert Path(path, "d/file").read_text() == "new"
    empty(store)


def test_switching_moves_current_to_previous(store: ImageStore) -> None:
    one, two = image("1"), image("2")
    install(store, one)
    install(store, two)
    assert store.current("web") is None
    store.switch("web", one)
    assert store.previous("web") is None
    store.switch("web", two)
    store.switch("web", two)
    current, previous = store.current("web"), store.previous("web")
    assert current
    assert previous
    assert (current["version"], previous["version"]) == ("2", "1")
    assert current["path"] == store.path(two)
    assert os.readlink(f"{store.root}/web/current") == two.dirname
    store.switch("web", one)
    assert versions(store) == ("1", "2")


def test_only_what_is_installed_becomes_current(store: ImageStore) -> None:
    with pytest.raises(NotFound, match=r"cannot switch web to image web 1\.0: it is not installed"):
        store.switch("web", image())


@pytest.mark.parametrize("fault", ["rename", "write_synced", "sync_dir"])
def test_an_interrupted_publish_is_not_installed_and_is_cleaned_up(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    install(store, image("0"))
    spec = image()
    tree = staged(store, spec)
    calls = []

    def power_cut(*args: object) -> None:
        calls.append(args)
        raise OSError(5, "power cut")

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os if fault == "rename" else store_module, fault, power_cut)
        with pytest.raises(MaestroError, match=r"cannot store image web 1\.0: power cut"):
            store.publish(spec, tree, {})
    assert calls
    if fault != "sync_dir":  # by then everything is there, if the disk took it
        assert not store.installed(spec)
    again = ImageStore(store.root, store.scratch)
    again.clean_staging()
    assert os.listdir(store.staging) == os.listdir(store.spent) == []
    assert again.installed(image("0"))
    left = {name for name in os.listdir(f"{store.root}/web") if name.lstrip(".").startswith("1.0")}
    assert left == ({spec.dirname, f".{spec.dirname}.json"} if again.installed(spec) else set())
    install(again, spec)
    assert again.installed(spec)
    empty(again)


def test_current_and_previous_change_by_one_rename(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1", "2", "3"):
        install(store, image(version))
    store.switch("web", image("1"))
    store.switch("web", image("2"))

    def cut(directory: str, name: str, target: str) -> None:
        raise OSError(5, "power cut")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "link", cut)
        with pytest.raises(MaestroError):
            store.switch("web", image("3"))
    assert versions(store) == ("2", "1")
    store.switch("web", image("3"))
    assert versions(store) == ("3", "2")


def versions(store: ImageStore, job: str = "web") -> tuple[str, str]:
    current, previous = store.current(job), store.previous(job)
    return (current["version"] if current else "", previous["version"] if previous else "")


def test_a_version_that_comes_back_takes_its_old_place(store: ImageStore) -> None:
    for version in ("1", "2", "3"):
        install(store, image(version))
        store.switch("web", image(version))
    store.switch("web", image("2"), back=True)
    assert versions(store) == ("2", "1")
    store.switch("web", image("3"))
    assert versions(store) == ("3", "2")


def test_a_torn_record_is_no_record(store: ImageStore) -> None:
    path = install(store, image())
    Path(os.path.dirname(path), f".{os.path.basename(path)}.json").write_text('{"job": "we')
    assert not store.installed(image())
    assert store.list() == []


def test_cleaning_takes_leftovers_and_nothing_else(store: ImageStore) -> None:
    path = install(store, image())
    store.switch("web", image())
    staged(store, image("2"))
    job = Path(path).parent
    (job / "no-record").mkdir()
    (job / ".no-directory.json").write_text("{}")
    (job / ".0123.json").write_text("{}")
    (job / ".0123").symlink_to("x")
    mine = Path(store.scratch, "somebody-elses")
    mine.write_text("")
    store.clean_staging()
    assert sorted(os.listdir(job)) == sorted(
        ["current", os.path.basename(path), f".{os.path.basename(path)}.json"]
    )
    assert mine.exists()
    assert store.installed(image())
    empty(store)


def test_the_list_says_which_version_is_which(store: ImageStore) -> None:
    for version in ("1", "2", "3"):
        install(store, image(version))
    install(store, image(job="../odd job/"), "xyz")
    store.switch("web", image("1"))
    store.switch("web", image("3"))
    rows = store.list()
    assert [(row["job"], row["version"], row["current"], row["previous"]) for row in rows] == [
        ("../odd job/", "1.0", False, False),
        ("web", "1", False, True),
        ("web", "2", False, False),
        ("web", "3", True, False),
    ]
    assert rows[0]["size"] == 3
    assert rows[0]["checksum"] == {"type": "sha256sum", "value": "a" * 64}
    assert rows[0]["path"].startswith(store.root + "/%2E")


def test_removing_versions(store: ImageStore) -> None:
    for version in ("1", "2"):
        install(store, image(version))
        store.switch("web", image(version))
    store.mark("web", image("2").dirname, pinned=True)
    with pytest.raises(Conflict, match="it is pinned"):
        store.remove_version("web", image("2").dirname)
    store.mark("web", image("2").dirname, pinned=None)
    for wrong in ("nothing", "current", "..", "../web"):
        with pytest.raises((NotFound, Conflict)):
            store.remove_version("web", wrong)
    store.remove_version("web", image("1").dirname)
    assert store.previous("web") is None
    assert [row["version"] for row in store.list()] == ["2"]
    store.remove_version("web", image("2").dirname)
    assert store.list() == []
    assert os.listdir(store.root + "/web") == []
    empty(store)


def test_what_may_be_collected_is_neither_used_nor_pinned_nor_current_or_previous(store: ImageStore) -> None:
    for version in ("1", "2", "3", "4", "5"):
        install(store, image(version))
        store.switch("web", image(version))
    install(store, image("1", job="gone"))
    store.switch("gone", image("1", job="gone"))
    store.mark("web", image("1").dirname, pinned=True)
    found = store.unused({("web", image("2").dirname)}, {"web"})
    assert [(meta["job"], meta["version"]) for meta in found] == [("gone", "1"), ("web", "3")]


def test_a_twin_is_the_same_archive_unpacked_in_the_same_way(store: ImageStore) -> None:
    made = {"owner": None, "allow": []}
    install(store, image(job="one"), made=made)
    twin = store.twin(image(job="two"), made)
    assert twin
    assert twin["path"] == store.path(image(job="one"))
    assert store.twin(image(job="one"), made) is None, "a version is no twin of itself"
    assert store.twin(image(job="two"), {**made, "owner": "archive"}) is None
    assert store.twin(image(job="two", digit="b"), made) is None
    store.mark("one", image().dirname, damaged="a: its content changed")
    assert store.twin(image(job="two"), made) is None


def test_discarding_takes_files_directories_and_nothing(store: ImageStore) -> None:
    store.discard(store.stage(image()))
    tree = staged(store, image())
    Path(f"{tree}.sums").touch()
    store.discard(tree, f"{tree}.sums")
    assert os.listdir(store.staging) == []
    empty(store)


def download(store: ImageStore, size: int) -> Path:
    path = Path(store.scratch, "download")
    path.touch()
    os.truncate(path, size)
    return path


def test_a_large_download_that_was_used_goes_bit_by_bit(store: ImageStore) -> None:
    path = download(store, 3 * SLICE + 1)
    assert store.spend(str(path))
    assert not path.exists(), "the same may come again meanwhile"
    (spent,) = Path(store.spent).iterdir()
    sizes = []
    while store.free_spent():
        sizes.append(spent.stat().st_size)
    assert sizes == [2 * SLICE + 1, SLICE + 1, 1]
    assert not spent.exists()


def test_a_used_download_goes_at_once_when_it_is_small_or_has_another_name(store: ImageStore) -> None:
    assert not store.spend(str(download(store, SLICE)))
    assert not store.spend(str(download(store, SLICE))), "it may be gone already"
    path = download(store, 2 * SLICE)
    other = Path(store.scratch, "other")
    os.link(path, other)
    assert not store.spend(str(path))
    assert os.listdir(store.spent) == []
    assert not path.exists()
    assert other.stat().st_size == 2 * SLICE


def test_what_a_run_left_of_spent_downloads_goes_with_the_next(store: ImageStore) -> None:
    assert store.spend(str(download(store, 2 * SLICE)))
    ImageStore(store.root, store.scratch).clean_staging()
    assert os.listdir(store.spent) == []


def test_the_trash_is_emptied_in_slices(store: ImageStore) -> None:
    path = Path(install(store, image()))
    for index in range(300):
        (path / f"{index}").mkdir()
        (path / f"{index}" / "file").touch()
    store.remove_version("web", image().dirname)
    slices = 1
    while store.empty_trash(0.001):
        slices += 1
        assert slices < 1000
    assert slices > 2
    empty(store)


def test_a_tree_goes_whatever_is_in_it_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    deep = tmp_path / "tree" / "/".join(["d"] * 400)
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(tmp_path / "kept")
    os.mkfifo(deep / "fifo")
    (tmp_path / "tree" / "locked").mkdir()
    (tmp_path / "tree" / "locked" / "file").touch()
    (tmp_path / "tree" / "locked").chmod(0o555)
    assert remove_tree(str(tmp_path / "tree"))
    assert remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


def test_an_image_that_cannot_fit_is_refused_with_figures(store: ImageStore) -> None:
    assert store.free_space_problem(image()) is None
    problem = store.free_space_problem(image(size=1 << 60))
    assert problem
    assert problem.startswith("cannot install image web 1.0: needs ")
    assert problem.endswith(f" free on {store.root}")
    assert 0 < store.unpack_room() < 1 << 60
    assert 0 < store.download_room() < 1 << 60


def test_a_store_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = ImageStore(str(tmp_path / "file" / "images"), str(tmp_path))
    with pytest.raises(MaestroError, match=r"cannot use the image directories: .*Not a directory"):
        store.stage(image())


@given(job=st.text(min_size=1, max_size=30), version=st.text(max_size=20))
def test_no_name_leaves_the_store(job: str, version: str) -> None:
    try:
        job.encode(), version.encode()
    except UnicodeEncodeError:
        return
    path = ImageStore("/store", "/scratch").path(image(version, job))
    assert os.path.normpath(path) == path
    assert path.startswith("/store/")
    assert path.count("/") == 3
    assert not path.split("/")[2].startswith(".")


def test_the_daemon_may_import_it() -> None:
    heavy = {"asyncio", "logging", "argparse", "subprocess", "threading", "pathlib", "tempfile", "shutil"}
    heavy |= {"hashlib", "tarfile", "zipfile", "requests", "urllib"}
    code = "import sys; now = {*sys.modules}; import maestro_py.images.store, json"
    code += "; print(json.dumps([*({*sys.modules} - now)]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert heavy & {*json.loads(done.stdout)} == set()
