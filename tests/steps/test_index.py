"""The index covers every training document with its address, and is the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from diglot.ledger.artifact import Artifact
from diglot.steps.index import STEP
from diglot.steps.pack import STEP as PACK
from diglot.steps.split import STEP as SPLIT
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from diglot.trace.attribution import attribute
from diglot.trace.training_index import TrainingIndex
from handmade_corpus import Doc, finish, run_step, selected

TEXT = "Chapter {n}: the list of packages is kept on the server, and 软件包列表保存在服务器上。"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    store = tmp_path_factory.mktemp("store")
    docs = [
        Doc(TEXT.format(n=n), source=("a", "b")[n % 2], url=f"file:///{n}.html", reason=0 if n == 5 else -1)
        for n in range(9)
    ]
    split = run_step(SPLIT, store / "split" / "s", inputs={"from": selected(store, docs)}, min_heldout_documents=1)
    folder = store / "train_tokenizer" / "t"
    write_tokenizer(folder, *train_vocabulary([TEXT] * 4, TrainingSettings(vocab_size=330)))
    tokenizer = finish(folder, {}, {"from": split}, {})
    return run_step(PACK, store / "pack" / "p", inputs={"from": split, "tokenizer": tokenizer})


def test_every_training_document_is_found_with_its_address(packed: Artifact) -> None:
    built = run_step(STEP, packed.store / "index" / "i", inputs={"from": packed})
    assert built.counts["tokens"] == packed.counts["train"]["tokens"]
    assert built.counts["documents"] == packed.counts["train"]["documents"]
    index, tokenizer = TrainingIndex.open(built.path), Tokenizer.load(packed.upstream("train_tokenizer").path)
    (span,) = attribute(TEXT[TEXT.index(":") :], tokenizer, index, max_documents=100)
    assert span.num_documents == built.counts["documents"]
    urls = {document.url for document in span.documents}
    assert len(urls) == span.num_documents
    assert urls <= {f"file:///{n}.html" for n in range(9) if n != 5}


def test_a_second_build_gives_the_same_bytes(packed: Artifact) -> None:
    one, two = (run_step(STEP, packed.store / "index" / name, inputs={"from": packed}).path for name in ("j", "k"))
    assert contents(one) == contents(two)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}
