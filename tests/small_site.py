"""A small bilingual documentation site, written by this module: real sentences, put together by a seeded shuffle."""

from __future__ import annotations

import random
from pathlib import Path

ENGLISH = [
    "A package holds the files of a program and the rules for installing them.",
    "The system keeps a list of all packages that are installed.",
    "You can remove a package at any time, and its settings will stay on the disk.",
    "Before you change a file, make a copy of it in another folder.",
    "The kernel talks to the hardware and gives each program its share of time.",
    "Most users never need to know which driver their network card uses.",
    "A shell reads one line after another and runs the commands that it finds.",
    "If the command fails, look at the last lines of the log before you try again.",
    "Backups are only worth something when somebody has tried to read them.",
    "The manual of each command tells what its options mean and where they come from.",
    "A mirror is a server that keeps the same files as the main one.",
    "When the disk is full, the oldest logs are the first thing to look at.",
    "Every account has a name, a number and a folder of its own.",
    "The clock of the machine should follow a server that knows the right time.",
    "A table has rows and columns, and a cell is where the two meet.",
    "You should choose a password that nobody else would think of.",
]
CHINESE = [
    "软件包包含程序的文件以及安装它们的规则。",
    "系统会保存一份所有已安装软件包的清单。",
    "您可以随时删除一个软件包，它的设置会留在磁盘上。",
    "修改文件之前，请先在另一个文件夹里复制一份。",
    "内核负责与硬件通信，并给每个程序分配时间。",
    "大多数用户都不需要知道网卡使用的是哪个驱动程序。",
    "命令行会逐行读取输入，并运行其中的命令。",
    "如果命令失败了，请先查看日志的最后几行再重试。",
    "只有真正读取过的备份才有价值。",
    "每个命令的手册都会说明各个选项的含义。",
    "镜像是与主服务器保存相同文件的服务器。",
    "磁盘空间不足时，首先应该检查最旧的日志。",
    "每个账户都有自己的名称、编号和文件夹。",
    "机器的时钟应当与知道准确时间的服务器保持一致。",
    "表格由行和列组成，行与列相交的地方就是单元格。",
    "请选择一个别人想不到的密码。",
]
GERMAN = (
    "Ein Paket enthält die Dateien eines Programms und die Regeln, nach denen sie installiert werden. Das System führt "
    "eine Liste aller Pakete, die installiert sind. Bevor Sie eine Datei ändern, legen Sie bitte eine Kopie davon an."
)
PAGE = """<!DOCTYPE html><html lang="{lang}"><head><meta charset="utf-8"><title>{title}</title></head><body>
<nav><a href="/">Home</a> <a href="/next">Next</a></nav><main><h1>{title}</h1>
{body}</main><footer>Copyright</footer></body></html>"""


def write_site(folder: Path, *, pages_per_language: int = 30, seed: int = 0) -> None:
    """Pages under en/ and zh-CN/, a German one, an exact copy, a nearly empty page and a file that is no page."""
    draw = random.Random(seed)
    for lang, sentences, noun in (("en", ENGLISH, "Chapter"), ("zh-CN", CHINESE, "第")):
        for number in range(pages_per_language):
            title = f"{noun} {number + 1}" if lang == "en" else f"{noun}{number + 1}章"
            text = draw.sample(sentences, 12)
            joint = " " if lang == "en" else ""
            parts = [joint.join(text[i : i + 4]) for i in range(0, 12, 4)]
            heads = [f"{title}.{i + 1}" for i in range(3)]
            body = "\n".join(f"<h2>{head}</h2><p>{part}</p>" for head, part in zip(heads, parts, strict=True))
            _write(folder / lang / f"{number:03}.html", PAGE.format(lang=lang, title=title, body=body))
    _write(folder / "de" / "000.html", PAGE.format(lang="de", title="Pakete", body=f"<p>{GERMAN}</p><p>{GERMAN}</p>"))
    _write(folder / "en" / "copy.html", (folder / "en" / "000.html").read_text(encoding="utf-8"))
    _write(folder / "en" / "empty.html", PAGE.format(lang="en", title="Empty", body="<p>Soon.</p>"))
    (folder / "en" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
