"""Tar archives of pages and texts (.tar, .tar.gz, .tar.zst ...): each member is read as a file of its name would be.

Members are read where they stand; nothing is unpacked, so no name in an archive can lead out of it. Containers within
the archive are refused: unpack those.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Self

from diglot.corpus.read.compression import COMPRESSED, decompressed
from diglot.corpus.read.files import record_of_file
from diglot.corpus.read.formats import SINGLE, format_of
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile


class _Member(tarfile.TarInfo):
    """A header that cannot be read is damage; tarfile takes one behind the first member for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"bad header: {error}") from error


def read_tar(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record or refusal a member. Offsets count bytes of the decompressed archive."""
    offset = 0
    with decompressed(file.path) as stream:
        try:
            with tarfile.open(fileobj=stream.reader(), mode="r|", errorlevel=1, tarinfo=_Member) as archive:
                for member in archive:
                    offset = member.offset_data
                    if not member.isdir():
                        yield _read_member(file, archive, member, limits)
        except (tarfile.TarError, OSError, ValueError, EOFError, RecursionError) as error:
            if not stream.damage:
                yield Refused(reason="corrupt", offset=offset, detail=str(error)[:200])
        if stream.damage:
            yield Refused(reason=stream.damage, offset=offset, detail="members from here on cannot be read")


def _read_member(
    file: SourceFile, archive: tarfile.TarFile, member: tarfile.TarInfo, limits: Limits
) -> Record | Refused:
    url = f"file:{file.container}/{member.name}"
    kind = format_of(member.name)
    reason = None
    if not member.isfile():
        reason = "link" if member.issym() or member.islnk() else "no_file"
    elif kind is None:
        reason = "unsupported_type"
    elif kind not in SINGLE or member.name.lower().endswith(COMPRESSED):
        reason = "container_in_archive"
    elif member.size > limits.max_document_bytes:
        reason = "too_large"
    if reason:
        return Refused(reason=reason, offset=member.offset_data, url=url)
    assert kind is not None
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) < member.size:
        return Refused(reason="truncated", offset=member.offset_data, url=url)
    return record_of_file(content, kind, url, member.offset_data)
