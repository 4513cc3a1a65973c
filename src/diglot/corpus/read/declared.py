"""Which language a page says it is in: its `lang` attribute, its container's field, or its address. As BCP 47.

Regions are dropped, except that they tell the two scripts of Chinese apart: `zh-CN` and plain `zh` are `zh-Hans`
(CLDR's likely script), `zh-TW` and `zh-HK` are `zh-Hant`; `en-US` is `en`. A declaration is a hint: pages that were
never translated often carry the language of their folder.
"""

from __future__ import annotations

import re

TAG = re.compile(r"([a-z]{2,3})(?:[-_]([a-z]{4}))?(?:[-_]([a-z]{2}|\d{3}))?(?:[-_.@].*)?", re.I)
TRADITIONAL = frozenset({"TW", "HK", "MO"})
CHINESE = {"zho": "zh", "chi": "zh", "cmn": "zh"}

# Two letters in a path mean a language only when they are one that pages are published in.
IN_PATHS = frozenset(
    re.findall(
        r"\w+",
        "ar be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn ko "
        "ku lt lv mk ml mr ms my nb ne nl nn no pa pl pt ro ru sk sl sq sr sv sw ta te th tl tr uk ur uz vi zh",
    )
)
PATH_PART = re.compile(r"(?:^|[/.])([a-z]{2}(?:[-_][a-z]{2}|[-_][a-z]{4})?)(?=[/.])", re.I)


def language_tag(declared: str | None) -> str | None:
    """
    >>> [language_tag(tag) for tag in ("zh_CN.UTF-8", "zh-TW", "zh", "EN-us", "sr-Latn-RS", "x", None)]
    ['zh-Hans', 'zh-Hant', 'zh-Hans', 'en', 'sr-Latn', None, None]
    """
    match = TAG.fullmatch(declared.strip()) if declared else None
    if not match:
        return None
    language = CHINESE.get(match[1].lower(), match[1].lower())
    script = match[2].title() if match[2] else None
    if language == "zh":
        script = script or ("Hant" if (match[3] or "").upper() in TRADITIONAL else "Hans")
    return f"{language}-{script}" if script else language


def language_in_path(path: str) -> str | None:
    """The last language that a folder or a part of the file name stands for.

    >>> language_in_path("html/zh-CN/index.html"), language_in_path("ch01.en.html"), language_in_path("doc/a.b.html")
    ('zh-Hans', 'en', None)
    """
    parts = [part for part in PATH_PART.findall(path) if re.split("[-_]", part)[0].lower() in IN_PATHS]
    return language_tag(parts[-1]) if parts else None
