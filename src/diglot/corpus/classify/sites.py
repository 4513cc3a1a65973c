"""Where a page belongs: its site, and the folders of its path inside the site.

A site is a host, as in MAP-Neo's aggregation by base URL, except on platforms that host many unrelated owners: there
the first parts of the path belong to the site (`github.com/owner/repository`), or one mathematical repository would
make all of them mathematical.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

# How many parts of the path name the owner of a page.
SHARED_HOSTS = {
    "bitbucket.org": 2,
    "gitee.com": 2,
    "github.com": 2,
    "gitlab.com": 2,
    "medium.com": 1,
    "raw.githubusercontent.com": 2,
    "sites.google.com": 2,
    "zhuanlan.zhihu.com": 1,
}
MAX_DEPTH = 8  # folders of a path that are looked at; deeper ones count as the eighth


class Place(NamedTuple):
    """`site`: host without port and `www.`, with its owner on shared hosts. `folders`: the path below it, from the top,
    without the page's own name."""

    site: str
    folders: tuple[str, ...]


def place_of(url: str | None) -> Place | None:
    """None for a document without an address that names a host. Query and fragment are no part of a place."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:  # such as an unclosed bracket of an IPv6 address
        return None
    if not host or parts.scheme == "file":
        return None
    steps = [unquote(step) for step in parts.path.split("/")]
    folders = [step for step in steps[:-1] if step]
    owned = min(SHARED_HOSTS.get(host, 0), len(folders))
    site = "/".join([host, *folders[:owned]])
    return Place(site, tuple(folders[owned : owned + MAX_DEPTH]))


def on_host(site: str, host: str) -> bool:
    """Whether a site is `host`, under it (`zh.d2l.ai` under `d2l.ai`), or an owner's part of it."""
    own, _, owner = site.partition("/")
    wanted, _, wanted_owner = host.lower().removeprefix("www.").rstrip("/").partition("/")
    if own != wanted and not own.endswith("." + wanted):
        return False
    return not wanted_owner or (owner.lower() + "/").startswith(wanted_owner + "/")
