"""What if a policy were another one? Re-decide a corpus from its attributes and compare the two funnels.

No text is read except those of the examples that are shown. Only the select step is re-decided: how many of the
documents that come in again are duplicates is known after the recipe has run with the new limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from diglot.core.errors import ConfigError, unknown
from diglot.core.progress import Progress
from diglot.corpus.decide import ANY, Judged, Policies, judge, rule_numbers, signal_columns
from diglot.corpus.executor import map_shards
from diglot.corpus.policy import Policy, Rule
from diglot.corpus.tables import Shard, documents_of, shards
from diglot.ledger.artifact import Artifact

LIMITS = ("drop_below", "drop_above")
SHARDS_PER_WORKER = 32  # a worker takes longer to start than this many shards to judge
EXCERPT_CHARS = 160
NO_LANGUAGE = "und"


@dataclass
class Tally:
    """Documents and bytes of a group, and what was kept of them."""

    documents: int = 0
    bytes: int = 0
    kept: int = 0
    bytes_kept: int = 0

    @property
    def kept_share(self) -> float:
        return self.kept / self.documents if self.documents else 0.0

    def add(self, other: Tally) -> None:
        for entry in dataclasses.fields(Tally):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))


@dataclass
class RuleTally:
    """What one rule does: documents that it drops first, that it alone objects to, and all that it objects to."""

    first: int = 0
    alone: int = 0
    bytes_alone: int = 0
    objections: int = 0


@dataclass
class Funnel:
    """What one set of policies makes of a corpus."""

    total: Tally = field(default_factory=Tally)
    languages: dict[str, Tally] = field(default_factory=dict)
    sources: dict[str, Tally] = field(default_factory=dict)
    rules: dict[str, RuleTally] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document near a rule's limit, to which no other rule objects. `margin`: its distance, negative if dropped."""

    rule: str
    language: str
    dropped: bool
    value: float
    limit: str
    margin: float
    id: str
    url: str | None
    excerpt: str


@dataclass(frozen=True, kw_only=True)
class Sifted:
    """Both funnels. came_in, fell_out: documents and bytes whose verdict changes."""

    step: str
    old: Funnel
    new: Funnel
    changed_rules: tuple[str, ...]
    came_in: Tally
    fell_out: Tally
    examples: tuple[Example, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """The two funnels side by side, then what changed, then the examples."""
        return "\n".join([*_tables(self), *_shown_examples(self.examples)])


def run_policies(select: Artifact) -> Policies:
    """The policies that a select step judged by."""
    return Policies.read(select.path)


def replaced(policies: Policies, new: Policy, languages: Sequence[str] = ()) -> Policies:
    """`policies` with `new` as the default for the languages that it names, or for `languages`.

    Raises ConfigError when the run wants none of them.
    """
    wanted = [language for language in (languages or new.languages) if language in policies.default]
    if ANY in new.languages and not languages:
        wanted = list(policies.default)
    if not wanted:
        raise ConfigError(
            f"policy {new.policy} is for {', '.join(languages or new.languages)}, but the run selects "
            f"{', '.join(policies.default)}. Say for which: --policy {next(iter(policies.default))}=FILE."
        )
    return dataclasses.replace(policies, default={**policies.default, **dict.fromkeys(wanted, new)})


def with_limit(policies: Policies, override: str) -> Policies:
    """`policies` with one limit changed: `curly_share.drop_above=0.1`, `en.num_units.drop_below=30`, `lorem_ipsum=off`.

    The rule is changed in every policy that has it, also those of single sources, or in those of one language only;
    `null` takes one limit away, `off` the rule. Raises ConfigError naming the nearest rule.
    """
    path, separator, text = override.partition("=")
    parts = path.strip().split(".")
    languages = [parts.pop(0)] if len(parts) > 1 and parts[0] in policies.default else list(policies.default)
    limit = parts.pop() if parts[-1] in LIMITS else None
    name, value = ".".join(parts), text.strip()
    if not separator or (limit is None) != (value == "off"):
        raise ConfigError(
            f"--set {override} is no limit. Write RULE.drop_above=NUMBER, RULE.drop_below=NUMBER (null for none) or "
            "RULE=off, with LANGUAGE. before it to change one policy only."
        )
    known: set[str] = set()

    def changed(by_language: Mapping[str, Policy]) -> dict[str, Policy]:
        known.update(
            rule.name for language in languages if language in by_language for rule in by_language[language].rules
        )
        return {
            language: _with_rule(policy, name, limit, value) if language in languages else policy
            for language, policy in by_language.items()
        }

    result = Policies(changed(policies.default), tuple((p, changed(own)) for p, own in policies.by_source))
    if name not in known:
        raise unknown("rule", name, known, f"the policies for {', '.join(languages)}")
    return result


def sift(
    select: Artifact,
    policies: Policies,
    *,
    rules: Sequence[str] = (),
    num_examples: int = 3,
    workers: int = 1,
    progress: Progress | None = None,
) -> Sifted:
    """Judge the corpus of a select step by its own policies and by `policies`.

    Args:
        rules: whose border is shown with examples; default: the rules that differ.
        num_examples: of each side of the border, for each rule and language.
    """
    progress = progress or Progress()
    old = run_policies(select)
    files = shards(select.upstream("ingest"))
    pairs = [(old.of(source), policies.of(source)) for source in sorted({shard.source for shard in files})]
    changed = tuple(dict.fromkeys(name for before, after in pairs for name in changed_rules(before, after)))
    known = {rule.name for policy in policies.all() for rule in policy.rules}
    for rule in rules:
        if rule not in known:
            raise unknown("rule", rule, known)
    tasks = [
        SiftTask(select=select, shard=shard, old=old, new=policies, shown=tuple(rules), num_examples=num_examples)
        for shard in files
    ]
    workers = min(workers, 1 + len(tasks) // SHARDS_PER_WORKER)
    parts = map_shards(sift_shard, tasks, workers=workers, progress=progress, label="sift")
    result = parts[0]
    for part in parts[1:]:
        _merge(result.old, part.old)
        _merge(result.new, part.new)
        result.came_in.add(part.came_in)
        result.fell_out.add(part.fell_out)
    near = [candidate for part in parts for candidate in part.near]
    return Sifted(
        step=select.manifest.step,
        old=_ordered(result.old, old),
        new=_ordered(result.new, policies),
        changed_rules=changed,
        came_in=result.came_in,
        fell_out=result.fell_out,
        examples=tuple(_examples(select, near, num_examples)),
        seconds=round(sum(part.seconds for part in parts), 3),
    )


def changed_rules(old: Mapping[str, Policy], new: Mapping[str, Policy]) -> tuple[str, ...]:
    """Names of the rules that decide otherwise in one of the languages, in policy order."""
    names: dict[str, None] = {}
    for language in new:
        before = {rule[0]: rule for rule in old[language].deciding()}
        after = {rule[0]: rule for rule in new[language].deciding()}
        names |= {name: None for name in [*after, *before] if before.get(name) != after.get(name)}
    return tuple(names)


class Near(NamedTuple):
    """A document near a border: where it is, and how near."""

    rule: str
    language: str
    value: float
    limit: str
    margin: float
    shard: Shard
    row: int


@dataclass(frozen=True, kw_only=True)
class SiftTask:
    """One shard to judge twice."""

    select: Artifact
    shard: Shard
    old: Policies
    new: Policies
    shown: tuple[str, ...]  # rules whose border is shown; empty: those that differ
    num_examples: int


@dataclass
class ShardSifted:
    """What a shard adds to the whole. seconds: of CPU, reading included."""

    old: Funnel
    new: Funnel
    came_in: Tally
    fell_out: Tally
    near: list[Near]
    seconds: float


def sift_shard(task: SiftTask) -> ShardSifted:
    """Judge one shard by both sets of policies."""
    import time

    started = time.process_time()
    mine, then = task.old.of(task.shard.source), task.new.of(task.shard.source)
    table = signal_columns(task.select, task.shard, [*mine.values(), *then.values()], ids=False)
    columns = {name: table[name].to_numpy() for name in table.column_names if name not in ("lang", "num_bytes")}
    lang, num_bytes = table["lang"].combine_chunks().dictionary_encode(), table["num_bytes"].to_numpy()
    old_rules, new_rules = rule_numbers(mine.values()), rule_numbers(then.values())
    old = judge(columns, lang, mine, tuple(old_rules))
    new = judge(columns, lang, then, tuple(new_rules))
    result = ShardSifted(
        old=_funnel(task.shard, lang, num_bytes, old, old_rules),
        new=_funnel(task.shard, lang, num_bytes, new, new_rules),
        came_in=_tally(num_bytes, (old.first >= 0) & (new.first < 0)),
        fell_out=_tally(num_bytes, (old.first < 0) & (new.first >= 0)),
        near=_near_border(task, columns, lang, new, new_rules),
        seconds=0.0,
    )
    result.seconds = time.process_time() - started
    return result


def _with_rule(policy: Policy, name: str, limit: str | None, value: str) -> Policy:
    rules = (_limited(rule, limit, value) if rule.name == name else rule for rule in policy.rules)
    return dataclasses.replace(policy, rules=tuple(rule for rule in rules if rule is not None))


def _limited(rule: Rule, limit: str | None, value: str) -> Rule | None:
    if limit is None:
        return None
    try:
        number = None if value in ("null", "none", "") else float(value)
        if number is not None and math.isnan(number):
            raise ValueError
    except ValueError:
        raise ConfigError(f"{rule.name}.{limit} = '{value}', but it must be a number, or null for no limit.") from None
    if limit == "drop_below":
        return dataclasses.replace(rule, drop_below=number)
    return dataclasses.replace(rule, drop_above=number)


def _tally(num_bytes: Any, chosen: Any) -> Tally:
    return Tally(documents=int(chosen.sum()), bytes=int(num_bytes[chosen].sum()))


def _funnel(shard: Shard, lang: Any, num_bytes: Any, judged: Judged, rules: Mapping[str, int]) -> Funnel:
    kept = judged.first < 0
    tags = [*lang.dictionary.to_pylist(), NO_LANGUAGE]
    codes = lang.indices.fill_null(len(tags) - 1).to_numpy(zero_copy_only=False)

    def by_language(weights: Any) -> Any:
        return np.bincount(codes, weights, minlength=len(tags)).astype(np.int64)

    columns = (by_language(None), by_language(num_bytes), by_language(kept), by_language(num_bytes * kept))
    languages = {tag: Tally(*map(int, row)) for tag, *row in zip(tags, *columns, strict=True) if row[0]}
    total = Tally(*(int(column.sum()) for column in columns))
    first = np.bincount(judged.first[~kept], minlength=len(rules))
    tallies = {}
    for name, number in rules.items():
        bit = np.uint64(1 << number)
        alone = judged.reasons == bit
        tallies[name] = RuleTally(
            first=int(first[number]),
            alone=int(alone.sum()),
            bytes_alone=int(num_bytes[alone].sum()),
            objections=int(((judged.reasons & bit) != 0).sum()),
        )
    return Funnel(total, languages, {shard.source: dataclasses.replace(total)}, tallies)


def _near_border(
    task: SiftTask, columns: Mapping[str, Any], lang: Any, judged: Judged, rules: Mapping[str, int]
) -> list[Near]:
    """On each side of each shown rule's limit, the nearest documents to which no other rule objects."""
    tags = lang.dictionary.to_pylist()
    codes = lang.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    found = []
    before = task.old.of(task.shard.source)
    for language, policy in task.new.of(task.shard.source).items():
        shown = task.shown or changed_rules({language: before[language]}, {language: policy})
        if language == ANY:
            judged_here = ~np.isin(codes, [number for number, tag in enumerate(tags) if tag in before])
        else:
            judged_here = codes == (tags.index(language) if language in tags else -2)
        for rule in policy.rules if task.num_examples else ():
            if rule.name not in shown:
                continue
            others = judged.reasons & ~np.uint64(1 << rules[rule.name])
            rows = np.flatnonzero(judged_here & (others == 0))
            value = columns[rule.signal][rows]
            margin = np.full(len(rows), np.inf, np.float32)
            if rule.drop_below is not None:
                margin = np.minimum(margin, value - np.float32(rule.drop_below))
            if rule.drop_above is not None:
                margin = np.minimum(margin, np.float32(rule.drop_above) - value)
            for side in (margin < 0, margin >= 0):
                close = np.flatnonzero(side & np.isfinite(margin))
                nearest = close[np.argsort(np.abs(margin[close]), kind="stable")[: task.num_examples]]
                found += [
                    Near(
                        rule.name, language, float(value[i]), rule.limits(), float(margin[i]), task.shard, int(rows[i])
                    )
                    for i in nearest
                    if (judged.first[rows[i]] >= 0) == (margin[i] < 0)  # a `when` range may exempt it
                ]
    return found


def _merge(into: Funnel, other: Funnel) -> None:
    into.total.add(other.total)
    for ours, theirs in ((into.languages, other.languages), (into.sources, other.sources)):
        for name, tally in theirs.items():
            ours.setdefault(name, Tally()).add(tally)
    for name, rule in other.rules.items():
        mine = into.rules.setdefault(name, RuleTally())
        for entry in dataclasses.fields(RuleTally):
            setattr(mine, entry.name, getattr(mine, entry.name) + getattr(rule, entry.name))


def _ordered(funnel: Funnel, policies: Policies) -> Funnel:
    """Rules in policy order, languages and sources by size. Checks that every document has one verdict."""
    by_size = {
        name: dict(sorted(getattr(funnel, name).items(), key=lambda item: (-item[1].documents, item[0])))
        for name in ("languages", "sources")
    }
    rules = {name: funnel.rules.get(name, RuleTally()) for name in rule_numbers(policies.all())}
    assert funnel.total.documents == funnel.total.kept + sum(rule.first for rule in rules.values())
    return Funnel(funnel.total, by_size["languages"], by_size["sources"], rules)


def _examples(select: Artifact, near: list[Near], num_examples: int) -> list[Example]:
    chosen: list[Near] = []
    for key in dict.fromkeys((n.rule, n.language, n.margin < 0) for n in near):
        group = [n for n in near if (n.rule, n.language, n.margin < 0) == key]
        chosen += sorted(group, key=lambda n: (abs(n.margin), n.shard, n.row))[:num_examples]
    texts: dict[tuple[Shard, int], dict[str, Any]] = {}
    for shard in sorted({n.shard for n in chosen}):
        rows = sorted({n.row for n in chosen if n.shard == shard})
        table = documents_of(select, shard, ["id", "url", "text"]).take(rows)
        texts |= {(shard, row): content for row, content in zip(rows, table.to_pylist(), strict=True)}
    return [
        Example(
            rule=n.rule,
            language=n.language,
            dropped=n.margin < 0,
            value=n.value,
            limit=n.limit,
            margin=n.margin,
            id=texts[n.shard, n.row]["id"],
            url=texts[n.shard, n.row]["url"],
            excerpt=" ".join(texts[n.shard, n.row]["text"][: 4 * EXCERPT_CHARS].split())[:EXCERPT_CHARS],
        )
        for n in chosen
    ]


def _tables(sifted: Sifted) -> list[str]:
    old, new = sifted.old, sifted.new
    lines = [f"{'':<28}{'documents':>11} {'kept now':>11} {'kept then':>11} {'share':>15} {'MB kept':>17}"]
    groups = [("all", old.total, new.total)]
    groups += [
        (name, tally, new.languages[name])
        for name, tally in old.languages.items()
        if tally.kept or new.languages[name].kept
    ]
    groups += [(name, tally, new.sources[name]) for name, tally in old.sources.items()]
    for name, before, after in groups:
        lines.append(
            f"{name[:28]:<28}{before.documents:>11,} {before.kept:>11,} {after.kept:>11,} "
            f"{before.kept_share:>6.1%} ->{after.kept_share:>6.1%} "
            f"{before.bytes_kept / 1e6:>7,.1f} ->{after.bytes_kept / 1e6:>7,.1f}"
        )
    lines += ["", f"{'rule':<28}{'drops first':>17} {'drops alone':>17} {'MB alone':>16} {'objects':>17}"]
    for name in dict.fromkeys([*old.rules, *new.rules]):
        before_rule, after_rule = old.rules.get(name, RuleTally()), new.rules.get(name, RuleTally())
        if before_rule.objections or after_rule.objections:
            mark = "*" if name in sifted.changed_rules else " "
            lines.append(
                f"{(name + mark)[:28]:<28}{_pair(before_rule.first, after_rule.first)} "
                f"{_pair(before_rule.alone, after_rule.alone)} "
                f"{before_rule.bytes_alone / 1e6:>6,.1f} ->{after_rule.bytes_alone / 1e6:>7,.1f} "
                f"{_pair(before_rule.objections, after_rule.objections)}"
            )
    came, fell = sifted.came_in, sifted.fell_out
    lines += [
        "",
        f"{came.documents:,} documents ({came.bytes / 1e6:,.1f} MB) come in, "
        f"{fell.documents:,} ({fell.bytes / 1e6:,.1f} MB) fall out. * marks rules that differ.",
    ]
    return lines


def _shown_examples(examples: Sequence[Example]) -> list[str]:
    lines: list[str] = []
    for rule, language in dict.fromkeys((e.rule, e.language) for e in examples):
        group = [e for e in examples if (e.rule, e.language) == (rule, language)]
        lines += ["", f"{rule} ({language}): dropped when {group[0].limit}; nothing else objects to these"]
        for example in group:
            verdict = "dropped" if example.dropped else "kept"
            lines += [
                f"  {verdict:<8}{example.value:<10.4g}{example.id[:12]}  {example.url or ''}",
                f"          {example.excerpt}",
            ]
    return lines


def _pair(before: int, after: int) -> str:
    return f"{before:>7,} ->{after:>7,}"
