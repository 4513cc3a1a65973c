"""Small pages in the extractor's format, in two languages at addresses that differ in their language part."""

from __future__ import annotations

from handmade_corpus import Doc

SORTING_EN = """\
# Sorting a List

The sort command brings the rows of a list into order. It works on text, numbers and dates.

## To sort by one column

1. Click a cell of the column.
2. Choose Data - Sort Ascending.

## Case sensitive

Specifies whether upper and lower case letters are told apart.

## Natural sort

A natural sort is an order that compares numbers inside text by their value. It puts file2 before file10.

## Syntax

    SORT(range; column)

See also the page on filters.
"""

SORTING_ZH = """\
# 对列表排序

排序命令将列表的各行排列成一定的顺序。它适用于文本、数字和日期。

## 要按一列排序

1. 点击该列中的一个单元格。
2. 选择「数据 - 升序排序」。

## 区分大小写

指定是否区分大写字母和小写字母。

## 自然排序

自然排序是一种按数值比较文本中的数字的顺序。它把 file2 排在 file10 的前面。

## 语法

    SORT(range; column)

另请参见筛选器页面。
"""

GLOSSARY_EN = """\
# Chapter 2. Words of the Installer

2.1. Partition

Every disk is divided before the system is written to it.

kernel
: The part of the system that talks to the hardware and gives every program its share.

mirror
: see archive
"""

QUESTIONS_ZH = """\
## 1.1. 什么是软件包？

软件包是一个文件，其中包含一个软件的程序和文档。安装程序会检查它的签名。

## 1.2. Untranslated heading of a section

这一段文字的标题还没有翻译，所以不能用来提问。
"""


def page_docs() -> list[Doc]:
    return [
        Doc(SORTING_EN, source="help-en-us", url="file:///usr/share/help/en-US/text/sort.html"),
        Doc(SORTING_ZH, source="help-zh-cn", lang="zh-Hans", url="file:///usr/share/help/zh-CN/text/sort.html"),
        Doc(GLOSSARY_EN, source="guide", url="file:///usr/share/doc/guide/en/words.html"),
        Doc(QUESTIONS_ZH, source="faq", lang="zh-Hans", url="file:///usr/share/doc/faq/zh-cn/basic.zh-cn.html"),
    ]
