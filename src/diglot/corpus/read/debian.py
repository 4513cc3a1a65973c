"""`debian:NAME[,NAME...]`: documentation packages, fetched with the system's own apt into a private folder.

apt runs as an ordinary user: its state, lists and cache are ours, the mirrors and the keys are the system's, and apt
checks every signature and checksum. A package that is unpacked in the cache is used again without asking the network;
delete its folder to fetch a newer version.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diglot.core.cache import cache_root
from diglot.core.errors import ConfigError, InputError
from diglot.core.progress import Progress

PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
TIMEOUT_S = 600.0  # for one apt command; 62 MB took two seconds on a good line
ELSEWHERE = (
    "To use other pages, point the recipe at a folder, an archive or a dataset: "
    "--set steps.pages.source=/path/to/pages (or hf://datasets/NAME/FILE.parquet)."
)
LICENSE_FIELD = re.compile(r"^License:[ \t]*(\S.*?)\s*$", re.M)
COMMON_LICENSE = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
FILES_STANZA = re.compile(r"^Files:[ \t]*(\S.*(?:\n[ \t]+\S.*)*)\n(?:.*\n)*?^License:[ \t]*(\S.*?)\s*$", re.M)


@dataclass(frozen=True)
class Package:
    """An unpacked package. license: as its copyright file states it, None where it states none."""

    name: str
    version: str
    title: str
    homepage: str | None
    folder: Path
    license: str | None


def cache_folder() -> Path:
    """Where packages are kept: `$DIGLOT_CACHE/debian`, else `$XDG_CACHE_HOME/diglot/debian` (usually ~/.cache)."""
    return cache_root() / "debian"


def fetch(names: Sequence[str], cache: Path, progress: Progress) -> list[Package]:
    """The packages in the order of `names`, fetched where the cache lacks them.

    Raises ConfigError for a name that is none, InputError when apt is missing, fails or does not know a package.
    """
    for name in names:
        if not PACKAGE_NAME.fullmatch(name):
            raise ConfigError(f"'{name}' is no Debian package name. Write debian:NAME,NAME without spaces.")
    missing = [name for name in names if not _unpacked(cache, name)]
    if missing:
        _download(missing, cache, progress)
    return [_package(_unpacked(cache, name)[-1]) for name in names]


def license_of(copyright_text: str) -> str | None:
    """The licence that a copyright file names: that of `Files: *`, else all that it names, else the common licences it
    refers to. Nothing is guessed.

    >>> license_of("Files: *\\nCopyright: 2003 A\\nLicense: GPL-2+ or CC-BY-SA-3.0\\n")
    'GPL-2+ or CC-BY-SA-3.0'
    >>> license_of("On Debian systems, see /usr/share/common-licenses/GPL-2.")
    'GPL-2'
    """
    for files, license in FILES_STANZA.findall(copyright_text):
        if files.split()[0] == "*":
            return str(license)
    named = LICENSE_FIELD.findall(copyright_text) or COMMON_LICENSE.findall(copyright_text)
    return ", ".join(dict.fromkeys(named)) or None


def _unpacked(cache: Path, name: str) -> list[Path]:
    """The unpacked versions of a package, in order of name."""
    return sorted(path for path in cache.glob(f"{name}_*") if path.is_dir() and (path / "control").exists())


def _package(folder: Path) -> Package:
    name = folder.name.partition("_")[0]
    control = dict(re.findall(r"^(\S+): (.*)$", (folder / "control").read_text(), re.M))
    copyright_file = folder / "files" / "usr" / "share" / "doc" / name / "copyright"
    text = copyright_file.read_text(errors="replace") if copyright_file.is_file() else ""
    return Package(
        name=name,
        version=control["Version"],
        title=control.get("Description", name),
        homepage=control.get("Homepage"),
        folder=folder / "files",
        license=license_of(text),
    )


def _download(names: Sequence[str], cache: Path, progress: Progress) -> None:
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise InputError(f"debian:{','.join(names)} needs {program}, which this machine lacks. {ELSEWHERE}")
    progress.say(f"fetching {len(names)} Debian package(s) with apt into {cache}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as work:
        folder = Path(work)
        options = _apt_options(folder)
        _run(["apt-get", *options, "-qq", "update"], folder, "apt could not read the package lists")
        _run(["apt-get", *options, "-qq", "download", *names], folder, "apt could not fetch the packages")
        for archive in sorted(folder.glob("*.deb")):
            _unpack(archive, cache)
    still = [name for name in names if not _unpacked(cache, name)]
    if still:
        raise InputError(f"apt fetched no package called {', '.join(still)}. {ELSEWHERE}")


def _apt_options(folder: Path) -> list[str]:
    for part in ("state/lists/partial", "cache/archives/partial", "log"):
        (folder / part).mkdir(parents=True)
    system = _system_status()
    if system is None:
        system = folder / "status"
        system.touch()
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::lists": folder / "state" / "lists",
        "Dir::State::status": system,
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder / "log",
        "APT::Sandbox::User": "",  # apt would hand downloads to a user who may not enter our folder
        "APT::Update::Error-Mode": "any",  # a mirror that cannot be reached is an error and not a warning
        "Acquire::Languages": "none",
        "Acquire::Retries": 2,
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _system_status() -> Path | None:
    status = Path("/var/lib/dpkg/status")
    return status if status.is_file() else None


def _run(command: list[str], folder: Path, failure: str) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{failure}: no answer within {TIMEOUT_S:.0f} s. {ELSEWHERE}") from None
    if done.returncode:
        lines = [line.removeprefix("E: ") for line in done.stderr.splitlines() if line.startswith("E: ")]
        raise InputError(f"{failure}: {' '.join(lines[:3]) or f'exit code {done.returncode}'} {ELSEWHERE}")


def _unpack(archive: Path, cache: Path) -> None:
    """`name_version_arch.deb` to `cache/name_version_arch/{control,files}`, complete or absent."""
    target = cache / archive.stem
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as work:
        folder = Path(work) / "package"
        (folder / "files").mkdir(parents=True)
        _run(["dpkg-deb", "-x", str(archive), str(folder / "files")], folder, f"{archive.name} cannot be unpacked")
        control = subprocess.run(["dpkg-deb", "-f", str(archive)], capture_output=True, text=True, check=True)
        (folder / "control").write_text(control.stdout)
        folder.chmod(0o755)
        if not target.exists():  # another run may have been faster
            os.replace(folder, target)
