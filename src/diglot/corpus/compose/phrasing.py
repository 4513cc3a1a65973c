"""How questions are put: a few phrasings of each kind in both languages, one chosen by a seeded hash of the content.

{x} is the subject, {page} the title of its page.
"""

from __future__ import annotations

from diglot.core.seeds import derive_seed

QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "about": (
            "What does the documentation say about “{x}”?",
            "Tell me about “{x}”.",
            "What should I know about “{x}”?",
            "Give a short explanation of “{x}”.",
        ),
        "about_in_page": (
            "On the page “{page}”: what does it say about “{x}”?",
            "Explain “{x}” in “{page}”.",
            "What should I know about “{x}” in “{page}”?",
        ),
        "how": ("How do I {x}?", "How can I {x}?", "I want to {x}. How does that work?"),
        "how_doing": (
            "How do I go about {x}?",
            "What do I need to know about {x}?",
            "Can you help me with {x}?",
        ),
        "purpose": ("What does “{x}” do?", "What is “{x}” for?", "What is the purpose of “{x}”?"),
        "purpose_in_page": (
            "What does “{x}” do in “{page}”?",
            "In “{page}”, what is “{x}” for?",
            "What is the purpose of “{x}” in “{page}”?",
        ),
        "definition": ("What is {x}?", "Define {x}.", "Explain what {x} is."),
        "term": ("What does “{x}” mean in “{page}”?", "In “{page}”, what is “{x}”?"),
        "topics": ("Which topics does “{x}” cover?", "What are the sections of “{x}”?"),
        "title": ("Give this text a title:\n{x}", "What is this text about? Answer with a title.\n{x}"),
        "to_en": ("Translate into English: {x}", "What is this in English? {x}"),
        "to_zh": ("Translate into Chinese: {x}", "What is this in Chinese? {x}"),
    },
    "zh": {
        "about": ("请介绍一下“{x}”。", "关于“{x}”，文档是怎么说的？", "“{x}”是怎么回事？", "请简要说明“{x}”。"),
        "about_in_page": ("请说明“{page}”中的“{x}”。", "在“{page}”中，“{x}”是什么意思？", "请介绍“{page}”里的“{x}”。"),
        "how": ("如何{x}？", "怎样{x}？", "请说明如何{x}。"),
        "purpose": ("“{x}”有什么作用？", "“{x}”是做什么用的？", "请说明“{x}”的用途。"),
        "purpose_in_page": ("“{page}”中的“{x}”有什么作用？", "在“{page}”中，“{x}”是做什么用的？"),
        "definition": ("什么是{x}？", "{x}是什么？", "请解释一下什么是{x}。"),
        "term": ("“{page}”中的“{x}”是什么意思？", "在“{page}”里，“{x}”指什么？"),
        "topics": ("“{x}”包括哪些内容？", "“{x}”讲了哪些主题？"),
        "title": ("请给下面的文字起一个标题：\n{x}", "下面的文字讲的是什么？请用一个标题回答。\n{x}"),
        "to_en": ("把下面的中文翻译成英文：{x}", "这句话用英文怎么说？{x}"),
        "to_zh": ("把下面的英文翻译成中文：{x}", "这句话用中文怎么说？{x}"),
    },
}


def phrase(lang: str, kind: str, seed: int, *, x: str, page: str = "") -> str:
    """A question of this kind. The choice depends on the seed and the content, not on what was asked before."""
    choices = QUESTIONS[lang.partition("-")[0]][kind]
    return choices[derive_seed(seed, "phrasing", kind, x, page) % len(choices)].format(x=x, page=page)


def topics_answer(lang: str, title: str, topics: list[str]) -> str:
    """One sentence that lists a page's sections."""
    if lang.startswith("zh"):
        return f"“{title}”包括：{'、'.join(topics)}。"
    return f"“{title}” covers: {', '.join(topics[:-1])} and {topics[-1]}."
