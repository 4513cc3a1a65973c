"""One pass from the bytes of an HTML page to its blocks, without a tree: the fast form of `diglot.corpus.blocks`.

The definition is the slow way: resiliparse's HTML5 parser, its reduced HTML, and `read_blocks` over that. This kernel
keeps a stack of open elements with the standard's rules for implied and stray tags, and gives up with `False` on what
those rules do not settle locally (foster parenting out of tables, links closed by other tags, frames, MathML ...): such
pages go the slow way, so that both give the same blocks for every page.

Tag names are compared by their 64-bit FNV-1a hash; `names` lists those that mean something here.
"""

# ruff: noqa: SIM109, SIM905  (comparisons compile faster than memberships of tuples; names read best in one line)

from __future__ import annotations

import functools
from html.entities import html5
from typing import Any, NamedTuple

import numpy as np

from diglot.kernels.jit import kernel, part
from diglot.kernels.units import FNV_OFFSET, FNV_PRIME, decode

# What a tag does, as bits.
VOID, BLOCK, BIG, SKIPPED, SPECIAL, FORMATTING, CLOSES_P, IMPLIED, SCOPE, RAW, TABLE_PART, TABLE_CONTEXT, UNSURE = (
    1 << bit for bit in range(13)
)
HEADING, HEAD, PLAIN_END, MATH_PART = 1 << 13, 1 << 14, 1 << 15, 1 << 16

ROLES = {
    VOID: "area base basefont bgsound br col embed hr img input keygen link meta param source track wbr",
    BLOCK: "address article aside blockquote body caption center dd details div dl dt fieldset footer form h1 h2 h3 h4 "
    "h5 h6 header hgroup hr li main nav ol p pre section table tbody tfoot thead tr ul",
    BIG: "p h1 h2 h3 h4",
    SKIPPED: "script style iframe template object video audio textarea button select option label noscript svg figure "
    "figcaption nav footer",
    SPECIAL: "address applet area article aside base basefont bgsound blockquote body br button caption center col "
    "colgroup dd details dir div dl dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 "
    "head header hgroup hr html iframe img input keygen li link listing main marquee menu meta nav noembed noframes "
    "noscript object ol p param plaintext pre script search section select source style summary table tbody td "
    "template textarea tfoot th thead title tr track ul wbr xmp",
    FORMATTING: "a b big code em font i nobr s small strike strong tt u",
    CLOSES_P: "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer "
    "form header hgroup main menu nav ol p search section summary ul h1 h2 h3 h4 h5 h6 pre listing hr li dd dt",
    IMPLIED: "dd dt li optgroup option p rb rp rt rtc",
    SCOPE: "applet caption html table td th marquee object template",
    RAW: "script style iframe textarea",
    TABLE_PART: "caption col colgroup tbody td tfoot th thead tr",
    TABLE_CONTEXT: "table tbody thead tfoot tr colgroup",
    UNSURE: "plaintext frameset frame image xmp noembed noframes isindex",
    MATH_PART: "math mrow mi mo mn ms mtext msup msub msubsup mfrac msqrt mroot mtable mtr mtd mlabeledtr mstyle "
    "semantics annotation mspace mover munder munderover mpadded mphantom menclose mmultiscripts mprescripts none "
    "merror mfenced",
    HEADING: "h1 h2 h3 h4 h5 h6",
    HEAD: "base basefont bgsound link meta title script style template noscript",
    PLAIN_END: "address article aside blockquote button center details dialog dir div dl fieldset figcaption figure "
    "footer header hgroup listing main menu nav ol pre search section summary ul applet marquee object",
}
TAGS = sorted({name for names in ROLES.values() for name in names.split()} | {"span", "ruby"})
NUMBER = {name: number for number, name in enumerate(TAGS, start=1)}  # 0 is every other tag
_ID = NUMBER  # short for the constants below, which the kernel reads as literals
A, ASIDE, BODY, BR, BUTTON, CAPTION, COL, COLGROUP, DD, DT, FORM = (
    _ID[n] for n in "a aside body br button caption col colgroup dd dt form".split()
)
HEAD_TAG, HEADER, HTML, H1, H6, INPUT, LI, NOBR, NOSCRIPT, OL, OPTGROUP, OPTION = (
    _ID.get(n, 0) for n in "head header html h1 h6 input li nobr noscript ol optgroup option".split()
)
P, PRE, LISTING, RB, RP, RT, RTC, RUBY, SCRIPT, SELECT, SPAN, SVG, TABLE, TBODY, TD, TEMPLATE, TFOOT, TH, THEAD = (
    _ID[n]
    for n in "p pre listing rb rp rt rtc ruby script select span svg table tbody td template tfoot th thead".split()
)
TITLE, TR, UL, ADDRESS, DIV, HR, STYLE_TAG, IFRAME, MATH = (
    _ID[n] for n in "title tr ul address div hr style iframe math".split()
)

# Marks within a line, as the private-use characters of `diglot.corpus.blocks`: smaller, since they never leave.
TERM, DEFINITION, ROW, CELL, TABLE_END = 1, 2, 3, 4, 5
LINE_BREAK = 11
KINDS = ("paragraph", "heading", "term", "definition", "item", "code")
PARAGRAPH, HEADING_KIND, TERM_KIND, DEFINITION_KIND, ITEM, CODE = range(6)
NO_MARKER, BULLET = -1, 0

# Columns of a block.
B_KIND, B_START, B_STOP, B_LINKED, B_LEVEL, B_MARKER, B_ROW, B_CELL, NUM_COLUMNS = range(9)

# Places of the state: where the open line begins and ends in `text`, what is pending, and what is open.
(
    START, STOP, LINKED, IN_LINK, LINK_START, MARGIN, STRIP, SPACE, TABS, TABLE_MARKS, LEVEL, DEPTH_OF_LISTS, MARKER,
    PENDING, ROWS, IN_ROW, IN_CELL, IN_PRE, NUM_BLOCKS, NUM_LINE_STATES,
) = range(20)  # fmt: skip
# ... and of the page: where reading is, the number of open elements (0 before the body), the place on the stack of the
# one whose content is skipped, where the hidden word starts that is shown, the end of the last <tr> ..., and the place
# of <math> on the stack.
POSITION, DEPTH, SKIP, SHOWN, ROW_START, FORM_OPEN, HAS_DOCTYPE, HEAD_NOSCRIPT, HAS_TABLES, ALTERNATIVES, IN_MATH = (
    range(20, 31)
)
LISTS, NUM_STATES = 32, 32 + 101  # from LISTS on the number of the last item of each open list; -1 for bullets
# Columns of the stack of open elements.
NUMBER_OF, ONLY_HIDDEN, LAST_HIDDEN, NUM_STACK_COLUMNS = range(4)

MAX_DEPTH = 512  # of open elements, as in Chromium's parser
MAX_LISTS = 100
LONGEST_REFERENCE = 33
WORD, BLANK, DIGIT = 1, 2, 4
SPACES = np.zeros(256, np.bool_)
SPACES[[9, 10, 11, 12, 13, 32]] = True


# Facts of the page outside its text: where title and declared language stand in the source.
F_TITLE_START, F_TITLE_STOP, F_LANG_START, F_LANG_STOP, F_XML_START, F_XML_STOP, NUM_FACTS = range(7)

# Kinds of attributes.
NAMES = {"class": 1, "id": 2, "role": 3, "aria-hidden": 4, "hidden": 5, "href": 6, "lang": 7, "xml:lang": 8, "type": 9}


def _bytes(name: str) -> Any:
    return np.frombuffer(name.encode(), np.uint8)


SCRIPT_NAME, STYLE_NAME, IFRAME_NAME, TEXTAREA_NAME, TITLE_NAME, SVG_NAME, SELECT_NAME, TEMPLATE_NAME, TABLE_NAME = (
    _bytes(name) for name in "script style iframe textarea title svg select template table".split()
)
OPEN_SCRIPT, OPEN_SVG, OPEN_TEMPLATE, OPEN_TITLE = (_bytes(name) for name in ("<script", "<svg", "<template", "<title"))
DOCTYPE, COMMENT, HIDDEN_VALUE, END_LINK = (_bytes(name) for name in ("doctype html", "!--", "hidden", "</a>"))
XHTML = _bytes("-//w3c//dtd xhtml 1")


class Tables(NamedTuple):
    """Open addressing by the hash of a name: names with numbers (of tags), skips (values of class, id, role and
    aria-hidden), attributes with kinds, entities with UTF-8. role_of: bits by number of the tag. kinds: what
    Python's `re` calls word, blank and digit. implied: hashes of tbody, colgroup and tr."""

    names: Any
    numbers: Any
    role_of: Any
    skips: Any
    attributes: Any
    attribute_kinds: Any
    entities: Any
    entity_text: Any
    kinds: Any
    implied: Any


@part
def extended(state, code):
    return (state ^ np.uint64(code)) * FNV_PRIME


@part
def lower(code):
    return code + 32 if 65 <= code <= 90 else code


@part
def found(table, key):
    """The place of `key` in an open-addressing table whose length is a power of two, or -1."""
    mask = len(table) - 1
    place = np.int64(key >> np.uint64(20)) & mask
    while table[place] != 0:
        if table[place] == key:
            return place
        place = (place + 1) & mask
    return -1


@part
def is_blank(code, kinds):
    return code < len(kinds) and kinds[code] & 2 != 0


@part
def escaped_length(text, start, stop):
    """Characters of UTF-8 text where &, ", < and > are written as entities."""
    total = 0
    for i in range(start, stop):
        code = text[i]
        if code == 38:
            total += 5
        elif code == 34:
            total += 6
        elif code == 60 or code == 62:
            total += 4
        elif code & 0xC0 != 0x80:
            total += 1
    return total


@part
def add_block(s, blocks, kind, start, stop, linked, level, marker):
    n = s[NUM_BLOCKS]
    blocks[n, B_KIND], blocks[n, B_START], blocks[n, B_STOP], blocks[n, B_LINKED] = kind, start, stop, linked
    blocks[n, B_LEVEL], blocks[n, B_MARKER], blocks[n, B_ROW], blocks[n, B_CELL] = level, marker, s[IN_ROW], s[IN_CELL]
    s[NUM_BLOCKS] += 1


@part
def flush_part(s, text, blocks, kinds, start, stop, linked):
    """`_Reader.plain_block` for text[start:stop]; shortens it in place."""
    while start < stop:
        if text[start] == 32 or text[start] == LINE_BREAK or text[start] == 9:
            start += 1
        elif text[start] == 0xC2 and text[start + 1] == 0xA0:
            start += 2
        else:
            break
    while start < stop:
        if text[stop - 1] == 32 or text[stop - 1] == LINE_BREAK or text[stop - 1] == 9:
            stop -= 1
        elif text[stop - 1] == 0xA0 and stop - start > 1 and text[stop - 2] == 0xC2:
            stop -= 2
        else:
            break
    if start == stop:
        return
    # Line breaks take the spaces around them; marks of terms go.
    marked = text[start] <= DEFINITION
    if marked:
        s[PENDING] = TERM_KIND if text[start] == TERM else DEFINITION_KIND
        start += 1
    write = start
    for i in range(start, stop):
        code = text[i]
        if code == LINE_BREAK:
            while write > start and text[write - 1] == 32:
                write -= 1
            text[write] = 10
            write += 1
        elif code <= DEFINITION or (code == 32 and write > start and text[write - 1] == 10):
            continue
        else:
            text[write] = code
            write += 1
    stop = write
    if marked:
        while start < stop:
            code, width = decode(text, start)
            if not is_blank(code, kinds):
                break
            start += width
        while start < stop:
            last = stop - 1
            while text[last] & 0xC0 == 0x80:
                last -= 1
            code, width = decode(text, last)
            if not is_blank(code, kinds):
                break
            stop = last
    if start == stop:
        return
    for i in range(start, stop):
        if text[i] == 9:
            text[i] = 32
    if s[LEVEL]:
        add_block(s, blocks, HEADING_KIND, start, stop, linked, s[LEVEL], NO_MARKER)
    elif s[PENDING] and not s[DEPTH_OF_LISTS]:
        add_block(s, blocks, s[PENDING], start, stop, linked, 0, NO_MARKER)
        s[PENDING] = 0
    elif s[DEPTH_OF_LISTS]:
        add_block(s, blocks, ITEM, start, stop, linked, s[DEPTH_OF_LISTS] - 1, s[MARKER])
        s[MARKER] = NO_MARKER
    else:
        add_block(s, blocks, PARAGRAPH, start, stop, linked, 0, NO_MARKER)


@part
def nearest(value):
    """Python's `round` of a value that is not negative: halves to the even number."""
    whole = np.int64(value)
    rest = value - whole
    return whole + 1 if rest > 0.5 or (rest == 0.5 and whole & 1) else whole


@part
def flush(s, text, blocks, kinds):
    """End the open line: `_Reader.block`."""
    start, stop, linked = s[START], s[STOP], s[LINKED]
    s[START], s[LINKED], s[LINK_START] = stop, 0, stop
    if start == stop:
        return
    if not s[TABLE_MARKS]:
        flush_part(s, text, blocks, kinds, start, stop, linked)
        return
    s[TABLE_MARKS] = 0
    share = linked / escaped_length(text, start, stop)
    begin = start
    for i in range(start, stop + 1):
        if i < stop and not ROW <= text[i] <= TABLE_END:
            continue
        if begin < i:
            count = escaped_length(text, begin, i)
            flush_part(s, text, blocks, kinds, begin, i, nearest(share * count))
        begin = i + 1
        if i == stop:
            break
        if text[i] == TABLE_END:
            s[IN_ROW] = s[IN_CELL] = 0
        elif text[i] == ROW or not s[IN_ROW]:
            s[ROWS] += 1
            s[IN_ROW], s[IN_CELL] = s[ROWS], 1
        else:
            s[IN_CELL] += 1


@part
def strip_line(s, text):
    """Without the blank at the end of the open line; it would count where shares of links are taken."""
    if s[STOP] > s[START] and text[s[STOP] - 1] == 32:
        s[STOP] -= 1
        if s[IN_LINK]:
            s[LINKED] -= 1


@part
def begin_text(s, text, blocks, kinds):
    """Before the first character behind a border of blocks. A lone <br> takes the place of a simple border."""
    if s[MARGIN]:
        if s[MARGIN] > 1 or s[STOP] == s[START] or text[s[STOP] - 1] != LINE_BREAK:
            strip_line(s, text)
            flush(s, text, blocks, kinds)
        s[MARGIN] = 0
    if s[TABS]:
        s[TABS] = 0
        text[s[STOP]] = text[s[STOP] + 1] = 9
        s[STOP] += 2


@part
def put(s, text, blocks, kinds, code):
    """One byte of text."""
    if s[IN_PRE]:
        text[s[STOP]] = code
        s[STOP] += 1
        return
    if code == 32 or 9 <= code <= 13:
        if s[STRIP] or s[SPACE]:
            return
        code = 32
        s[SPACE] = 1
    else:
        s[SPACE] = s[STRIP] = 0
    if s[MARGIN] or s[TABS]:
        begin_text(s, text, blocks, kinds)
    text[s[STOP]] = code
    s[STOP] += 1
    if s[IN_LINK] and code & 0xC0 != 0x80:
        s[LINKED] += 5 if code == 38 else 6 if code == 34 else 4 if code == 60 or code == 62 else 1


@part
def put_mark(s, text, blocks, kinds, mark):
    """A private mark; it counts as a character that is not blank."""
    if s[IN_PRE]:
        return
    begin_text(s, text, blocks, kinds)
    text[s[STOP]] = mark
    s[STOP] += 1
    s[SPACE] = s[STRIP] = 0
    if s[IN_LINK]:
        s[LINKED] += 1
    if mark >= ROW:
        s[TABLE_MARKS] = 1


@part
def put_reference(source, position, stop, tables, s, text, blocks):
    """The character reference at `position` (an ampersand) as text. Returns the position behind it; -1: give up."""
    kinds = tables.kinds
    i = position + 1
    if i < stop and source[i] == 35:
        i += 1
        base = 10
        if i < stop and (source[i] == 120 or source[i] == 88):
            base = 16
            i += 1
        code, digits = 0, 0
        while i < stop:
            c = np.int64(source[i])
            if 48 <= c <= 57:
                digit = c - 48
            elif base == 16 and 97 <= (c | 32) <= 102:
                digit = (c | 32) - 87
            else:
                break
            code = code * base + digit
            if code > 0x110000:
                code = 0x110000
            digits += 1
            i += 1
        if digits:
            if i < stop and source[i] == 59:
                i += 1
            if code < 32 and code != 9 and code != 10:
                return -1
            if 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE005 or code >= 0x110000:
                return -1
            if code < 0x80:
                width, first = 1, code
            elif code < 0x800:
                width, first = 2, 0xC0 | code >> 6
            elif code < 0x10000:
                width, first = 3, 0xE0 | code >> 12
            else:
                width, first = 4, 0xF0 | code >> 18
            for k in range(width):
                put(s, text, blocks, kinds, first if k == 0 else 0x80 | code >> 6 * (width - 1 - k) & 0x3F)
            return i
    else:
        state = FNV_OFFSET
        best, best_stop = -1, i
        while i < stop and i - position <= LONGEST_REFERENCE:
            c = source[i]
            if not (48 <= c <= 57 or 97 <= (c | 32) <= 122 or c == 59):
                break
            state = extended(state, c)
            i += 1
            place = found(tables.entities, state)
            if place >= 0:
                best, best_stop = place, i
            if c == 59:
                break
        if best >= 0:
            k = 0
            while k < 8 and tables.entity_text[best, k]:
                put(s, text, blocks, kinds, np.int64(tables.entity_text[best, k]))
                k += 1
            return best_stop
    put(s, text, blocks, kinds, 38)
    return position + 1


@part
def is_footnote_or_anchor(text, start, stop, kinds):
    """`FOOTNOTE_OR_ANCHOR` matches all of text[start:stop] without the blanks around it; `&"<>` stand as entities."""
    codes = np.zeros(8, np.int64)
    count = 0
    position = start
    pending = 0
    while position < stop:
        code, width = decode(text, position)
        position += width
        if is_blank(code, kinds):
            if count:
                pending += 1
            continue
        if pending or count == 7:
            return False
        if code == 38 or code == 34 or code == 60 or code == 62:
            return False
        codes[count] = code
        count += 1
    if count == 0:
        return False
    if count <= 2:
        plain = True
        for i in range(count):
            code = codes[i]
            if (code < len(kinds) and kinds[code] & 3 != 0) or code >= len(kinds):
                plain = False
        if plain:
            return True
    i = 0
    if codes[i] == 91:
        i += 1
    if i < count and codes[i] == 40:
        i += 1
    digits = 0
    while i < count and digits < 3 and codes[i] < len(kinds) and kinds[codes[i]] & 4 != 0:
        i += 1
        digits += 1
    if digits == 0:
        return False
    if i < count and codes[i] == 41:
        i += 1
    if i < count and codes[i] == 93:
        i += 1
    return i == count


@part
def tag_line(s, text, blocks, kinds):
    """A tag of a heading, paragraph, list or item ends the line."""
    flush(s, text, blocks, kinds)
    s[TABS] = 0


@part
def add_margin(s, size):
    """A border of blocks; margins collapse, and blanks behind it do not count."""
    if s[MARGIN] < size:
        s[MARGIN] = size
    s[STRIP] = 1
    s[TABS] = 0


@part
def start_block(s, text, blocks, kinds, number, role):
    """What the start of a block or link does to the open line. False: give up."""
    if s[IN_PRE]:
        return not (number == P or role & HEADING or number == LI or number == UL or number == OL or number == PRE)
    opens = number == PRE or number == P or number == LI or number == UL or number == OL or role & HEADING != 0
    if opens:
        if s[MARGIN]:
            strip_line(s, text)
        tag_line(s, text, blocks, kinds)
    if number == PRE:
        s[MARGIN] = 0
        s[IN_PRE] = 1
    elif number == P or role & HEADING:
        s[MARGIN] = s[SPACE] = s[STRIP] = 0
        if role & HEADING:
            s[LEVEL] = number - H1 + 1
    elif number == UL or number == OL:
        s[MARGIN] = s[STRIP] = 0
        s[SPACE] = 1
        if s[DEPTH_OF_LISTS] == MAX_LISTS:
            return False
        s[LISTS + s[DEPTH_OF_LISTS]] = 0 if number == OL else -1
        s[DEPTH_OF_LISTS] += 1
    elif number == LI:
        s[MARGIN] = s[SPACE] = s[STRIP] = 0
        if s[DEPTH_OF_LISTS]:
            last = LISTS + s[DEPTH_OF_LISTS] - 1
            if s[last] >= 0:
                s[last] += 1
                s[MARKER] = s[last]
            else:
                s[MARKER] = BULLET
    else:
        add_margin(s, 1)
    return True


@part
def end_block(s, text, blocks, kinds, number, role):
    """What the end of a block does to the open line."""
    if number == PRE:
        if s[IN_PRE]:
            s[IN_PRE] = 0
            add_block(s, blocks, CODE, s[START], s[STOP], 0, 0, NO_MARKER)
            s[START] = s[LINK_START] = s[STOP]
            s[MARGIN] = s[STRIP] = 1
            s[SPACE] = 0
        return
    if s[IN_PRE]:
        return
    if number == P or role & HEADING:
        if s[IN_LINK] and s[STOP] > s[START]:
            s[LINKED] += 2 * s[DEPTH_OF_LISTS]  # resiliparse indents this end tag
        tag_line(s, text, blocks, kinds)
        if role & HEADING:
            s[LEVEL] = 0
        s[SPACE] = 0
    elif number == UL or number == OL:
        tag_line(s, text, blocks, kinds)
        if s[DEPTH_OF_LISTS]:
            s[DEPTH_OF_LISTS] -= 1
        s[SPACE] = 0
    elif number == LI:
        strip_line(s, text)
        tag_line(s, text, blocks, kinds)
        s[MARGIN] = 0
        s[SPACE] = 1
    add_margin(s, 2 if role & BIG else 1)


@part
def start_link(s, text, blocks, kinds, has_address):
    if s[IN_PRE]:
        return
    begin_text(s, text, blocks, kinds)
    s[SPACE] = s[STRIP] = 0
    if has_address:
        s[IN_LINK] = 1
        s[LINK_START] = s[STOP]


@part
def end_link(s, text, blocks, kinds):
    if s[IN_PRE]:
        return
    begin_text(s, text, blocks, kinds)
    s[SPACE] = s[STRIP] = 0
    if s[IN_LINK] and is_footnote_or_anchor(text, s[LINK_START], s[STOP], kinds):
        s[LINKED] -= escaped_length(text, s[LINK_START], s[STOP])
        s[STOP] = s[LINK_START]
    s[IN_LINK] = 0
    s[LINK_START] = s[STOP]


@part
def find_end(source, position, name):
    """Where `</name` begins that is followed by a blank, `/` or `>`, without regard to case; len(source) if nowhere."""
    stop = len(source)
    while position < stop:
        if source[position] == 60 and position + 1 < stop and source[position + 1] == 47:
            i = 0
            while i < len(name) and position + 2 + i < stop and source[position + 2 + i] | 32 == name[i]:
                i += 1
            after = position + 2 + i
            if i == len(name) and after < stop and (source[after] <= 32 or source[after] == 47 or source[after] == 62):
                return position
        position += 1
    return stop


@part
def starts_with(source, position, name):
    """Whether the lower-case `name` stands at `position`, in any case."""
    if position + len(name) > len(source):
        return False
    for i in range(len(name)):
        code = source[position + i]
        if code != name[i] and not (97 <= name[i] <= 122 and code | 32 == name[i]):
            return False
    return True


@part
def behind(source, position):
    """The position behind the next `>`, or the end."""
    while position < len(source) and source[position] != 62:
        position += 1
    return position + 1 if position < len(source) else position


@part
def tables_context(number):
    """Whether text and ordinary tags do not belong right into this element."""
    return (
        number == TABLE or number == TBODY or number == THEAD or number == TFOOT or number == TR or number == COLGROUP
    )


@part
def close_to(target, stack, tables, s, text, blocks, links_end):
    """End the open elements from `target` on, innermost first. False where an open link would go on behind them."""
    for k in range(s[DEPTH] - 1, target - 1, -1):
        number = stack[k, NUMBER_OF]
        if number == A and k > target and not links_end:
            return False
        if 0 <= s[SKIP] <= k:
            continue
        if number == A:
            end_link(s, text, blocks, tables.kinds)
        elif tables.role_of[number] & BLOCK:
            end_block(s, text, blocks, tables.kinds, number, tables.role_of[number])
        elif number == TD or number == TH:
            s[STRIP] = 1
    s[DEPTH] = target
    if s[SKIP] >= target:
        s[SKIP] = -1
    if s[IN_MATH] >= target:
        s[IN_MATH] = -1
    return True


@part
def open_element(name, number, names, stack, s):
    depth = s[DEPTH]
    names[depth] = name
    stack[depth, NUMBER_OF], stack[depth, ONLY_HIDDEN], stack[depth, LAST_HIDDEN] = number, 1, -1
    s[DEPTH] = depth + 1


@part
def raw_end(source, position, number):
    """Behind the end tag of an element whose content is no markup; -1 where a script hides its end in comments."""
    if number == SCRIPT:
        close = find_end(source, position, SCRIPT_NAME)
        for k in range(position, close - 3):
            if source[k] == 60 and source[k + 1] == 33 and source[k + 2] == 45 and source[k + 3] == 45:
                for j in range(k, close):
                    if source[j] == 60 and starts_with(source, j, OPEN_SCRIPT):
                        return -1
                break
    elif number == STYLE_TAG:
        close = find_end(source, position, STYLE_NAME)
    elif number == IFRAME:
        close = find_end(source, position, IFRAME_NAME)
    else:
        close = find_end(source, position, TEXTAREA_NAME)
    return behind(source, close)


@part
def svg_end(source, position, has_title):
    """Behind the drawing that starts before `position`; -1 where it holds HTML or says something about the page."""
    stop = len(source)
    if source[position - 2] == 47:
        return position
    depth = 1
    while position < stop:
        if source[position] != 60:
            position += 1
            continue
        if starts_with(source, position, OPEN_SVG):
            k = position
            while k < stop and source[k] != 62:
                k += 1
            depth += 0 if source[k - 1] == 47 else 1
            position = k + 1
            continue
        if position + 1 >= stop:
            return -1
        after = source[position + 1]
        if after == 33 or after == 63:
            return -1
        if after == 47:
            if starts_with(source, position + 2, SVG_NAME):
                depth -= 1
                if depth == 0:
                    return behind(source, position)
            position += 2
            continue
        if starts_with(source, position, OPEN_TITLE):
            if not has_title:
                return -1
        elif not is_drawing(source, position + 1):
            return -1
        quote = 0
        while position < stop and (source[position] != 62 or quote):
            if quote:
                quote = 0 if source[position] == quote else quote
            elif source[position] == 34 or source[position] == 39:
                quote = np.int64(source[position])
            position += 1
    return -1


@part
def is_drawing(source, position):
    """Whether the tag name at `position` is one of SVG and cannot end the drawing."""
    state = FNV_OFFSET
    while position < len(source) and source[position] > 32 and source[position] != 47 and source[position] != 62:
        state = extended(state, lower(source[position]))
        position += 1
    return found(DRAWING, state) >= 0


@part
def only_options(source, start, stop, tables):
    """Whether source[start:stop], the content of <select>, holds no tags but <option> and <optgroup>."""
    for k in range(start, stop - 1):
        if source[k] != 60:
            continue
        i = k + 1
        if source[i] == 47:
            i += 1
        state = FNV_OFFSET
        while i < stop and source[i] > 32 and source[i] != 47 and source[i] != 62:
            state = extended(state, lower(source[i]))
            i += 1
        place = found(tables.names, state)
        number = tables.numbers[place] if place >= 0 else 0
        if number != OPTION and number != OPTGROUP:
            return False
    return True


@part
def is_unwanted(source, values, skips):
    """Whether class, id, role or aria-hidden say that an element is no main text."""
    for kind in range(1, 5):
        start, stop = values[kind, 0], values[kind, 1]
        if start < 0:
            continue
        position = start
        while position < stop:
            while position < stop and kind == 1 and source[position] <= 32:
                position += 1
            if position >= stop:
                break
            state = extended(FNV_OFFSET, kind)
            while position < stop and (kind != 1 or source[position] > 32):
                state = extended(state, source[position])
                position += 1
            if found(skips, state) >= 0:
                return True
    return False


def tag_hash(name: str, prefix: int | None = None) -> int:
    """The plain form of the hashes here; `prefix` is the kind of an attribute."""
    state = int(FNV_OFFSET)
    for code in ([prefix] if prefix is not None else []) + list(name.encode()):
        state = ((state ^ code) * int(FNV_PRIME)) & 0xFFFFFFFFFFFFFFFF
    return state


def open_table(keys: list[int], size: int) -> tuple[Any, list[int]]:
    """An open-addressing table for `found`, and the place of each key."""
    table = np.zeros(size, np.uint64)
    places = []
    for key in keys:
        place = (key >> 20) & (size - 1)
        while table[place] and int(table[place]) != key:
            place = (place + 1) & (size - 1)
        table[place] = key
        places.append(place)
    return table, places


_DRAWING = (
    "a animate animatemotion animatetransform circle clippath defs desc ellipse feblend fecolormatrix "
    "fecomponenttransfer fecomposite feconvolvematrix fediffuselighting fedisplacementmap fedropshadow feflood "
    "fefunca fefuncb fefuncg fefuncr fegaussianblur feimage femerge femergenode femorphology feoffset "
    "fepointlight fespecularlighting fespotlight fetile feturbulence filter g image line lineargradient marker "
    "mask metadata path pattern polygon polyline radialgradient rect set stop style switch symbol text textpath "
    "tspan use view"
)
DRAWING, _ = open_table([tag_hash(name) for name in _DRAWING.split()], 256)


@functools.cache
def tables(skip: tuple[str, ...]) -> Tables:
    """The tables of `read_page`.

    skip: the CSS selectors of what is no main text: tags, `.class`, `#id` and `[attribute=value]`. `[hidden]`,
    `body > header` and `body > aside` are always skipped.
    """
    roles = dict.fromkeys(TAGS, 0)
    for role, listed in ROLES.items():
        for name in listed.split():
            roles[name] |= role
    skips = []
    for selector in skip:
        if selector in ("[hidden]", "body > header", "body > aside"):
            continue
        if selector[0] == ".":
            skips.append(tag_hash(selector[1:], 1))
        elif selector[0] == "#":
            skips.append(tag_hash(selector[1:], 2))
        elif selector[0] == "[":
            name, _, value = selector[1:-1].partition("=")
            skips.append(tag_hash(value, NAMES[name]))
        else:
            assert roles[selector] & SKIPPED, f"'{selector}' is not among the tags that the kernel skips"
    names, places = open_table([tag_hash(name) for name in TAGS], 1024)
    numbers = np.zeros(1024, np.int64)
    for name, place in zip(TAGS, places, strict=True):
        numbers[place] = NUMBER[name]
    attributes, places = open_table([tag_hash(name) for name in NAMES], 64)
    attribute_kinds = np.zeros(64, np.int64)
    for kind, place in zip(NAMES.values(), places, strict=True):
        attribute_kinds[place] = kind
    entities, places = open_table([tag_hash(name) for name in html5], 8192)
    entity_text = np.zeros((8192, 8), np.uint8)
    for value, place in zip(html5.values(), places, strict=True):
        utf8 = value.encode()
        entity_text[place, : len(utf8)] = list(utf8)
    return Tables(
        names=names, numbers=numbers, role_of=np.array([0] + [roles[name] for name in TAGS]),
        skips=open_table(skips, 256)[0], attributes=attributes, attribute_kinds=attribute_kinds,
        entities=entities, entity_text=entity_text, kinds=_kinds(),
        implied=np.array([tag_hash(name) for name in ("tbody", "colgroup", "tr")], np.uint64),
    )  # fmt: skip


def _kinds() -> Any:
    """WORD, BLANK and DIGIT of every character below U+30000, as Python's `re` sees them."""
    kinds = np.zeros(0x30000, np.uint8)
    for code in range(len(kinds)):
        character = chr(code)
        kinds[code] = (
            (WORD if character.isalnum() or code == 95 else 0)
            | (BLANK if character.isspace() else 0)
            | (DIGIT if character.isdecimal() else 0)
        )
    return kinds


@part
def read_text(source, tables, stack, s, text, blocks):
    """A run of text up to the next `<`; one that starts no tag is text. False: give up."""
    kinds = tables.kinds
    stop = len(source)
    position = s[POSITION]
    top = s[DEPTH] - 1
    in_table = tables_context(stack[top, NUMBER_OF])
    begin = position
    if s[SKIP] >= 0:
        while position < stop and (position == begin or source[position] != 60):
            if in_table and source[position] > 32:
                return False
            position += 1
        s[POSITION] = position
        return True
    only_blank = True
    while position < stop and (position == begin or source[position] != 60):
        code = np.int64(source[position])
        if code > 32:
            if in_table:
                return False
            only_blank = False
            if code == 38:
                position = put_reference(source, position, stop, tables, s, text, blocks)
                if position < 0:
                    return False
                continue
            if code == 0xEE and source[position + 1] == 0x80 and 0x80 <= source[position + 2] <= 0x84:
                return False
        else:
            if code < 9 or (code == 11 and s[IN_PRE]):
                return False
            if in_table:
                position += 1
                continue
            if code == 13 and s[IN_PRE]:
                if position + 1 < stop and source[position + 1] == 10:
                    position += 1
                    continue
                code = 10
        put(s, text, blocks, kinds, code)
        position += 1
    if not only_blank:
        stack[top, ONLY_HIDDEN] = 0
    s[POSITION] = position
    return True


@part
def skip_declaration(source, stack, s):
    """A comment, a document type or a processing instruction."""
    stop = len(source)
    position = s[POSITION]
    if s[DEPTH]:
        stack[s[DEPTH] - 1, ONLY_HIDDEN] = 0
    if starts_with(source, position + 1, COMMENT):
        i = position + 4
        if i < stop and source[i] == 62:
            s[POSITION] = i + 1
            return
        if i + 1 < stop and source[i] == 45 and source[i + 1] == 62:
            s[POSITION] = i + 2
            return
        while i + 2 < stop:
            if source[i] == 45 and source[i + 1] == 45:
                if source[i + 2] == 62:
                    s[POSITION] = i + 3
                    return
                if source[i + 2] == 33 and i + 3 < stop and source[i + 3] == 62:
                    s[POSITION] = i + 4
                    return
            i += 1
        s[POSITION] = stop
        return
    if s[DEPTH] == 0 and starts_with(source, position + 2, DOCTYPE):
        i = position + 14
        if i < stop and source[i] == 62:
            s[HAS_DOCTYPE] = 1
        while i < stop and source[i] != 62:
            if source[i] == 45 and starts_with(source, i, XHTML):
                s[HAS_DOCTYPE] = 1
            i += 1
    s[POSITION] = behind(source, position)


@part
def element_to_end(name, number, role, tables, names, stack, s):
    """The place on the stack of the element that an end tag ends; -1: none, -2: give up."""
    i = s[DEPTH] - 1
    top = stack[i, NUMBER_OF]
    if number == TABLE or role & TABLE_PART:
        while i > 0 and names[i] != name:
            if stack[i, NUMBER_OF] == TABLE:
                return -1
            i -= 1
        return i if i > 0 else -1
    if tables_context(top) and (number == P or number == FORM):
        return -2
    scoped = role & FORMATTING or role & PLAIN_END or role & HEADING
    scoped = scoped or number == P or number == LI or number == DD or number == DT or number == FORM
    while i > 0:
        other = stack[i, NUMBER_OF]
        other_role = tables.role_of[other]
        if names[i] == name or (role & HEADING and other_role & HEADING):
            return i
        if scoped:
            if other_role & SCOPE or (number == P and other == BUTTON):
                return -1
            if number == LI and (other == UL or other == OL):
                return -1
        elif other_role & SPECIAL:
            return -1
        i -= 1
    return -1


@part
def read_end_tag(source, tables, names, stack, saved, s, text, blocks):
    """False: give up."""
    stop = len(source)
    begin = s[POSITION]
    i = begin + 2
    if not 97 <= (source[i] | 32) <= 122:
        s[POSITION] = behind(source, begin)
        return True
    name = FNV_OFFSET
    while i < stop and source[i] > 32 and source[i] != 47 and source[i] != 62:
        name = extended(name, lower(source[i]))
        i += 1
    exact = i < stop and source[i] == 62
    quote = 0
    while i < stop and (source[i] != 62 or quote):  # end tags have no attributes, but may
        if quote:
            quote = 0 if source[i] == quote else quote
        elif (source[i] == 34 or source[i] == 39) and source[i - 1] == 61:
            quote = np.int64(source[i])
        i += 1
    s[POSITION] = i + 1 if i < stop else stop
    if i >= stop:
        return True
    place = found(tables.names, name)
    number = tables.numbers[place] if place >= 0 else 0
    role = tables.role_of[number]
    if s[DEPTH] == 0:
        if number == NOSCRIPT:
            s[HEAD_NOSCRIPT] = 0
        return number != BR and number != P
    if number == BODY or number == HTML or number == HEAD_TAG:
        return True
    if number == BR or role & UNSURE or number == TEMPLATE or (s[IN_MATH] >= 0 and not role & MATH_PART):
        return False
    marks = s[HAS_TABLES] and number == TABLE and exact
    for k in range(5):
        marks = marks and source[begin + 2 + k] == TABLE_NAME[k]
    target = element_to_end(name, number, role, tables, names, stack, s)
    if target == -2:
        return False
    depth = s[DEPTH]
    links_end = role & SCOPE != 0
    special = plain = False
    for k in range(target + 1, depth if target > 0 else 0):
        other = tables.role_of[stack[k, NUMBER_OF]]
        links_end |= other & SCOPE != 0
        special |= other & SPECIAL != 0
        plain |= other & IMPLIED == 0
    if number == FORM:
        s[FORM_OPEN] = 0
        if target > 0 and plain:
            return False
    if target > 0 and role & FORMATTING and target < depth - 1:
        if number == A or s[SKIP] == target:
            return False
        if special:  # the blocks inside stay open
            for k in range(target, depth - 1):
                names[k], stack[k, NUMBER_OF] = names[k + 1], stack[k + 1, NUMBER_OF]
                stack[k, ONLY_HIDDEN], stack[k, LAST_HIDDEN] = 0, -1
            s[DEPTH] -= 1
            if s[SKIP] > target:
                s[SKIP] -= 1
            return True
    if target > 0:
        if number == SPAN and target == depth - 1 and s[ALTERNATIVES] and stack[target, ONLY_HIDDEN] and s[SKIP] < 0:
            again = stack[target, LAST_HIDDEN]
            if again >= 0 and again != s[SHOWN]:
                if s[NUM_BLOCKS] != saved[target, NUM_BLOCKS] or s[START] != saved[target, START]:
                    return False
                for k in range(NUM_LINE_STATES):
                    s[k] = saved[target, k]
                s[SHOWN] = s[POSITION] = again
                return True
        if not close_to(target, stack, tables, s, text, blocks, links_end):
            return False
    elif number == P and s[SKIP] < 0:  # it stands for an empty paragraph
        if s[IN_PRE]:
            return False
        add_margin(s, 2)
    if marks and s[SKIP] < 0:
        if tables_context(stack[s[DEPTH] - 1, NUMBER_OF]):
            return False
        put_mark(s, text, blocks, tables.kinds, TABLE_END)
    return True


@part
def read_attributes(source, i, tables, values):
    """Fill `values` [10, 2] with where the values of the known attributes stand, -1 for missing ones.

    Returns the position behind the tag (negated when a quoted value holds `<` or `>`); 0 where the tag never ends.
    values[0, 0] is whether the tag ends with a slash of its own.
    """
    stop = len(source)
    for kind in range(10):
        values[kind, 0] = values[kind, 1] = -1
    sign = 1
    values[0, 0] = 0
    while i < stop:
        slash = False
        while i < stop and (source[i] <= 32 or source[i] == 47):
            slash = source[i] == 47
            i += 1
        if i >= stop:
            return 0
        if source[i] == 62:
            values[0, 0] = slash
            return sign * (i + 1)
        attribute = extended(FNV_OFFSET, lower(source[i]))
        i += 1
        while i < stop and source[i] > 32 and source[i] != 47 and source[i] != 62 and source[i] != 61:
            attribute = extended(attribute, lower(source[i]))
            i += 1
        begin = end = k = i
        while k < stop and source[k] <= 32:
            k += 1
        if k < stop and source[k] == 61:
            i = k + 1
            while i < stop and source[i] <= 32:
                i += 1
            if i < stop and (source[i] == 34 or source[i] == 39):
                quote = source[i]
                i += 1
                begin = i
                while i < stop and source[i] != quote:
                    if source[i] == 60 or source[i] == 62:
                        sign = -1
                    i += 1
                end = i
                i += 1
            else:
                begin = i
                while i < stop and source[i] > 32 and source[i] != 62:
                    i += 1
                end = i
        place = found(tables.attributes, attribute)
        if place >= 0:
            kind = tables.attribute_kinds[place]
            if values[kind, 0] < 0:
                values[kind, 0], values[kind, 1] = begin, end
    return 0


@part
def read_head_tag(source, tables, number, role, values, unwanted, s, facts):
    """A start tag before the body. 1: done, 0: the body begins with it, -1: give up."""
    if number == HTML:
        if facts[F_LANG_START] < 0 and facts[F_XML_START] < 0:
            facts[F_LANG_START], facts[F_LANG_STOP] = values[7, 0], values[7, 1]
            facts[F_XML_START], facts[F_XML_STOP] = values[8, 0], values[8, 1]
        return -1 if unwanted else 1
    if number == HEAD_TAG:
        return 1
    if not role & HEAD:
        return -1 if s[HEAD_NOSCRIPT] else 0
    if s[HEAD_NOSCRIPT] and (number == SCRIPT or number == TITLE or number == NOSCRIPT):
        return -1
    if number == TITLE:
        close = find_end(source, s[POSITION], TITLE_NAME)
        if facts[F_TITLE_START] < 0:
            facts[F_TITLE_START], facts[F_TITLE_STOP] = s[POSITION], close
        s[POSITION] = close
    elif number == NOSCRIPT:
        s[HEAD_NOSCRIPT] = 1
    elif number == TEMPLATE:
        return -1
    elif role & RAW:
        position = raw_end(source, s[POSITION], number)
        if position < 0:
            return -1
        s[POSITION] = position
    return 1


@part
def make_place_in_table(number, tables, names, stack, s, text, blocks):
    """Open and close what the start tag of a row, cell ... implies. 1: done, 0: the tag is ignored, -1: give up."""
    while True:
        k = s[DEPTH] - 1
        current = stack[k, NUMBER_OF]
        is_cell = number == TD or number == TH
        if not tables_context(current):
            while k > 0 and not tables.role_of[stack[k, NUMBER_OF]] & SCOPE:
                k -= 1
            holder = stack[k, NUMBER_OF]
            if k == 0 or not (holder == TD or holder == TH or holder == CAPTION):
                return 0
        elif current == TABLE:
            if is_cell or number == TR:
                open_element(tables.implied[0], TBODY, names, stack, s)
                if s[SKIP] < 0:
                    add_margin(s, 1)
                continue
            if number == COL:
                open_element(tables.implied[1], COLGROUP, names, stack, s)
                continue
            return 1
        elif current == TR:
            if is_cell:
                return 1
        elif current == COLGROUP:
            if number == COL:
                return 1
        elif number == TR:
            return 1
        elif is_cell:
            open_element(tables.implied[2], TR, names, stack, s)
            if s[SKIP] < 0:
                add_margin(s, 1)
            continue
        if not close_to(k, stack, tables, s, text, blocks, True):
            return -1


@part
def close_implied(number, role, tables, stack, s, text, blocks):
    """Close what the start tag implies to be at its end: items, terms, paragraphs, headings. False: give up."""
    target = s[DEPTH]
    k = target - 1
    if number == LI or number == DD or number == DT:
        while k > 0:
            other = stack[k, NUMBER_OF]
            if other == number or (number != LI and (other == DD or other == DT)):
                target = k
                break
            if tables.role_of[other] & SPECIAL and other != ADDRESS and other != DIV and other != P:
                break
            k -= 1
    elif number == OPTION or number == OPTGROUP:
        if stack[k, NUMBER_OF] == OPTION:
            target = k
    elif number == RB or number == RTC or number == RP or number == RT:
        ruby = False
        for i in range(1, target):
            ruby |= stack[i, NUMBER_OF] == RUBY
        while ruby and k > 0 and tables.role_of[stack[k, NUMBER_OF]] & IMPLIED:
            if stack[k, NUMBER_OF] == RTC and (number == RP or number == RT):
                break
            target = k
            k -= 1
    elif number == BUTTON or number == NOBR:
        for i in range(1, target):
            if stack[i, NUMBER_OF] == number:
                return False
    elif number == A:
        while k > 0 and not tables.role_of[stack[k, NUMBER_OF]] & SCOPE:
            if stack[k, NUMBER_OF] == A:
                return False
            k -= 1
    if target < s[DEPTH] and not close_to(target, stack, tables, s, text, blocks, False):
        return False
    if role & CLOSES_P or number == TABLE:
        k = s[DEPTH] - 1
        while k > 0:
            other = stack[k, NUMBER_OF]
            if other == P or other == BUTTON or tables.role_of[other] & SCOPE:
                break
            k -= 1
        if k > 0 and stack[k, NUMBER_OF] == P:
            if number == TABLE and not s[HAS_DOCTYPE]:
                return False
            if not close_to(k, stack, tables, s, text, blocks, False):
                return False
    k = s[DEPTH] - 1
    if role & HEADING and tables.role_of[stack[k, NUMBER_OF]] & HEADING:
        return close_to(k, stack, tables, s, text, blocks, False)
    return True


@part
def skip_whole(source, number, tables, position, has_title):
    """Behind a drawing, a selection, a template or raw text that begins before `position`; -1: give up."""
    if number == SVG:
        return svg_end(source, position, has_title)
    if number == SELECT:
        close = find_end(source, position, SELECT_NAME)
        if close == len(source) or not only_options(source, position, close, tables):
            return -1
        return behind(source, close)
    if number == TEMPLATE:
        close = find_end(source, position, TEMPLATE_NAME)
        for k in range(position, close):
            if source[k] == 60:
                nested = starts_with(source, k, OPEN_TEMPLATE) or starts_with(source, k, OPEN_SCRIPT)
                if nested or source[k + 1] == 33:
                    return -1
        return behind(source, close) if close < len(source) else -1
    return raw_end(source, position, number)


@part
def read_start_tag(source, tables, names, stack, saved, values, s, text, blocks, facts):
    """False: give up."""
    kinds = tables.kinds
    begin = s[POSITION]
    stop = len(source)
    i = begin + 1
    name = FNV_OFFSET
    while i < stop and source[i] > 32 and source[i] != 47 and source[i] != 62:
        name = extended(name, lower(source[i]))
        i += 1
    place = found(tables.names, name)
    number = tables.numbers[place] if place >= 0 else 0
    role = tables.role_of[number]
    slash = i < stop and source[i] == 47
    after = read_attributes(source, i, tables, values)
    if after == 0:  # a tag that never ends is no tag
        s[POSITION] = stop
        return True
    marked = number == TD or number == TH or number == TR or number == DT or number == DD
    if role & UNSURE or (marked and (after < 0 or slash)):
        return False
    s[POSITION] = after if after > 0 else -after
    hidden = values[5, 0] >= 0
    unwanted = role & SKIPPED != 0
    if not unwanted and (values[1, 0] >= 0 or values[2, 0] >= 0 or values[3, 0] >= 0 or values[4, 0] >= 0):
        unwanted = is_unwanted(source, values, tables.skips)
    if s[DEPTH] == 0:
        outcome = read_head_tag(source, tables, number, role, values, unwanted or hidden, s, facts)
        if outcome:
            return outcome > 0
        open_element(FNV_OFFSET, BODY, names, stack, s)
        if number == BODY:
            if unwanted or hidden:
                s[SKIP] = 0
            return True
    if number == HTML or number == BODY or number == HEAD_TAG:
        return not (unwanted or hidden)
    if number == TITLE or s[DEPTH] >= MAX_DEPTH:
        return False
    if s[IN_MATH] >= 0:
        if not role & MATH_PART or number == MATH:
            return False
        if values[0, 0]:  # ends itself
            stack[s[DEPTH] - 1, ONLY_HIDDEN] = 0
            return True
    if role & TABLE_PART:
        outcome = make_place_in_table(number, tables, names, stack, s, text, blocks)
        if outcome < 0:
            return False
        if outcome == 0:
            return not ((number == TD or number == TH) and s[SKIP] < 0)
    elif tables_context(stack[s[DEPTH] - 1, NUMBER_OF]):
        if number == SCRIPT or number == STYLE_TAG:
            s[POSITION] = raw_end(source, s[POSITION], number)
            return s[POSITION] >= 0
        return number == INPUT and values[9, 0] >= 0 and starts_with(source, values[9, 0], HIDDEN_VALUE)
    parent = s[DEPTH] - 1
    if number == SVG or number == SELECT or number == TEMPLATE or role & RAW:
        stack[parent, ONLY_HIDDEN] = 0
        s[POSITION] = skip_whole(source, number, tables, s[POSITION], facts[F_TITLE_START] >= 0)
        return s[POSITION] >= 0
    if number == FORM:
        if s[FORM_OPEN]:
            return True
        s[FORM_OPEN] = 1
    if not close_implied(number, role, tables, stack, s, text, blocks):
        return False
    parent = s[DEPTH] - 1
    if (number == HEADER or number == ASIDE) and parent == 0:
        unwanted = True
    if not hidden:
        stack[parent, ONLY_HIDDEN] = 0
    elif s[ALTERNATIVES] and number == SPAN and stack[parent, NUMBER_OF] == SPAN and s[SKIP] < 0:
        if begin == s[SHOWN]:
            hidden = False
        else:
            stack[parent, LAST_HIDDEN] = begin
            for k in range(NUM_LINE_STATES):
                saved[parent, k] = s[k]
    else:
        stack[parent, LAST_HIDDEN] = -1
    unwanted = unwanted or hidden
    if role & VOID:
        if s[SKIP] < 0 and not unwanted:
            if number == BR:
                text[s[STOP]] = 10 if s[IN_PRE] else LINE_BREAK
                s[STOP] += 1
                if not s[IN_PRE]:
                    add_margin(s, 1)
                    s[SPACE] = 0
                    if s[IN_LINK]:
                        s[LINKED] += 1
            elif number == HR and not s[IN_PRE]:
                add_margin(s, 1)
        return True
    open_element(name, number, names, stack, s)
    if s[SKIP] < 0 and unwanted:
        s[SKIP] = s[DEPTH] - 1
    if number == MATH:
        if values[0, 0]:
            return False
        s[IN_MATH] = s[DEPTH] - 1
    if number == TR:
        s[ROW_START] = s[POSITION]
    if s[SKIP] >= 0:
        return True
    if number == A:
        blank = True
        for k in range(values[6, 0], values[6, 1]):
            blank &= k < 0 or source[k] <= 32
        k = s[POSITION]
        if starts_with(source, k, END_LINK):  # an empty one has a start and no end, as in resiliparse
            if after < 0:
                return False
            blank = True
            s[POSITION] = k + 4
            s[DEPTH] -= 1
        start_link(s, text, blocks, kinds, not blank)
    elif number == TD or number == TH:
        if not s[HAS_TABLES] or s[IN_PRE]:
            return False
        k = begin - 1
        while k >= s[ROW_START] and source[k] <= 32:
            k -= 1
        first = s[ROW_START] >= 0 and k == s[ROW_START] - 1
        if not first:
            s[TABS] = 1
        put_mark(s, text, blocks, kinds, ROW if first else CELL)
    elif role & BLOCK:
        if not start_block(s, text, blocks, kinds, number, role):
            return False
        if number == DT or number == DD:
            put_mark(s, text, blocks, kinds, TERM if number == DT else DEFINITION)
    return True


@kernel
def read_page(source, tables, has_tables, show_alternatives, text, blocks, facts):
    """The blocks of a page, each a row of `blocks` with its text in `text`.

    Args:
        source: uint8 [n], UTF-8.
        tables: `tables()`.
        has_tables: whether the page holds `</table>`, so that cells are marked.
        show_alternatives: whether the last of several hidden words in a span is shown.
        text: uint8, at least 2 n + 64; filled.
        blocks: int64 [at least n // 2 + 64, NUM_COLUMNS]; filled.
        facts: int64 [NUM_FACTS]; filled.
    Returns: number of blocks; where only the tree of a real parser tells, the position that was not understood as
        -1 - position.
    """
    stop = len(source)
    s = np.zeros(NUM_STATES, np.int64)
    s[MARKER] = NO_MARKER
    s[SKIP] = s[SHOWN] = s[ROW_START] = s[IN_MATH] = -1
    s[HAS_TABLES], s[ALTERNATIVES] = has_tables, show_alternatives
    for k in range(NUM_FACTS):
        facts[k] = -1
    names = np.zeros(MAX_DEPTH + 8, np.uint64)
    stack = np.zeros((MAX_DEPTH + 8, NUM_STACK_COLUMNS), np.int64)
    saved = np.zeros((MAX_DEPTH + 8, NUM_LINE_STATES), np.int64)
    values = np.zeros((10, 2), np.int64)
    while s[POSITION] < stop:
        position = s[POSITION]
        after = 0
        if source[position] == 60 and position + 1 < stop:
            after = source[position + 1]
            if after == 47 and position + 2 >= stop:
                after = 0
        if 97 <= (after | 32) <= 122:
            sound = read_start_tag(source, tables, names, stack, saved, values, s, text, blocks, facts)
        elif after == 47:
            sound = read_end_tag(source, tables, names, stack, saved, s, text, blocks)
        elif after == 33 or after == 63:
            skip_declaration(source, stack, s)
            sound = True
        elif s[DEPTH] == 0 and source[position] <= 32:
            s[POSITION] += 1
            sound = source[position] != 0
        elif s[HEAD_NOSCRIPT]:
            sound = False
        else:
            if s[DEPTH] == 0:
                open_element(FNV_OFFSET, BODY, names, stack, s)
            sound = read_text(source, tables, stack, s, text, blocks)
        if not sound:
            return -1 - position
    if s[DEPTH]:
        close_to(1, stack, tables, s, text, blocks, True)
    flush(s, text, blocks, tables.kinds)
    return s[NUM_BLOCKS]
