"""A policy: an ordered list of rules in YAML that judges documents by their signals and never reads a text.

    policy: short-notes
    languages: [en]
    about: what it is for
    source: the paper or code it follows
    rules:
      - signal: num_units                # a name of diglot.corpus.signals.SIGNALS or RPS_NAMES
        drop_below: 50                   # and/or drop_above; a value equal to a limit is kept
        when: {num_chars: [500, 5000]}   # optional: judges only documents with signals in these ranges; null is open
        why: what the rule is there to catch
        source: where the limit comes from
        differs: what we changed, and why          # optional
        victims: good documents it is known to drop # optional
    deviations: [what the source does and this policy does not]

Every rule is asked about every document: the first objection is reported first, all are recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diglot.core.errors import ConfigError, InputError, unknown
from diglot.corpus.signals import RPS_NAMES, SIGNALS, family

POLICIES = Path(__file__).parent / "policies"
Range = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Drop a document when `signal` < drop_below or > drop_above. `name` is the reason that is reported."""

    signal: str
    why: str
    source: str
    drop_below: float | None = None
    drop_above: float | None = None
    when: Mapping[str, Range] = field(default_factory=dict)
    differs: str = ""
    victims: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "signal", RPS_NAMES.get(self.signal, self.signal))
        object.__setattr__(self, "when", {RPS_NAMES.get(signal, signal): span for signal, span in self.when.items()})
        object.__setattr__(self, "name", self.name or self.signal)
        where = f"rule '{self.name}'"
        for signal in (self.signal, *self.when):
            family(signal, where)  # raises for an unknown one
        if self.drop_below is None and self.drop_above is None:
            raise ConfigError(f"{where} has neither drop_below nor drop_above, so it never objects. Set one of them.")
        if self.drop_below is not None and self.drop_above is not None and self.drop_below > self.drop_above:
            raise ConfigError(
                f"{where} drops below {self.drop_below} and above {self.drop_above}, which is every document. "
                "Exchange the two limits."
            )
        if not self.why or not self.source:
            raise ConfigError(
                f"{where} does not say why it is there or where its limit comes from: set why and source."
            )

    def objects(self, columns: Mapping[str, Any]) -> Any:
        """Which documents this rule drops: bool [N], from float32 [N] columns by signal name."""
        import numpy as np

        value = columns[self.signal]
        against = np.zeros(len(value), bool)
        if self.drop_below is not None:
            against |= value < np.float32(self.drop_below)
        if self.drop_above is not None:
            against |= value > np.float32(self.drop_above)
        for signal, (low, high) in self.when.items():
            if low is not None:
                against &= columns[signal] >= np.float32(low)
            if high is not None:
                against &= columns[signal] <= np.float32(high)
        return against

    def limits(self) -> str:
        """`num_units < 50 or > 100000`, for messages and reports."""
        bounds = [
            f"{sign} {limit:g}" for sign, limit in (("<", self.drop_below), (">", self.drop_above)) if limit is not None
        ]
        scope = "".join(
            f" where {signal} is {'any' if low is None else f'{low:g}'}..{'any' if high is None else f'{high:g}'}"
            for signal, (low, high) in self.when.items()
        )
        return f"{self.signal} {' or '.join(bounds)}{scope}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Rules in order, with what they follow and where they deviate."""

    policy: str
    languages: tuple[str, ...]
    about: str
    source: str
    rules: tuple[Rule, ...]
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"policy {self.policy} has two rules called '{twice[0]}', and a reason must name one rule. "
                "Put both limits into one rule, or give the second a name: of its own."
            )
        if not self.rules:
            raise ConfigError(f"policy {self.policy} has no rules. List at least one under rules:.")

    def signals(self) -> list[str]:
        """Every signal that the rules read, in the order of SIGNALS, then those that a recipe brings."""
        used = {signal for rule in self.rules for signal in (rule.signal, *rule.when)}
        return [signal for signal in SIGNALS if signal in used] + sorted(used - set(SIGNALS))

    def columns_by_family(self) -> dict[str, list[str]]:
        """Attribute table -> the columns of it that the rules read."""
        tables: dict[str, list[str]] = {}
        for signal in self.signals():
            tables.setdefault(family(signal), []).append(signal)
        return tables

    def objections(self, columns: Mapping[str, Any]) -> Any:
        """What every rule says about N documents: bool [R, N] in policy order, from float32 columns by signal name."""
        import numpy as np

        return np.stack([rule.objects(columns) for rule in self.rules])

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the artifact."""
        content = dataclasses.asdict(self)
        content["rules"] = [{**dataclasses.asdict(rule), "limits": rule.limits()} for rule in self.rules]
        return content

    def deciding(self) -> list[Any]:
        """What decides: the rules without their explanations. Two policies with equal lists drop the same documents."""
        return [
            [rule.name, rule.signal, rule.drop_below, rule.drop_above, {k: list(v) for k, v in rule.when.items()}]
            for rule in self.rules
        ]


def load_policy(name: str, folder: Path | None = None) -> Policy:
    """A policy that comes with Diglot (`matrix-en`), or a YAML file (a name with a suffix or a slash).

    `folder` is where a relative path starts. Raises ConfigError for an unknown name, key or signal, with the nearest.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return parse_policy(_read((folder or Path()) / name), where=name)
    known = policy_names()
    if name not in known:
        raise unknown("policy", name, known)
    return parse_policy(_read(POLICIES / f"{name}.yaml"), where=name)


def policy_names() -> list[str]:
    """The policies that come with Diglot."""
    return sorted(path.stem for path in POLICIES.glob("*.yaml"))


def parse_policy(content: Any, where: str) -> Policy:
    """A policy from parsed YAML. Raises ConfigError naming the key that is unknown, missing or of the wrong type."""
    fields = _checked(content, Policy, f"policy {where}")
    rules = fields["rules"]
    if not isinstance(rules, list):
        raise ConfigError(f"rules in policy {where} is {rules!r}, but it must be a list, one rule an entry.")
    fields["rules"] = tuple(_rule(rule, f"rule {n} of policy {where}") for n, rule in enumerate(rules, 1))
    for key in ("languages", "deviations"):
        fields[key] = _strings(fields.get(key, []), f"{key} in policy {where}")
    return Policy(**fields)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no policy file {path}. Paths are relative to the recipe; policies that come with Diglot are named "
            f"without a suffix: {', '.join(policy_names())}."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _rule(content: Any, where: str) -> Rule:
    fields = _checked(content, Rule, where)
    for key in ("drop_below", "drop_above"):
        if key in fields:
            fields[key] = _number(fields[key], f"{key} in {where}")
    when = fields.get("when", {})
    if not isinstance(when, dict):
        raise ConfigError(
            f"when in {where} is {when!r}, but it maps signals to ranges: when: {{num_chars: [500, 5000]}}."
        )
    fields["when"] = {str(signal): _range(limits, f"when of {signal} in {where}") for signal, limits in when.items()}
    try:
        return Rule(**fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(content: Any, schema: type, where: str) -> dict[str, Any]:
    """`content` as keyword arguments for the dataclass `schema`: no unknown key, none of the required missing."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is {type(content).__name__} instead of a mapping of keys to values.")
    known = {entry.name: entry for entry in dataclasses.fields(schema)}
    for key in content:
        if key not in known:
            raise unknown("key", str(key), known, where)
    for name, entry in known.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in content:
            raise ConfigError(f"{where} lacks the key '{name}'. It needs: {', '.join(_required(schema))}.")
        if entry.type == "str" and not isinstance(content.get(name, ""), str):
            raise ConfigError(f"{name} in {where} is {content[name]!r}, but it must be a text. Put it in quotes.")
    return dict(content)


def _required(schema: type) -> Sequence[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(schema) if f.default is missing and f.default_factory is missing]


def _strings(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"{what} is {value!r}, but it must be a list of texts.")
    return tuple(value)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ConfigError(f"{what} is {value!r}, but it must be a number.")
    return float(value)


def _range(value: Any, what: str) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError(f"{what} is {value!r}, but it must be [lowest, highest]; null for no limit.")
    low, high = (None if limit is None else _number(limit, what) for limit in value)
    return low, high
