# SPDX-License-Identifier: Apache-2.0
"""What a process finds in the file system: its own mounts, directories, devices and secrets."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.jail import USR, attack, make_jail
from support.launching import process, run

from maestro_py.errors import MaestroError
from maestro_py.process import isolation, kernel
from maestro_py.process.accounts import Credentials
from maestro_py.spec.model import Mount, Secret
from maestro_py.spec.places import DATA_INSIDE, RUN_INSIDE, SECRETS_INSIDE
from maestro_py.spec.resolved import ResolvedProcess

pytestmark = pytest.mark.root

NOBODY = 65534
READ_ONLY = "Read-only file system"
KEY = Secret("key", data="x")
MOUNTINFO = "print(open('/proc/self/mountinfo').read())"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory every user may pass."""
    with tempfile.TemporaryDirectory(prefix="maestro-view-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def jail(place: Path) -> Path:
    return make_jail(place / "jail")


@pytest.fixture(autouse=True)
def _nothing_is_left_mounted() -> Iterator[None]:
    before = Path("/proc/self/mountinfo").read_text()
    yield
    assert Path("/proc/self/mountinfo").read_text() == before


def points(text: str) -> dict[str, set[str]]:
    """Mount points and their options."""
    return {line.split()[4]: set(line.split()[5].split(",")) for line in text.splitlines()}


def failure(**fields: Any) -> str:
    result = run(process("/bin/true", **fields))
    assert result.failure is not None
    return result.failure.message


# mounts and tmpfs


@pytest.mark.parametrize("rooted", [True, False])
def test_a_mount_is_read_only_and_without_devices_unless_said(place: Path, jail: Path, rooted: bool) -> None:
    shown, other = place / "shown", place / "other"
    shown.mkdir()
    other.mkdir()
    (shown / "file").write_text("theirs")
    mounts = (Mount(str(shown), str(other)), Mount(str(shown), str(shown), ("rw", "noexec")))
    found = points(attack(MOUNTINFO, jail=jail if rooted else None, mounts=mounts))
    assert {"ro", "nosuid", "nodev"} <= found[str(other)]
    assert {"rw", "nosuid", "nodev", "noexec"} <= found[str(shown)]
    code = f"print(open('{other}/file').read())\nopen('{shown}/new', 'w').write('mine')"
    assert attack(code, jail=jail if rooted else None, mounts=mounts) == "theirs"
    assert (shown / "new").read_text() == "mine"
    assert os.listdir(other) == []


def test_what_is_mounted_below_a_mount_is_restricted_too(place: Path, jail: Path) -> None:
    """A bind takes the mounts below it along; each has flags of its own."""
    name = "in\t \\ner\n\\040"  # as mountinfo escapes it
    inner = place / "outer" / name
    inner.mkdir(parents=True)
    code = (
        "import os, sys; from maestro_py.process import kernel; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from support.jail import attack\n"
        "from maestro_py.spec.model import Mount\n"
        "kernel.unshare(kernel.CLONE_NEWNS)\n"
        "kernel.mount('none', '/', None, kernel.MS_REC | kernel.MS_PRIVATE)\n"
        "kernel.mount('tmpfs', sys.argv[2] + sys.argv[4], 'tmpfs', 0)\n"
        "write = f\"open({'/shown' + sys.argv[4] + '/x'!r}, 'w').write('x')\\nprint('got it')\"\n"
        "for options in ('rw',), ('ro',):\n"
        "    print(attack(write, jail=Path(sys.argv[3]), mounts=(Mount(sys.argv[2], '/shown', options),)))\n"
        "print(attack(\"open('/x', 'w')\", read_only_root=True))\n"
        "print(attack(write.replace('/shown', sys.argv[2]), read_only_root=True))\n"
    )
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, tests, str(place / "outer"), str(jail), f"/{name}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tests).parent)},
    )
    # with the device's root read-only /tmp is a new one, so that the directory is not even there
    assert done.stdout.splitlines() == ["got it", READ_ONLY, READ_ONLY, "No such file or directory"], (
        done.stderr
    )


def test_the_flags_a_source_has_stay(place: Path, jail: Path) -> None:
    """/proc is nosuid, nodev and noexec here; showing it elsewhere loses none of that."""
    found = points(attack(MOUNTINFO, jail=jail, mounts=(Mount("/proc", "/other", ("rw",)),)))
    has = points(Path("/proc/self/mountinfo").read_text())["/proc"] & {"nosuid", "nodev", "noexec"}
    assert has | {"nosuid", "nodev"} <= found["/other"]


def test_one_mount_inside_another(place: Path, jail: Path) -> None:
    outer, file = place / "outer", place / "file"
    outer.mkdir()
    (outer / "sub").mkdir()
    file.write_text("deep")
    mounts = (Mount(str(file), "/a/mem/sub/file"), Mount(str(outer), "/a"))
    code = "print(open('/a/mem/sub/file').read(), os.listdir('/a/mem'))"
    (outer / "mem").mkdir()
    assert attack(code, jail=jail, mounts=mounts, tmpfs=("/a/mem",)) == "deep ['sub']"
    assert os.listdir(outer / "mem") == []


def test_a_directory_in_memory_belongs_to_the_user_and_has_its_size(jail: Path) -> None:
    code = (
        "entry, disk = os.stat('/cache'), os.statvfs('/cache')\n"
        "print(entry.st_uid, oct(entry.st_mode & 0o7777), disk.f_blocks * disk.f_frsize)\n"
        "open('/cache/x', 'wb').write(bytes(2 << 20))"
    )
    said = attack(code, jail=jail, user="nobody", tmpfs=("/cache:size=1048576",)).splitlines()
    assert said == [f"{NOBODY} 0o755 1048576", "No space left on device"]
    assert not os.path.exists("/cache")


@pytest.mark.parametrize("what", ["proc", "dev", "tmp", "run", "shown"])
def test_no_link_in_a_root_leads_the_daemon_out_of_it(place: Path, jail: Path, what: str) -> None:
    """Whatever is a mount point may be a link in a stranger's image, with as many dots as it likes."""
    outside = place / "outside"
    outside.mkdir()
    (jail / what).symlink_to("../" * 30 + str(outside).lstrip("/"))
    fields: dict[str, Any] = {"secrets": (KEY,), "secrets_dir": "/run/s", "tmpfs": ("/run/x",)}
    run(process("/bin/true", root=str(jail), mounts=(Mount("/etc", "/shown/here"),), **fields))
    assert os.listdir(outside) == []
    assert sorted(os.listdir(place)) == ["jail", "outside"]


def test_what_is_shown_through_a_link_has_its_flags_too(place: Path, jail: Path) -> None:
    """The kernel names mounts by where they really are."""
    (jail / "real").mkdir()
    (jail / "link").symlink_to("real")
    fields: dict[str, Any] = {"tmpfs": ("/link/mem",), "mounts": (Mount(str(place), "/link/rw", ("rw",)),)}
    found = points(attack(MOUNTINFO, jail=jail, read_only_root=True, **fields))
    assert "ro" in found["/"]
    assert "rw" in found["/real/mem"]
    assert "rw" in found["/real/rw"]


def test_on_the_devices_root_nothing_is_made(place: Path) -> None:
    missing = str(place / "missing")
    assert failure(tmpfs=(missing,)) == f"cannot set up its own mounts: No such file or directory: {missing}"
    assert "No such file or directory" in failure(mounts=(Mount("/etc", missing),))
    assert not os.path.exists(missing)


def test_a_source_that_is_not_there_is_named(jail: Path) -> None:
    for fields in ({"root": str(jail)}, {}):
        said = failure(mounts=(Mount("/no/such", "/mnt"),), **fields)
        assert said.endswith(": No such file or directory: /no/such")


# read-only roots and writable places


def test_a_read_only_root_has_a_tmp_and_its_own_directories_to_write_in(place: Path, jail: Path) -> None:
    (jail / "tmp").mkdir()
    (jail / "tmp" / "theirs").touch()
    made = own(place, rooted=True)
    code = (
        "for path in '/tmp', os.environ['D'], os.environ['R']:\n"
        "    open(path + '/new', 'w').write('x')\n"
        "    print(os.listdir(path))\n"
        "open('/var/new', 'w')"
    )
    env = (("D", DATA_INSIDE), ("R", RUN_INSIDE))
    said = attack(code, jail=jail, user="nobody", read_only_root=True, env=env, **made).splitlines()
    assert said == ["['new']"] * 3 + [READ_ONLY]
    assert os.listdir(jail / "tmp") == ["theirs"]
    assert (place / "state/data/p%2F1/new").stat().st_uid == NOBODY
    assert (place / "run/jobs/p%2F1/new").stat().st_uid == NOBODY


def own(place: Path, rooted: bool, name: str = "p%2F1", user: int = NOBODY) -> dict[str, Any]:
    data, run_dir = f"{place}/state/data/{name}", f"{place}/run/jobs/{name}"
    fields = {
        "data_dir": data,
        "run_dir": run_dir,
        "data_dir_inside": DATA_INSIDE if rooted else data,
        "run_dir_inside": RUN_INSIDE if rooted else run_dir,
    }
    isolation.prepare_dirs(ResolvedProcess("p", ("p",), **fields), user, user)
    return fields


def test_processes_that_share_a_root_do_not_share_what_they_write(place: Path, jail: Path) -> None:
    code = "path = os.environ['D'] + '/mark'\nprint(os.path.exists(path))\nopen(path, 'w')"
    env = (("D", DATA_INSIDE),)
    for name in ("one", "two"):
        made = own(place, rooted=True, name=name)
        assert attack(code, jail=jail, user="nobody", read_only_root=True, env=env, **made) == "False"
        assert attack(code, jail=jail, user="nobody", read_only_root=True, env=env, **made) == "True"


def test_its_own_directories_are_for_its_user_alone(place: Path) -> None:
    made = own(place, rooted=False)
    for path in (made["data_dir"], made["run_dir"]):
        entry = os.stat(path)
        assert (entry.st_uid, entry.st_gid, stat.S_IMODE(entry.st_mode)) == (NOBODY, NOBODY, 0o700)
    assert stat.S_IMODE(os.stat(place / "state/data").st_mode) == 0o711
    own(place, rooted=False, user=54321)
    assert os.stat(made["data_dir"]).st_uid == 54321


def test_a_link_in_place_of_its_own_directory_is_refused(place: Path) -> None:
    (place / "state/data").mkdir(parents=True)
    (place / "state/data/p%2F1").symlink_to("/etc")
    with pytest.raises(MaestroError, match=r"cannot make .*/p%2F1: "):
        own(place, rooted=False)
    assert os.stat("/etc").st_uid == 0


def test_the_devices_root_can_be_read_only_too(place: Path) -> None:
    made = own(place, rooted=False)
    code = (
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        open(path, 'w').close()\n"
        "        print('written')\n"
        "    except OSError as error: print(error.strerror)"
    )
    paths = [
        "/etc/maestro-test",
        "/usr/maestro-test",
        "/run/maestro-test",
        "/sys/kernel/maestro-test",
        "/tmp/maestro-test",
        "/dev/null",
        made["data_dir"] + "/x",
        made["run_dir"] + "/x",
    ]
    said = attack(code, *paths, read_only_root=True, **made).splitlines()
    assert said[:2] == [READ_ONLY] * 2
    assert said[2] == READ_ONLY
    assert said[3] != "written"
    assert said[4:] == ["written"] * 4
    assert not os.path.exists("/tmp/maestro-test")
    assert os.path.exists(made["data_dir"] + "/x")


def test_mounts_made_later_on_the_device_are_not_seen(place: Path) -> None:
    """The mount namespace is private in both directions."""
    found = attack("print(open('/proc/self/mountinfo').read())", tmpfs=("/mnt",))
    assert "/mnt" in points(found)
    assert " shared:" not in found
    assert " master:" not in found


def test_where_there_are_no_namespaces_what_needs_one_is_refused(
    jail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(flags: int) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(kernel, "unshare", refuse)
    assert "so it cannot be made read-only" in failure(root=str(jail), read_only_root=True)
    assert "so /dev/tty0 cannot be shown" in failure(root=str(jail), devices=("/dev/tty0",))
    assert "(no mount namespace)" in failure(tmpfs=("/mnt",))


# devices


def test_devices_are_for_the_jobs_user(jail: Path) -> None:
    if not os.path.exists("/dev/kmsg"):
        pytest.skip("this machine has no /dev/kmsg")
    code = (
        "for path in '/dev/null', '/dev/kmsg':\n"
        "    entry = os.stat(path)\n"
        "    print(entry.st_uid, oct(entry.st_mode & 0o777), entry.st_rdev == int(sys.argv[1]))"
    )
    rdev = str(os.stat("/dev/kmsg").st_rdev)
    said = attack(code, rdev, jail=jail, user="nobody", devices=("/dev/kmsg",)).splitlines()
    assert said == ["0 0o666 False", f"{NOBODY} 0o600 True"]
    assert "kmsg" not in attack("print(os.listdir('/dev'))", jail=jail)


def test_a_device_that_is_not_there_or_is_none_is_named(jail: Path) -> None:
    assert failure(root=str(jail), devices=("/dev/no-such",)).endswith(
        "No such file or directory: /dev/no-such"
    )
    assert failure(root=str(jail), devices=("/dev/shm",)).endswith("it is not a device node: /dev/shm")


# secrets


def secretive(jail: Path | None, place: Path, **fields: Any) -> dict[str, Any]:
    (place / "from").write_text("of a file")
    shared = place / "run/secrets"
    fields["secrets"] = (
        Secret("inline", data="gänzlich"),
        Secret("binary", data="AP8K", encoding="base64"),
        Secret("file", file=str(place / "from")),
    )
    fields["secrets_dir"] = SECRETS_INSIDE if jail else str(shared)
    spec = ResolvedProcess("p", ("p",), root=str(jail or ""), secrets_dir=fields["secrets_dir"])
    isolation.prepare_dirs(spec, NOBODY, NOBODY)
    return fields


@pytest.mark.parametrize("rooted", [True, False])
def test_secrets_are_files_for_the_job_alone(place: Path, jail: Path, rooted: bool) -> None:
    fields = secretive(jail if rooted else None, place, user="nobody")
    code = (
        "top = sys.argv[1]\n"
        "print(oct(os.stat(top).st_mode & 0o7777), os.stat(top).st_uid)\n"
        "for name in sorted(os.listdir(top)):\n"
        "    entry = os.stat(f'{top}/{name}')\n"
        "    print(name, oct(entry.st_mode & 0o7777), entry.st_uid, open(f'{top}/{name}', 'rb').read())\n"
        "seen = open('/proc/self/environ').read() + open('/proc/self/cmdline').read()\n"
        "print('of a ' + 'file' in seen, 'nz' + 'lich' in seen)\n"
        "os.chmod(top, 0o700)"
    )
    said = attack(code, fields["secrets_dir"], jail=jail if rooted else None, **fields).splitlines()
    assert said == [
        f"0o500 {NOBODY}",
        f"binary 0o400 {NOBODY} {bytes([0, 255, 10])!r}",
        f"file 0o400 {NOBODY} {b'of a file'!r}",
        f"inline 0o400 {NOBODY} {'gänzlich'.encode()!r}",
        "False False",
        READ_ONLY,
    ]


def test_secrets_are_nowhere_on_the_device(place: Path) -> None:
    fields = secretive(None, place)
    attack("print(1)", **fields)
    assert os.listdir(place / "run/secrets") == []
    assert stat.S_IMODE(os.stat(place / "run/secrets").st_mode) == 0o700


def test_a_secret_is_not_written_where_another_process_of_the_same_root_wants_it(jail: Path) -> None:
    """Without the care taken, a third of these launches left it there."""
    usual, other = jail / "run/maestro/secrets", jail / "other"
    usual.mkdir(parents=True)
    (jail / "theirs").mkdir()
    other.symlink_to("/theirs")
    swaps = (
        "import ctypes, sys\n"
        "swap = ctypes.CDLL(None).renameat2\n"
        "print(flush=True)\n"
        "while True: swap(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", swaps, str(usual), str(other)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE)
    with attacker:
        try:
            assert attacker.stdout
            assert attacker.stdout.readline()
            for _ in range(50):
                rooted = {"root": str(jail), "mounts": (USR,)}
                wish = process("/usr/bin/true", secrets=(KEY,), secrets_dir=SECRETS_INSIDE, **rooted)
                failure = run(wish).failure
                assert failure is None or failure.path == SECRETS_INSIDE, failure
        finally:
            attacker.kill()
    assert list(jail.rglob("key")) == []


def test_a_large_secret_fits(place: Path, jail: Path) -> None:
    big = Secret("big", data="x" * (1 << 20))
    code = "print(os.path.getsize('/run/maestro/secrets/big'))"
    assert attack(code, jail=jail, secrets=(big,), secrets_dir=SECRETS_INSIDE) == str(1 << 20)


def test_a_secret_that_cannot_be_read_is_named_without_its_content(place: Path) -> None:
    who = Credentials(0, 0)

    def steps(secret: Secret) -> None:
        isolation.view(ResolvedProcess("p", ("p",), secrets=(secret,), secrets_dir="/x"), who, ())

    missing = f"cannot read the secret key of p from {place}/none: No such file or directory"
    with pytest.raises(MaestroError) as error:
        steps(Secret("key", file=f"{place}/none"))
    assert error.value.message == missing
    (place / "big").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(MaestroError, match="larger than 1048576 bytes"):
        steps(Secret("key", file=f"{place}/big"))
    os.mkfifo(place / "fifo")
    steps(Secret("key", file=f"{place}/fifo"))
    assert "hidden" not in repr(Secret("key", data="hidden"))
