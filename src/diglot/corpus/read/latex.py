"""LaTeX source to readable text, without running it: headings, lists, quotations, code and tables; math stays as it is.

Nothing is executed and no file is opened: `\\input` and `\\include` are counted, not followed. Commands that are not in
the tables below leave their arguments' text, so that `\\emph{x}` and an author's own `\\term{x}` both give "x". Macros
without arguments that the file defines itself are replaced once. One pass with a table of matching braces: linear,
no recursion.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from diglot.corpus.charset import decode
from diglot.corpus.read.record import Record, Refused

LINE, SPACE = "\x00", "\x01"  # a line end and a space that stay, until white space is folded
HEADINGS = {
    "part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5, "subparagraph": 6,
}  # fmt: skip
WORDS = re.compile(r"[\w@]+")
DROPPED_ARGUMENTS = {  # command -> how many arguments go with it
    **dict.fromkeys(
        WORDS.findall(
            "documentclass usepackage RequirePackage input include includeonly subfile label ref pageref eqref autoref "
            "cref Cref cite citep citet citeauthor citeyear nocite parencite textcite bibliography bibliographystyle "
            "addbibresource includegraphics vspace hspace pagestyle thispagestyle pagenumbering index glossary color "
            "hypersetup graphicspath theoremstyle newtheorem author date thanks affil address email markboth tikzset "
            "usetikzlibrary stepcounter refstepcounter newcounter newlength phantom hphantom vphantom "
            "enlargethispage includepdf lstset captionsetup geometry DeclareMathSymbol selectlanguage hyphenation "
            "ollabel"
        ),
        1,
    ),
    **dict.fromkeys(
        WORDS.findall(
            "setlength addtolength setcounter addtocounter addcontentsline newcommand renewcommand providecommand "
            "DeclareMathOperator DeclareRobustCommand def let rule numberwithin"
        ),
        2,
    ),
    **dict.fromkeys(("newenvironment", "renewenvironment", "NewDocumentCommand", "olfileid"), 3),
}
FIRST_DROPPED = frozenset({"href", "textcolor", "colorbox", "parbox", "raisebox", "hyperref", "scalebox", "resizebox"})
MATH = frozenset(
    WORDS.findall(
        "equation align gather multline eqnarray displaymath math alignat flalign dmath cases split prooftree"
    )
)
CODE = frozenset({"verbatim", "Verbatim", "lstlisting", "minted", "alltt", "listing"})
LEFT_OUT = frozenset(
    {"tikzpicture", "pgfpicture", "picture", "comment", "thebibliography", "filecontents", "pspicture"}
)
THEOREMS = {
    "thm": "Theorem", "theorem": "Theorem", "lem": "Lemma", "lemma": "Lemma", "prop": "Proposition",
    "proposition": "Proposition", "cor": "Corollary", "corollary": "Corollary", "defn": "Definition",
    "definition": "Definition", "ex": "Example", "example": "Example", "rem": "Remark", "remark": "Remark",
    "proof": "Proof", "prob": "Problem", "problem": "Problem", "exercise": "Exercise",
}  # fmt: skip
SYMBOLS = {
    "ldots": "…", "dots": "…", "textellipsis": "…", "ss": "ß", "o": "ø", "O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ",
    "OE": "Œ", "aa": "å", "AA": "Å", "l": "ł", "L": "Ł", "i": "ı", "S": "§", "P": "¶", "copyright": "©",
    "LaTeX": "LaTeX",
    "TeX": "TeX", "BibTeX": "BibTeX", "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^",
    "textbar": "|", "textless": "<", "textgreater": ">", "textemdash": "—", "textendash": "–", "quad": " ",
    "qquad": " ",
    "textquotedblleft": "“", "textquotedblright": "”", "textquoteleft": "‘", "textquoteright": "’", "euro": "€",
    "pounds": "£", "dag": "†", "ddag": "‡", "newline": LINE, "linebreak": LINE, "par": "\n\n", "hfill": " ",
    "tabularnewline": LINE, "cr": LINE, "textdegree": "°", "textregistered": "®", "texttrademark": "™", "and": ", ",
}  # fmt: skip
ACCENTS = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", "=": "\u0304", "u": "\u0306", ".": "\u0307",
    '"': "\u0308", "r": "\u030a", "H": "\u030b", "v": "\u030c", "d": "\u0323", "c": "\u0327", "k": "\u0328",
    "b": "\u0331",
}  # fmt: skip
TOKEN = re.compile(r"\\([A-Za-z@]+)\*?[ \t]*|\\(.)|([{}$~&])|(---?)|(``|'')|(%[^\n]*(?:\n[ \t]*)?)", re.S)
GROUP = re.compile(r"\s*\{")
OPTION = re.compile(r"\s*\[([^\[\]{}\n]{0,200})\]")
ACCENTED = re.compile(r"\s*\{?\\?([A-Za-zı])\}?")
BARE_COMMAND = re.compile(r"\s*\\[A-Za-z@]+")
ENVIRONMENT = re.compile(r"\s*\{([A-Za-z@]{1,40})(\*?)\}")
DEFINITION = re.compile(r"\\(?:new|renew|provide)command\*?\s*\{?\\([A-Za-z]{1,40})\}?\s*\{([^{}\\$]{0,200})\}")
CJK = r"\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
FOLDED_IN_CJK = re.compile(f"(?<=[{CJK}]) ?\n ?(?=[{CJK}])")
BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True)
class LatexText:
    """left_out: how often something was left out, by its kind: drawings, bibliographies, inputs ..."""

    text: str
    title: str | None
    left_out: dict[str, int]


def record_of_latex(content: bytes, url: str | None, offset: int) -> Record | Refused:
    """The record of a LaTeX file; the refusal of one that leaves no text (a file of macros)."""
    decoded = decode(content, None)
    latex = latex_text(decoded.text)
    if not latex.text:
        return Refused(reason="empty", offset=offset, url=url, detail="no text between its commands")
    charset = None if decoded.charset in ("utf-8", "ascii") else decoded.charset
    meta = {"title": latex.title, "charset": charset, **{f"latex_{kind}": n for kind, n in latex.left_out.items()}}
    return Record(content=latex.text, is_html=False, length=len(content), url=url, offset=offset, meta=meta)


def latex_text(source: str) -> LatexText:
    r"""The readable text of LaTeX source.

    >>> latex_text(r"\section{One} A \emph{word}, $x^2$ and L\"owenheim.").text
    '## One\n\nA word, $x^2$ and Löwenheim.'
    """
    source = source.replace("\r\n", "\n").replace("\r", "\n").replace(LINE, "").replace(SPACE, "")
    macros: dict[str, str] = dict(DEFINITION.findall(source))
    start = source.find("\\begin{document}")
    title = _title(source)
    if start >= 0:
        stop = source.find("\\end{document}", start)
        source = source[start + len("\\begin{document}") : stop if stop >= 0 else len(source)]
    scan = _Scan(source, macros)
    scan.run()
    return LatexText(_folded("".join(scan.out)), title, dict(sorted(scan.left_out.items())))


def _title(source: str) -> str | None:
    at = source.find("\\title{")
    if at < 0:
        return None
    piece = source[at + 7 : at + 1007]
    depth = 1
    for end, character in enumerate(piece):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            scan = _Scan(piece[:end], {})
            scan.run()
            return " ".join("".join(scan.out).replace(LINE, " ").split()) or None
    return None


class _Scan:
    """One pass over the source. `out` holds the pieces of text."""

    def __init__(self, source: str, macros: dict[str, str]) -> None:
        self.source, self.macros = source, macros
        self.out: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._closing = _matching_braces(source)
        self._at_close: dict[int, str] = {}  # position of a brace -> what is written there
        self._absent: set[str] = set()  # ends of environments that do not come any more
        self._lists: list[int] = []  # open lists: number of the last item, -1 in an unnumbered one
        self._tables = 0

    def run(self) -> None:
        position = 0
        while match := TOKEN.search(self.source, position):
            self.out.append(self.source[position : match.start()])
            position = self._token(match)
        self.out.append(self.source[position:])

    def _token(self, match: re.Match[str]) -> int:
        """Write what the token stands for; returns where to go on."""
        name, escaped, mark, dash, quote, comment = match.groups()
        end = match.end()
        if comment:
            return end
        if dash:
            self.out.append("—" if len(dash) == 3 else "–")
        elif quote:
            self.out.append("“" if quote == "``" else "”")
        elif mark:
            return self._mark(mark, end)
        elif escaped:
            return self._escaped(escaped, end)
        else:
            return self._command(name, end)
        return end

    def _mark(self, mark: str, end: int) -> int:
        if mark == "$":
            return self._dollar(end)
        if mark == "~":
            self.out.append(" ")
        elif mark == "&":
            self.out.append(" | " if self._tables else "&")
        elif mark == "}" and end - 1 in self._at_close:
            self.out.append(self._at_close.pop(end - 1))
        return end

    def _dollar(self, end: int) -> int:
        """Math between dollars is kept with them; a lone dollar is a dollar."""
        fence = "$$" if self.source.startswith("$", end) else "$"
        start = end - 1 + len(fence)
        stop = self.source.find(fence, start)
        while stop > 0 and self.source[stop - 1] == "\\":
            stop = self.source.find(fence, stop + 1)
        if stop < 0 or self.source.find("\n\n", start, stop) >= 0:
            self.out.append(fence)
            return start
        self._keep(fence + self.source[start:stop] + fence)
        return stop + len(fence)

    def _escaped(self, character: str, end: int) -> int:
        if character in "([":
            closing = "\\)" if character == "(" else "\\]"
            stop = self._find(closing, end)
            if stop >= 0:
                self._keep("\\" + character + self.source[end:stop] + closing)
                return stop + 2
        elif character in ACCENTS:
            return self._accent(character, end)
        elif character == "\\":
            self.out.append(LINE)
            option = OPTION.match(self.source, end)
            return option.end() if option else end
        elif character in "%&$#_{}":
            self.out.append(character)
        elif character in " \n,;:!/-@":
            self.out.append("" if character in "!/-@" else " ")
        return end

    def _accent(self, mark: str, end: int) -> int:
        braced = ACCENTED.match(self.source, end)
        if not braced:
            return end
        self.out.append(unicodedata.normalize("NFC", braced[1].replace("ı", "i") + ACCENTS[mark]))
        return braced.end()

    def _command(self, name: str, end: int) -> int:
        if name == "begin" or name == "end":
            return self._environment(name, end)
        if name == "verb" or name == "lstinline":
            return self._verb(end)
        if name in ("item", "bibitem"):
            return self._item(end)
        if len(name) == 1 and name in ACCENTS and GROUP.match(self.source, end):
            return self._accent(name, end)
        if name in SYMBOLS:
            self.out.append(SYMBOLS[name])
        elif level := HEADINGS.get(name.removeprefix("ol")):
            return self._heading(level, end)
        elif name in DROPPED_ARGUMENTS:
            if name in ("input", "include", "subfile"):
                self.left_out["inputs"] += 1
            return self._without_arguments(end, DROPPED_ARGUMENTS[name])
        elif name in FIRST_DROPPED:
            return self._without_arguments(end, 2 if name == "resizebox" else 1)
        elif name == "footnote":
            return self._around(end, " (", ")")
        elif name in ("title", "caption"):
            return self._around(end, "\n\n# " if name == "title" else "\n\n", "\n\n")
        elif name in self.macros:
            self.out.append(self.macros[name])
        else:
            option = OPTION.match(self.source, end)
            if option and GROUP.match(self.source, option.end()):
                return option.end()
            if self.source[end - 1 : end].isspace():
                self.out.append(" " if self.out and self.out[-1][-1:].isspace() is False else "")
        return end

    def _environment(self, word: str, end: int) -> int:
        match = ENVIRONMENT.match(self.source, end)
        if not match:
            return end
        name, position = match[1], match.end()
        if word == "end":
            if name in ("itemize", "enumerate", "description") and self._lists:
                self._lists.pop()
            self._tables -= name.startswith(("tabular", "longtable")) and self._tables > 0
            self.out.append("\n\n")
            return position
        closing = f"\\end{{{name}{match[2]}}}"
        stop = self._find(closing, position) if name in MATH | CODE | LEFT_OUT else -1
        if stop >= 0:
            inside = self.source[position:stop]
            if name in LEFT_OUT:
                self.left_out[name] += 1
            elif name in CODE:
                inside = inside[option.end() :] if (option := OPTION.match(inside)) else inside
                code = inside.strip("\n").split("\n")
                self.out += ["\n\n", *(f"{SPACE * 4}{line.replace(' ', SPACE)}{LINE}" for line in code), "\n\n"]
            else:
                self.out.append("\n\n")
                self._keep(self.source[match.start() - len("\\begin") : stop + len(closing)])
                self.out.append("\n\n")
            return stop + len(closing)
        self.out.append("\n\n")
        option = OPTION.match(self.source, position)
        if option:
            position = option.end()
        if name in ("itemize", "enumerate", "description"):
            self._lists.append(0 if name == "enumerate" else -1)
        elif name.startswith(("tabular", "longtable")):
            self._tables += 1
            return self._without_arguments(position, 2 if name in ("tabularx", "tabular*") else 1)
        elif name in ("minipage", "multicols", "adjustbox", "wrapfigure"):
            return self._without_arguments(position, 2 if name == "wrapfigure" else 1)
        elif name in THEOREMS:
            self.out.append(THEOREMS[name] + (f" ({option[1]})" if option and option[1] else "") + ". ")
        return position

    def _item(self, end: int) -> int:
        if self._lists and self._lists[-1] >= 0:
            self._lists[-1] += 1
            marker = f"{self._lists[-1]}."
        else:
            marker = "-"
        self.out.append(f"{LINE}{SPACE * 2 * (len(self._lists[-8:]) - 1)}{marker}{SPACE}")
        option = OPTION.match(self.source, end)
        if option:
            self.out.append(f"{option[1]} ")
            return option.end()
        return end

    def _heading(self, level: int, end: int) -> int:
        option = OPTION.match(self.source, end)
        return self._around(option.end() if option else end, "\n\n" + "#" * level + " ", "\n\n")

    def _around(self, end: int, before: str, after: str) -> int:
        """Write the next group's text between two strings."""
        group = GROUP.match(self.source, end)
        if not group or group.end() - 1 not in self._closing:
            return end
        self.out.append(before)
        self._at_close[self._closing[group.end() - 1]] = after
        return group.end()

    def _without_arguments(self, end: int, number: int) -> int:
        """Behind the next `number` groups and the options between them."""
        while number:
            if option := OPTION.match(self.source, end):
                end = option.end()
                continue
            group = GROUP.match(self.source, end)
            if group and group.end() - 1 in self._closing:
                end = self._closing[group.end() - 1] + 1
            elif bare := BARE_COMMAND.match(self.source, end):
                end = bare.end()  # \def\x{...}, \setlength\parindent{0pt}
            else:
                return end
            number -= 1
        return end

    def _verb(self, end: int) -> int:
        while option := OPTION.match(self.source, end):
            end = option.end()
        if end >= len(self.source):
            return end
        fence = "}" if self.source[end] == "{" else self.source[end]
        line_end = self.source.find("\n", end)
        stop = self.source.find(fence, end + 1, line_end if line_end >= 0 else len(self.source))
        if stop < 0:
            return end
        self._keep(self.source[end + 1 : stop])
        return stop + 1

    def _find(self, closing: str, position: int) -> int:
        """`source.find`, remembering what does not come any more, so that many unclosed openings stay linear."""
        if closing in self._absent:
            return -1
        stop = self.source.find(closing, position)
        if stop < 0:
            self._absent.add(closing)
        return stop

    def _keep(self, text: str) -> None:
        """Text whose lines stay lines."""
        self.out.append(LINE.join(line.rstrip() for line in text.split("\n") if line.strip()))


def _matching_braces(source: str) -> dict[int, int]:
    """Position of an opening brace -> of the one that closes it."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"\\.|[{}]", source, re.S):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def _folded(text: str) -> str:
    """Paragraphs of one line each, parted by empty lines; lines and spaces that are to stay become real."""
    paragraphs = []
    for paragraph in BLANK_LINES.split(text):
        joined = FOLDED_IN_CJK.sub("", paragraph)
        lines = (" ".join(line.split()) for line in joined.split(LINE))
        kept = "\n".join(line for line in lines if line.strip(SPACE + " "))
        if kept:
            paragraphs.append(kept)
    return "\n\n".join(paragraphs).replace(SPACE, " ")
