"""Small texts in both languages, and some code, for the tokenizer's tests."""

ENGLISH = """Packages are installed with a tool that reads a list of packages, looks up what each of them needs,
and asks before it removes anything. The list of packages is kept on the server; a copy of the list is kept here.
When the installation of a package fails, the tool says which package it was and which file was missing.

To install a package, open a terminal and type the name of the tool, the word "install", and the name of the package.
To remove a package, use the word "remove" instead. Version 2.36 of the tool came out in 2011 and again in 2023.
"""
CHINESE = """软件包管理器读取软件包列表，查找每个软件包所需要的其他软件包，并在删除任何内容之前进行询问。
软件包列表保存在服务器上，本地也保存一份列表。安装软件包失败时，管理器会说明是哪个软件包，缺少哪个文件。

要安装软件包，请打开终端，输入管理器的名称、“install”和软件包的名称。要删除软件包，请使用“remove”。
该管理器的 2.36 版本于 2011 年发布，2023 年再次发布。安装完成后，请阅读软件包的文档。
"""
CODE = "def read(path):\n    with open(path) as file:\n        for line in file:\n            yield line\n"
TEXTS = [ENGLISH, CHINESE, CODE]
VOCAB_SIZE = 560
