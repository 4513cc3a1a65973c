"""What a recipe's `source` names, as a list of input files: folders, files, globs, URLs, packages and path lists.

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
from diglot.core.remote import PACKAGES
from diglot.core.storage import is_url
from diglot.corpus.read import debian
from diglot.corpus.read.compression import COMPRESSED, read_all
from diglot.corpus.read.formats import CONTAINERS, format_of
from diglot.corpus.read.record import SourceFile
from diglot.corpus.read.remote import UnreadableError

DEBIAN = "debian:"
COMMON_CRAWL = "cc:"
COMMON_CRAWL_BASE = "https://data.commoncrawl.org/"
MAX_PATH_LIST = 1 << 30  # bytes of a list of paths; that of a whole crawl has 90,000 lines
HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")
CRAWLS = frozenset({"warc", "arc", "wat"})
UNSAFE = re.compile(r"[^\w.+-]+")
GLOB = re.compile(r"[*?\[]")


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


@dataclass(frozen=True, kw_only=True)
class CommonCrawl:
    """base: URL or folder that the paths of a `cc:` list are below. max_files: the first so many; None takes all."""

    base: str = COMMON_CRAWL_BASE
    max_files: int | None = None


def find(
    specs: Sequence[str],
    *,
    bases: Sequence[Path],
    selection: Selection,
    progress: Progress,
    common_crawl: CommonCrawl | None = None,
    prefixes: Sequence[str] = (),
) -> Found:
    """All input files. Relative paths are tried against `bases` in turn.

    prefixes: one a spec; put before the names of its sources, so that `en/manual.jsonl` and `zh/manual.jsonl` differ.
    Raises InputError when a spec names nothing, and when two different files would have one name.
    """
    found = Found()
    for spec, prefix in zip(specs, prefixes or [""] * len(specs), strict=True):
        for source, file in _find_one(spec, bases, selection, progress, common_crawl or CommonCrawl()):
            name = f"{source_name(prefix)}-{source.name}" if prefix else source.name
            found.sources.setdefault(name, replace(source, name=name))
            found.files.append(replace(file, source=name))
    found.files.sort(key=lambda file: (file.source, file.container))
    for one, other in zip(found.files, found.files[1:], strict=False):
        if (one.source, one.container) == (other.source, other.container):
            raise InputError(
                f"{one.path} and {other.path} are both called {one.container} in source {one.source}. "
                "Give the sources names (source: {en: PATH, zh: PATH}), or rename a folder or file."
            )
    return found


def _find_one(
    spec: str, bases: Sequence[Path], selection: Selection, progress: Progress, common_crawl: CommonCrawl
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
    elif spec.startswith(COMMON_CRAWL):
        yield from _crawl(spec.removeprefix(COMMON_CRAWL), bases, selection, common_crawl)
    elif hub := HUB.fullmatch(spec):
        yield from _dataset(spec, hub, selection)
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
        acquisition = "crawl" if file.format in CRAWLS else "other"
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
            if entry.name.startswith("."):
                continue
            path, name = Path(entry.path), prefix + entry.name
            target = path.resolve() if entry.is_symlink() else path
            if entry.is_dir():
                if entry.is_symlink() and (target.is_relative_to(inside) or inside.is_relative_to(target)):
                    continue  # a loop, or a second way to files that are read anyway
                if not entry.is_symlink() or target not in seen:
                    seen.add(target)
                    queue.append((path, name + "/"))
                continue
            if not selection.takes(name):
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
    while (shorter := name.rpartition(".")[0]) and (format_of(name) or name.endswith(COMPRESSED)):
        name = shorter
    return name


def _crawl(
    spec: str, bases: Sequence[Path], selection: Selection, common_crawl: CommonCrawl
) -> Iterator[tuple[Source, SourceFile]]:
    """The files of a Common Crawl path list (`warc.paths.gz`). A source a crawl; the path is the container's name.

    Sizes are not asked for: a list has up to 90,000 lines.
    """
    listing = spec if is_url(spec) else str(_local(spec, bases)[0])
    try:
        content, reason = read_all(listing, MAX_PATH_LIST)
    except UnreadableError as error:
        raise InputError(f"the path list '{listing}' cannot be read: {error}. Check the address.") from error
    if reason:
        raise InputError(f"the path list '{listing}' is {reason}. Fetch it again.")
    lines = (line.strip().lstrip("/") for line in content.decode("utf-8", "replace").splitlines())
    paths = [path for path in dict.fromkeys(lines) if path and selection.takes(path)][: common_crawl.max_files]
    if not paths:
        raise InputError(f"the path list '{listing}' names no file that include and exclude let through.")
    base = common_crawl.base
    if not is_url(base):
        base = str(_local(base, bases)[0])
    for path in paths:
        if ".." in path.split("/"):
            raise InputError(f"the path list '{listing}' leads out of its base with '{path}'. Use the original list.")
        crawl = re.search(r"CC-(?:MAIN|NEWS)-[\w-]+?(?=[/.]|-\d{14}|$)", path)
        name = source_name(crawl[0] if crawl else _stem(listing.rpartition("/")[2]))
        source = Source(
            name=name, title=f"Common Crawl {name}" if crawl else name, acquisition="crawl", address=common_crawl.base
        )
        where = f"{base.rstrip('/')}/{path}"
        size = 0 if is_url(where) or not Path(where).exists() else Path(where).stat().st_size
        kind = format_of(path) or "unsupported_type"
        yield source, SourceFile(source=name, path=where, container=path, format=kind, size=size)


def _dataset(spec: str, hub: re.Match[str], selection: Selection) -> Iterator[tuple[Source, SourceFile]]:
    """The files of `hf://datasets/ORG/NAME[@REVISION]/GLOB`: one source, its containers named as in the repository."""
    repository, revision, _ = hub.groups()
    source = Source(
        name=source_name(repository.replace("/", "-")),
        title=repository,
        version=revision,
        acquisition="public",
        address=f"https://huggingface.co/datasets/{repository}",
    )
    files = []
    for url, size in _remote(spec):
        match = HUB.fullmatch(url)
        container = match[3] if match else url
        if selection.takes(container):
            kind = format_of(container) or "unsupported_type"
            page = None if kind in CONTAINERS else url
            files.append(
                SourceFile(source=source.name, path=url, container=container, format=kind, size=size, url=page)
            )
    for file in files:
        yield source, file


def _single(path: str, name: str, size: int, acquisition: str) -> tuple[Source, SourceFile]:
    kind = format_of(name) or "unsupported_type"
    source = source_name(_stem(name))
    acquisition = "crawl" if kind in CRAWLS else acquisition
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
        "Give a folder, a file, a glob, a URL, debian:PACKAGE or cc:PATHS_FILE, e.g. "
        "--set steps.pages.source=/path/to/pages."
    )


def _remote(spec: str) -> list[tuple[str, int]]:
    """(URL, bytes) of everything an fsspec address names, also of a folder's files; 0 bytes where nobody says."""
    import fsspec  # only remote inputs pay for it

    try:
        system, path = fsspec.url_to_fs(spec)
        if GLOB.search(path):
            matches = system.glob(path, detail=True)
        elif not spec.startswith("http") and system.isdir(path):
            matches = system.find(path, detail=True)
        else:
            matches = {path: system.info(path)}
        files = {name: facts for name, facts in sorted(matches.items()) if facts["type"] != "directory"}
        if not files:
            raise InputError(f"source '{spec}' matches nothing. Check the address.")
        # A listing brings the sizes; that of a web server does not, and the file itself is asked.
        sizes = {
            name: system.size(name) if facts.get("size") is None else facts["size"] for name, facts in files.items()
        }
        return [(system.unstrip_protocol(name), int(size or 0)) for name, size in sizes.items()]
    except (ImportError, ValueError) as error:
        protocol = spec.partition("://")[0]
        package = PACKAGES.get(protocol)
        install = f"pip install {package}" if package else "Install the file system it needs"
        raise InputError(f"source '{spec}' cannot be opened: {error}. {install}.") from error
    except OSError as error:
        raise InputError(f"source '{spec}' cannot be reached: {error}. Check the address and the network.") from error


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path, p) or (p.startswith("**/") and fnmatch.fnmatch(path, p[3:])) for p in patterns)
