"""Questions that a page answers itself: about its headings, its definitions, its steps and its outline.

The answer is always the page's own sentences; only the question, and the frame of a list of topics, is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diglot.corpus.compose.pages import Page, Section
from diglot.corpus.compose.phrasing import phrase, topics_answer
from diglot.corpus.compose.sentences import (
    HAN,
    LATIN_WORD,
    is_in,
    is_sound,
    join_sentences,
    leading_sentences,
    num_units,
    split_sentences,
)

MAX_HEADING_UNITS = 14
CODE_IN_HEADING = re.compile(r"^[(（]|[-–—]$|[={}\[\]<>|\\;#$]|[“”「」‘’\"]|\.\.\.|…|\(\)|^[\W\d]*$")

# Headings that say what kind of section follows and not what it is about.
GENERIC = re.compile(
    r"(?:syntax|parameters?|arguments?|examples?|return (?:value|type)s?|see also|related topics|introduction"
    r"|overview|notes?|tips?|options?|properties|methods|constants|services?|errors?|error codes|general"
    r"|description|value|remarks|usage|abstract|references?|more information|technical information|preface"
    r"|foreword|basics|caution|warning|command"
    r"|语法|参数|参数说明|示例|例子|返回值|返回类型|另请参见|相关主题|相关|简介|介绍|概述|概览|说明|注意|提示|警告|选项|属性|方法"
    r"|常数|服务|错误|常规|描述|前言|参考|基础知识|更多信息|其他|命令|用法|值)",
    re.IGNORECASE,
)
GERUND = re.compile(r"[A-Z][a-z]+ing\b(?! of\b)(?= )")
TO_DO = re.compile(r"(?:How )?[Tt]o ([A-Za-z].*)")
PURPOSE_EN = re.compile(
    r"(?:Activates|Adds|Adjusts|Aligns|Allows|Applies|Assigns|Calculates|Changes|Checks|Closes|Combines|Controls|Converts"
    r"|Copies|Creates|Deactivates|Defines|Deletes|Determines|Disables|Displays|Downloads|Draws|Edits|Enables|Executes|Exits"
    r"|Exports|Fills|Filters|Finds|Formats|Generates|Gets|Groups|Hides|Imports|Indicates|Initializes|Inserts|Installs"
    r"|Launches|Lets|Lists|Loads|Manages|Merges|Moves|Opens|Performs|Prevents|Prints|Produces|Protects|Provides|Reads"
    r"|Records|Removes|Renames|Repeats|Replaces|Resets|Restores|Returns|Reverses|Rotates|Runs|Saves|Searches|Selects|Sends"
    r"|Sets|Shows|Sorts|Specifies|Splits|Starts|Stops|Stores|Switches|Toggles|Transfers|Transposes|Turns|Undoes|Updates"
    r"|Uses|Writes|This function|Automatically \w+s|The (?:[\w.]+ ){1,3}(?:function|statement|command|method) \w+s)\b"
)
PURPOSE_ZH = re.compile(
    r"(?:用于|用来|可用[于来]|此函数|此命令|该命令|激活|添加|调整|对齐|允许|应用|指定|计算|更改|检查|关闭|合并|控制|转换|复制|创建"
    r"|定义|删除|确定|禁用|显示|下载|绘制|编辑|启用|执行|退出|导出|填充|筛选|查找|格式化|生成|组合|隐藏|导入|插入|安装|启动|列出"
    r"|加载|管理|移动|打开|打印|保护|提供|读取|录制|移除|重命名|重复|替换|重置|恢复|返回|旋转|运行|保存|搜索|选择|发送|设[置定]"
    r"|排序|拆分|停止|存储|切换|撤消|更新|使用|写入|将|按|在.{1,12}[中上里](?:插入|显示|创建|打开))"
)
DOING_ZH = re.compile(
    r"(?:创建|使用|设置|安装|插入|编辑|更改|删除|添加|启用|打开|选择|定义|配置|修改|移动|复制|打印|保存|导入|导出|转换|合并|拆分"
    r"|显示|隐藏|应用|调整|查找|升级|卸载|构建|制作|管理|运行|启动|关闭|禁用|格式化|排序|计算|输入|获取|下载|检查|编写|建立|连接)"
    r"(?!.*(?:的|器|框|命令|对话框|选项|工具|栏|程序|系统|方式|方法)$)"
)

NO_TERM = (
    "The|This|It|There|That|These|Those|If|When|While|In|What|Another|Such|One|Each|He|She|They|We|You|Here|All|For|As"
    "|Note"
)
DEFINITION_EN = re.compile(
    rf"(?!(?:{NO_TERM})\b)(?P<term>[A-Z][\w.+/-]*(?: (?!to\b|of\b|that\b|which\b|you\b|and\b|or\b)[\w.+/-]+){{0,2}})"
    r"(?: \([^()]{1,40}\))? (?:is|are) (?:an? |the |one of )\w+"
)
DEFINITION_ZH = re.compile(
    r"(?!这|那|该|其|它|您|你|我|如果|本|此|当|有|一|每|大多|另|所|目前|现在|以[上下]|默认|前者|后者|上面|下面)"
    r"(?P<term>[^，。；：、「」“”（）()\s]{1,10}(?: [A-Za-z][\w/+.-]*)?|[A-Za-z][\w/+. -]{1,24}?)"
    r"\s?(?:（[^（）]{1,40}）)?\s?"
    r"(?:是指|指的是|是一[种个款份套类组项台]|是用[于来])"
)


@dataclass(frozen=True)
class Question:
    """subject: what is asked about; two questions about one subject with different answers are ambiguous."""

    kind: str
    subject: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class AnswerBounds:
    """How long an answer may be, in text units (words, Chinese characters)."""

    min_units: int = 6
    max_units: int = 90

    def admits(self, answer: str) -> bool:
        return self.min_units <= num_units(answer) <= self.max_units


def page_questions(page: Page, lang: str, bounds: AnswerBounds, seed: int) -> Iterator[Question]:
    """Every question that we know how to ask about a page, in page order."""
    for section in page.sections:
        if is_subject(section.heading, lang):
            yield from _section_questions(section, page, lang, bounds, seed)
        yield from _definitions(section, page, lang, bounds, seed)
    yield from _topics(page, lang, bounds, seed)


def is_subject(heading: str, lang: str) -> bool:
    """Whether a heading can stand in a question: short, in the page's language or a bare name, about something."""
    if CODE_IN_HEADING.search(heading) or GENERIC.fullmatch(heading) or num_units(heading) > MAX_HEADING_UNITS:
        return False
    if is_in(lang, heading):
        return True
    return lang.startswith("zh") and not HAN.search(heading) and 0 < len(LATIN_WORD.findall(heading)) <= 2


def _section_questions(section: Section, page: Page, lang: str, bounds: AnswerBounds, seed: int) -> Iterator[Question]:
    heading = section.heading
    steps = _steps(section, lang, bounds)
    task = _task(heading, lang)
    if steps and task:
        kind, subject = task
        yield Question("steps", subject, _ask(lang, kind, seed, subject), steps)
        return
    prose = []
    for block in section.blocks:
        if block.kind != "prose":
            break
        prose.append(block.text)
    sentences = leading_sentences(prose, lang, max_units=bounds.max_units)
    answer = join_sentences(sentences, lang)
    if not bounds.admits(answer):
        return
    context = "" if heading == page.title or not is_subject(page.title, lang) else page.title
    if heading[-1] in "?？":
        yield Question("heading", heading, heading, answer)
    elif (PURPOSE_ZH if lang.startswith("zh") else PURPOSE_EN).match(answer):
        yield Question(
            "purpose", f"{heading} {context}", _ask(lang, "purpose", seed, heading, context), _first(sentences, lang, 2)
        )
    elif task:
        kind, subject = task
        yield Question("heading", subject, _ask(lang, kind, seed, subject), answer)
    else:
        yield Question("heading", f"{heading} {context}", _ask(lang, "about", seed, heading, context), answer)
    if not context and len(sentences) > 1 and not task and is_in(lang, heading):
        passage = answer if num_units(answer) <= 60 else _first(sentences, lang, 2)
        yield Question("title", passage, phrase(lang, "title", seed, x=passage), heading)


def _definitions(section: Section, page: Page, lang: str, bounds: AnswerBounds, seed: int) -> Iterator[Question]:
    pattern = DEFINITION_ZH if lang.startswith("zh") else DEFINITION_EN
    for index, block in enumerate(section.blocks):
        if block.kind == "prose" and (match := pattern.match(block.text)):
            answer = join_sentences(leading_sentences([block.text], lang, max_units=bounds.max_units)[:2], lang)
            term = match["term"].strip()
            if not bounds.admits(answer) or not _is_name(term, lang):
                continue
            if not GENERIC.fullmatch(section.heading):
                subject = _lower_first(term) if re.match(r"An? ", term) else term
                yield Question("definition", subject, phrase(lang, "definition", seed, x=subject), answer)
            elif is_subject(page.title, lang):  # a parameter, say, means something only on its page
                question = phrase(lang, "term", seed, x=term, page=page.title)
                yield Question("definition", f"{term} {page.title}", question, answer)
        elif block.kind == "definition" and index and section.blocks[index - 1].kind == "term":
            term = section.blocks[index - 1].text.strip(" :：")
            answer = join_sentences(leading_sentences([block.text], lang, max_units=bounds.max_units)[:2], lang)
            if bounds.admits(answer) and is_subject(term, lang) and is_subject(page.title, lang):
                question = phrase(lang, "term", seed, x=term, page=page.title)
                yield Question("definition", f"{term} {page.title}", question, answer)


def _topics(page: Page, lang: str, bounds: AnswerBounds, seed: int) -> Iterator[Question]:
    topics = [s.heading for s in page.sections[1:] if is_subject(s.heading, lang)]
    complete = len(topics) == len(page.sections) - 1 and len(set(topics)) == len(topics)
    if complete and 2 <= len(topics) <= 6 and is_subject(page.title, lang):
        answer = topics_answer(lang, page.title, topics)
        if bounds.admits(answer):
            yield Question("topics", page.title, phrase(lang, "topics", seed, x=page.title), answer)


def _ask(lang: str, kind: str, seed: int, subject: str, context: str = "") -> str:
    return phrase(lang, f"{kind}_in_page" if context else kind, seed, x=subject, page=context)


def _task(heading: str, lang: str) -> tuple[str, str] | None:
    """The phrasing and the task of a heading that names something to do, such as "To sort a list"."""
    if lang.startswith("zh"):
        wish = heading.removeprefix("要").removeprefix("如何").removeprefix("怎样")
        return ("how", wish.rstrip("？")) if wish != heading or DOING_ZH.match(heading) else None
    if match := TO_DO.fullmatch(heading):
        return "how", _lower_first(match[1]).rstrip("?")
    return ("how_doing", _lower_first(heading)) if GERUND.match(heading) else None


def _steps(section: Section, lang: str, bounds: AnswerBounds) -> str:
    """The numbered list that a section starts with (after at most an introduction), or "" when it has none fit to
    show."""
    blocks = list(section.blocks)
    while blocks and blocks[0].kind == "prose":
        blocks.pop(0)
    items = []
    for block in blocks:
        if block.kind != "step":
            break
        items.append(block.text)
    whole = len(items) == sum(
        block.kind == "step" for block in blocks
    )  # not interrupted by notes and second paragraphs
    if len(items) < 2 or not whole or not all(all(is_sound(s, lang) for s in split_sentences(i)) for i in items):
        return ""
    answer = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    return answer if bounds.admits(answer) else ""


def _is_name(term: str, lang: str) -> bool:
    """Whether this can be the name of something, and not a clause that happens to come before "is"."""
    if lang.startswith("zh"):
        return not re.search(r"[的了是在和与或]$|^[的了是在和与或]|如果|因为|可以|需要|应该|就|都|也|不", term)
    return not re.search(r"\b(?:is|are|was|has|have|can|will|must|should|here|there|option|thing|way|reason)\b", term)


def _first(sentences: list[str], lang: str, count: int) -> str:
    return join_sentences(sentences[:count], lang)


def _lower_first(text: str) -> str:
    """A heading as part of a sentence: its first letter, unless the word is an acronym, and its small words in lower
    case."""
    text = re.sub(
        r"(?<= )(?:A|An|And|As|At|By|For|From|In|Into|Of|On|Or|The|To|With)(?= )", lambda m: m[0].lower(), text
    )
    return text if len(text) > 1 and text[1].isupper() else text[0].lower() + text[1:]
