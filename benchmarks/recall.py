"""Does recall of a topic rise each round, at what precision, and does Chinese need segmentation?

Run:      python -m benchmarks.recall --data ../shared/data --out recall.json        (three minutes on two quiet cores)
Workload: recipes/map-neo/recall-math.yaml (2,973 documents, en and zh-Hans, seeds: a chapter of Open Logic and the
          number theory of OI Wiki) and LawRefBook recalled from 49 model cases among 4,700 Chinese documents.
Reports:  for each round the positives, the threshold (MAP-Neo: 0.96; law: for
          0.95 precision on held-out folders), recalled documents, sites and prefixes,
          precision and recall on a pool of known pages (seeds left out); the model before and after
          quantisation; ROC-AUC on held-out folders of a classifier of Chinese case reports against statutes and of law
          against other texts, read in characters and unsegmented; MB of documents scored per CPU second.
Passes:   recall rises each round and precision is at least 0.9 (claim 6 of the method sheet); unsegmented is worse.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from diglot.core.progress import Progress
from diglot.core.storage import read_json
from diglot.corpus.classify.model import load
from diglot.corpus.tables import documents_of, shards
from diglot.ledger.artifact import Artifact
from diglot.recipe.run import Places, run_recipe
from diglot.recipe.schema import load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "map-neo" / "recall-math.yaml"
LAW = """
recipe: law
seed: {seed}
steps:
  pages:
    kind: ingest
    source: {data}/pretrain
    include: [zh/cn_laws*, zh/oi_wiki*, zh/how_to_cook*, zh/zh_wikipedia*, zh/tidb_operator*, zh/vue*]
  law:
    kind: recall
    from: pages
    positive: {{url_patterns: ["/LawRefBook/.*/案例/"], max_documents: 500}}
    negatives_per_positive: 4.0
    wanted_precision: 0.95  # with 49 seeds no score reaches 0.96
    expand: {{pattern_share: 0.5}}
    text: {{max_chars: 500}}
    training: &training {{epochs: 20, learning_rate: 0.5, dimension: 16, num_buckets: 65536}}
    quantise_to: null
    pool: {{positive: {{hosts: [github.com/LawRefBook]}}}}
  characters: &chinese
    kind: train_classifier
    from: pages
    positive: {{url_patterns: ["/LawRefBook/.*/(司法解释|案例)/"], max_documents: 400}}
    negative: {{url_patterns: ["/LawRefBook/.*/(DLC|行政法规|行政法|经济法)/", "zh.wikipedia", "HowToCook"]}}
    validation_share: 0.3
    text: {{max_chars: 500}}
    training: *training
  white_space: {{<<: *chinese, text: {{max_chars: 500, units: white_space}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[17])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        places = Places(store=Path(folder) / "store", runs=Path(folder) / "runs")
        for seed in arguments.seeds:
            overrides = [f"seed={seed}", f"pages.source={arguments.data.resolve() / 'pretrain'}"]
            recipe = load_recipe(RECIPE, overrides=overrides)
            math = run_recipe(recipe, places, workers=arguments.workers, progress=Progress())
            path = Path(folder) / "law.yaml"
            path.write_text(LAW.format(seed=seed, data=arguments.data.resolve()), encoding="utf-8")
            law = run_recipe(load_recipe(path), places, workers=arguments.workers, progress=Progress())
            results.append(
                {
                    "seed": seed,
                    "math": rounds_of(math["math"]),
                    "law": rounds_of(law["law"]),
                    "quantised": quantised(math["math"]),
                    "chinese": {units: law[units].counts["roc_auc"] for units in ("characters", "white_space")},
                    "kept": math["kept"].counts["kept"],
                    "megabytes_per_cpu_second": speed(math["math"]),
                }
            )
            show(results[-1])
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def rounds_of(artifact: Artifact) -> list[dict[str, Any]]:
    """The figures of each round, without its lists of places."""
    report = read_json(artifact.path / "report.json")
    return [
        {key: value for key, value in found.items() if key not in ("sites", "prefixes")} for found in report["rounds"]
    ]


def quantised(artifact: Artifact) -> dict[str, Any]:
    """Bytes and ROC-AUC on held-out sites, before and after."""
    last = read_json(artifact.path / "report.json")["last"]
    small = last["quantised"]
    return {
        "bytes": [last["model_bytes"], small["model_bytes"]],
        "roc_auc": [last["validation"]["roc_auc"], small["validation"]["positive"]["roc_auc"]],
        "recall": [last["validation"]["recall"], small["validation"]["positive"]["recall"]],
    }


def speed(artifact: Artifact) -> float:
    """MB of whole documents per CPU second of this process: cut, segmented and scored."""
    classifier = load(artifact.path)
    texts = [
        documents_of(artifact, shard, ["text"])["text"].combine_chunks()
        for shard in shards(artifact.upstream("ingest"))
    ]
    classifier.probabilities(texts[0][:10])  # the kernel is compiled or loaded
    started = time.process_time()
    for column in texts:
        classifier.probabilities(column)
    return round(sum(column.nbytes for column in texts) / 1e6 / (time.process_time() - started), 2)


def show(result: dict[str, Any]) -> None:
    print(f"\nseed {result['seed']}")
    print("topic  round  positives  threshold  recalled  joined  sites  prefixes  pool precision  pool recall")
    for topic in ("math", "law"):
        for found in result[topic]:
            pool = found["pool"]
            print(
                f"{topic:<6} {found['round']:>5}  {found['positives']:>9,}  {found['threshold']:>9.3f}  "
                f"{found['recalled']:>8,}  {found['joined']:>6,}  {found['num_sites']:>5}  {found['num_prefixes']:>8}  "
                f"{pool['precision']:>14.3f}  {pool['recall']:>11.3f}"
            )
    for name in ("quantised", "chinese", "kept", "megabytes_per_cpu_second"):
        print(f"{name}: {result[name]}")


if __name__ == "__main__":
    main()
