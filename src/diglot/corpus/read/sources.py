"""What a recipe's `source` names, as a list of input files: folders, files, globs, URLs and Debian packages.

Every package, top folder and single file is a source of its own, so that shares can be told per source. Files are in
order of source and container, whatever the order in which a file system lists them.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diglot.core.errors import InputError
from diglot.core.progress import Progress
from diglot.core.storage import is_url
from diglot.corpus.read import debian
from diglot.corpus.read.formats import format_of
from diglot.corpus.read.record import SourceFile

DEBIAN = "debian:"
UNSAFE = re.compile(r"[^\w.+-]+")
GLOB = re.compile(r"[*?\[]")
CONTAINERS = frozenset({"warc", "jsonl", "parquet"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """Facts of one source. acquisition: `public` (a published package or dataset), `crawl` or `other`."""

    name: str
    title: str
    version: str | None = None
    license: str | None = None
    acquisition: str = "other"
    address: str | None = None


@dataclass
class Found:
    """Sources by name, and all their files in order. Files whose `format` is a reason are refused by the reader."""

    sources: dict[str, Source] = field(default_factory=dict)
    files: list[SourceFile] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Globs over the path of a file within its source; `**/` also stands for no folder."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        return (not self.include or _matches(path, self.include)) and not _matches(path, self.exclude)


def find(specs: Sequence[str], *, bases: Sequence[Path], selection: Selection, progress: Progress) -> Found:
    """All input files. Relative paths are tried against `bases` in turn.

    Raises InputError when a spec names nothing, and when two different files would have one name.
    """
    found = Found()
    for spec in specs:
        for source, file in _find_one(spec, bases, selection, progress):
            found.sources.setdefault(source.name, source)
            found.files.append(file)
    found.files.sort(key=lambda file: (file.source, file.container))
    for one, other in zip(found.files, found.files[1:], strict=False):
        if (one.source, one.container) == (other.source, other.container):
            raise InputError(
                f"{one.path} and {other.path} are both called {one.container} in source {one.source}. "
                "Rename a folder or file, or ingest them in two steps."
            )
    return found


def _find_one(
    spec: str, bases: Sequence[Path], selection: Selection, progress: Progress
) -> Iterator[tuple[Source, SourceFile]]:
    if spec.startswith(DEBIAN):
        names = [name for name in re.split(r"[,\s]+", spec.removeprefix(DEBIAN)) if name]
        for package in debian.fetch(names, debian.cache_folder(), progress):
            source = Source(
                name=package.name,
                title=package.title,
                version=package.version,
                license=package.license,
                acquisition="public",
                address=package.homepage,
            )
            for file in walk(package.folder, package.name, f"debian://{package.name}/", selection):
                yield source, file
    elif is_url(spec):
        for url, size in _remote(spec):
            yield _single(url, url.rpartition("/")[2], size, "public")
    else:
        for path in _local(spec, bases):
            if path.is_dir():
                yield from _folder(path, selection)
            else:
                yield _single(str(path), path.name, path.stat().st_size, "other")


def _folder(root: Path, selection: Selection) -> Iterator[tuple[Source, SourceFile]]:
    """A folder's sub-folders are sources, each container file in it is one, and its other files together are one."""
    own = source_name(root.resolve().name)
    for file in walk(root, own, "file:", selection):
        head, _, rest = file.container.partition("/")
        name, container = (source_name(head), rest) if rest else (own, head)
        if not rest and file.format in CONTAINERS:
            name = source_name(_stem(head))
        acquisition = "crawl" if file.format == "warc" else "other"
        source = Source(name=name, title=head if rest else name, acquisition=acquisition)
        yield source, replace(file, source=name, container=container)


def walk(root: Path, source: str, url_base: str, selection: Selection) -> Iterator[SourceFile]:
    """Every file below `root` that the selection takes, sorted; what cannot be read has a reason as its format.

    A link to something inside `root` is refused, since its target is read itself; a link out of it is followed once.
    """
    inside = root.resolve()
    seen = {inside}
    queue = [(root, "")]
    while queue:
        folder, prefix = queue.pop()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path, name = Path(entry.path), prefix + entry.name
            target = path.resolve() if entry.is_symlink() else path
            if entry.is_dir():
                if entry.is_symlink() and (target.is_relative_to(inside) or inside.is_relative_to(target)):
                    continue  # a loop, or a second way to files that are read anyway
                if not entry.is_symlink() or target not in seen:
                    seen.add(target)
                    queue.append((path, name + "/"))
                continue
            if not selection.takes(name) or entry.name.startswith("."):
                continue
            if entry.is_symlink() and not target.exists():
                kind, size = "broken_link", 0
            elif entry.is_symlink() and target.is_relative_to(inside):
                kind, size = "link", 0
            elif not entry.is_file():
                kind, size = "no_file", 0  # a socket, a pipe or a device would block the reader
            else:
                kind, size = format_of(entry.name) or "unsupported_type", entry.stat().st_size
            url = None if kind in CONTAINERS else url_base + name
            yield SourceFile(source=source, path=str(path), container=name, format=kind, url=url, size=size)


def source_name(text: str) -> str:
    """A name that can be a folder's.

    >>> source_name("my pages (2024)/é")
    'my-pages-2024-é'
    """
    return UNSAFE.sub("-", text).strip("-.") or "source"


def _stem(name: str) -> str:
    """`part-0.warc.gz` -> `part-0`."""
    while (shorter := name.rpartition(".")[0]) and (format_of(name) or name.endswith((".gz", ".zst"))):
        name = shorter
    return name


def _single(path: str, name: str, size: int, acquisition: str) -> tuple[Source, SourceFile]:
    kind = format_of(name) or "unsupported_type"
    source = source_name(_stem(name))
    acquisition = "crawl" if kind == "warc" else acquisition
    url = None if kind in CONTAINERS else (path if is_url(path) else f"file:{name}")
    file = SourceFile(source=source, path=path, container=name, format=kind, url=url, size=size)
    return Source(name=source, title=name, acquisition=acquisition, address=path if is_url(path) else None), file


def _local(spec: str, bases: Sequence[Path]) -> list[Path]:
    expanded = Path(spec).expanduser()
    candidates = [expanded] if expanded.is_absolute() else [base / expanded for base in bases]
    for candidate in candidates:
        if candidate.exists():
            return [candidate]
        if GLOB.search(spec):
            matches = sorted(Path(match) for match in glob.glob(str(candidate), recursive=True))
            if matches:
                return matches
    raise InputError(
        f"source '{spec}' names no file or folder ({' and '.join(dict.fromkeys(map(str, candidates)))} looked at). "
        "Give a folder, a file, a glob, a URL or debian:PACKAGE, e.g. --set steps.pages.source=/path/to/pages."
    )


def _remote(spec: str) -> list[tuple[str, int]]:
    import fsspec  # only remote inputs pay for it

    try:
        system, path = fsspec.url_to_fs(spec)
        matches = sorted(system.glob(path)) if GLOB.search(path) else [path]
        if not matches:
            raise InputError(f"source '{spec}' matches nothing. Check the address.")
        return [(system.unstrip_protocol(match), int(system.size(match) or 0)) for match in matches]
    except (ImportError, ValueError) as error:
        raise InputError(f"source '{spec}' cannot be opened: {error}. Install the file system it needs.") from error
    except OSError as error:
        raise InputError(f"source '{spec}' cannot be reached: {error}. Check the address and the network.") from error


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path, p) or (p.startswith("**/") and fnmatch.fnmatch(path, p[3:])) for p in patterns)
