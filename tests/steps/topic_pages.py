"""A small web with a topic: law pages on several sites in two languages among pages on cooking and travel."""

from __future__ import annotations

import numpy as np

from handmade_corpus import Doc

WORDS = {
    "law": "court judge law act party claim appeal order case evidence contract statute",
    "cooking": "rice salt oil pan boil stir soft oven bread sugar flour taste",
    "travel": "train road hotel city beach ticket map river bridge walk museum night",
    "法律": "法 院 审 判 合 同 诉 讼 证 据 当 事 人",
    "烹饪": "米 饭 盐 油 锅 煮 炒 面 粉 糖 味 道",
}
PLACES = (  # address, topic, pages
    ("https://law.org/civil/", "law", 90),
    ("https://court.net/cases/", "law", 30),
    ("https://court.net/canteen/", "cooking", 30),
    ("https://example.org/law/", "law", 30),
    ("https://example.org/trips/", "travel", 30),
    ("https://falv.cn/fa/", "法律", 30),
    ("https://anli.cn/anli/", "法律", 30),
    ("https://food.com/", "cooking", 90),
    ("https://food.cn/", "烹饪", 90),
    ("https://trips.com/", "travel", 90),
    ("https://more-trips.com/blog/", "travel", 60),
)
LAW_PLACES = ("law.org", "court.net/cases", "example.org/law", "falv.cn", "anli.cn")


def topic_corpus(seed: int = 0) -> list[Doc]:
    """600 documents of one source in three shards, 210 of them on law.

    At least half of a page are words of its topic and the rest words of its place, so a classifier
    that has seen one place of a topic recalls some pages of the others, and more when it has seen those.
    """
    rng = np.random.default_rng(seed)
    docs = []
    for place, topic, num_pages in PLACES:
        chinese = ord(topic[0]) > 127
        letters = rng.permutation(list("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏")) if chinese else []
        own = letters[:12].tolist() if chinese else [f"{place[8:11]}{letter}" for letter in "abcdefghijkl"]
        for number in range(num_pages):
            num_topic = int(60 * rng.uniform(0.5, 0.95))
            words = rng.choice(WORDS[topic].split(), num_topic).tolist() + rng.choice(own, 60 - num_topic).tolist()
            text = ("" if chinese else " ").join(rng.permutation(words).tolist())
            url, lang = f"{place}{number}", "zh-Hans" if chinese else "en"
            docs.append(Doc(text, lang=lang, url=url, shard=f"{number % 3:05}"))
    return docs


def is_law(url: str) -> bool:
    return any(part in url for part in LAW_PLACES)
