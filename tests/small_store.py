"""A store from documents to a chat model in miniature: real steps where they are quick, models with random weights."""

from __future__ import annotations

import random
from pathlib import Path

from diglot.core.storage import write_json
from diglot.corpus.compose.conversation import Conversation, ask, write_conversations
from diglot.generate.chat import write_template
from diglot.ledger.artifact import Artifact
from diglot.model.decoder import Decoder, DecoderConfig
from diglot.model.files import save_model
from diglot.model.sizes import ModelConfig
from diglot.steps.finetune import STEP as FINETUNE
from diglot.steps.pack import STEP as PACK
from diglot.steps.pretrain import STEP as PRETRAIN
from diglot.steps.split import STEP as SPLIT
from diglot.steps.train_tokenizer import STEP as TOKENIZER
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.train.phases import PhaseConfig
from handmade_corpus import Doc, finish, run_step, selected

ENGLISH = (
    "A package is a file that holds the programs and the documentation of one piece of software.",
    "The package manager reads the list of packages and installs what is missing.",
    "Before you install the system, make a copy of your files on another disk.",
    "The installer asks for the language, the country and the keyboard layout.",
    "A library is used by several programs and is installed only once.",
    "Every user has a home directory in which personal files are stored.",
    "Press the key and wait until the machine has started again.",
    "The network is configured with the address that the router gives.",
)
CHINESE = (
    "软件包是一个文件，其中包含一个软件的程序和文档。",
    "软件包管理器读取软件包列表，并安装缺少的软件包。",
    "安装系统之前，请在另一块磁盘上备份您的文件。",
    "安装程序会询问语言、国家和键盘布局。",
    "一个库可以被多个程序使用，但只需要安装一次。",
    "每个用户都有一个主目录，用来存放个人文件。",
    "按下按键，然后等待计算机重新启动。",
    "网络使用路由器分配的地址进行配置。",
)
ONE_THREAD = {"num_threads": 1}  # tiny products gain nothing from a second one
QUESTIONS = {"en": "What is a package?", "zh-Hans": "什么是软件包？"}


def documents(num_per_language: int, seed: int = 0) -> list[Doc]:
    """Texts of a few sentences in two languages and two sources, with dropped ones in a third language."""
    draw = random.Random(seed)
    docs = []
    for number in range(num_per_language):
        for lang, sentences in (("en", ENGLISH), ("zh-Hans", CHINESE)):
            text = "\n".join(draw.choice(sentences) + f" ({number})" for _ in range(draw.randint(4, 12)))
            source = ("handbook", "guide")[number % 2] + ("" if lang == "en" else "-zh")
            docs.append(Doc(text, source=source, lang=lang, url=f"file:///usr/share/doc/{source}/{number}.html"))
    for number in range(6):
        text = f"Das Paket Nummer {number} enthält die Programme und ihre Beschreibung."
        docs.append(Doc(text, source="guide", lang="de", reason=0, url=f"file:///usr/share/doc/guide/{number}.de.html"))
    return docs


def packed(store: Path, num_per_language: int = 60) -> tuple[Artifact, Artifact]:
    """(pack artifact, tokenizer artifact) of a small bilingual corpus."""
    corpus = selected(store, documents(num_per_language))
    split = run_step(SPLIT, store / "split" / "split-0", inputs={"from": corpus}, share_heldout=0.15)
    tokenizer = run_step(TOKENIZER, store / "train_tokenizer" / "tokenizer-0", inputs={"from": split}, vocab_size=500)
    pack = run_step(PACK, store / "pack" / "pack-0", inputs={"from": split, "tokenizer": tokenizer})
    return pack, tokenizer


def random_model(
    store: Path, kind: str, inputs: dict[str, Artifact], tokenizer: Artifact, seed: int, name: str = "0"
) -> Artifact:
    """A finished model artifact with random weights."""
    shape = DecoderConfig(
        vocab_size=Tokenizer.load(tokenizer.path).vocab_size,
        d_model=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        ffn_dim=64,
        max_seq_len=128,
    )
    folder = store / kind / f"{kind}-{name}"
    save_model(Decoder(shape, seed=seed), folder / "model", tokenizer.path)
    write_template(folder / "model")
    return finish(folder, {}, inputs, {})


def pretrained(store: Path, pack: Artifact, tokenizer: Artifact) -> Artifact:
    """A tiny model, pre-trained a little more than one epoch in two phases."""
    phases = (
        PhaseConfig(name="fundamental", epochs=1.0, batch_tokens=512, learning_rate=3e-3),
        PhaseConfig(name="decay", epochs=0.25, batch_tokens=512, learning_rate=1e-3),
    )
    model = ModelConfig(d_model=32, num_layers=2, num_heads=4, max_seq_len=128)
    settings = {"model": model, "phases": phases, "sequence_length": 64, "compile": "never", "loggers": ()}
    settings |= {"evaluate_every_tokens": 4096, "evaluate_tokens": 500}
    inputs = {"from": pack, "tokenizer": tokenizer}
    return run_step(PRETRAIN, store / "pretrain" / "base", inputs=inputs, **settings, **ONE_THREAD)


def finetuned(store: Path, base: Artifact, dialogues: Artifact) -> Artifact:
    """The tiny model after a few steps on conversations."""
    settings = {"num_train_steps": 4, "conversations_per_train_step": 4, "num_heldout": 4, **ONE_THREAD}
    inputs = {"from": base, "conversations": dialogues}
    return run_step(FINETUNE, store / "finetune" / "tuned", inputs=inputs, **settings)


def conversations(store: Path, pack: Artifact) -> Artifact:
    """A compose artifact with a few conversations of each language in both splits."""
    folder = store / "compose" / "compose-0"
    found = [
        Conversation(
            lang=lang,
            kind="definition",
            messages=ask(f"{QUESTIONS[lang]} ({number})", sentences[number % len(sentences)]),
            documents=(f"{lang}-{number // 2}",),
            split="heldout" if number % 2 else "train",
        )
        for lang, sentences in (("en", ENGLISH), ("zh-Hans", CHINESE))
        for number in range(8)
    ]
    write_conversations(folder, found)
    write_json(folder / "kinds.json", ["definition"])
    return finish(folder, {}, {"from": pack}, {"conversations": len(found)})
