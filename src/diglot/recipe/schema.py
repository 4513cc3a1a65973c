"""A recipe file, parsed and checked before anything runs: names, types, references, ranges. Loads no torch.

    recipe: map-neo/clean-en
    seed: 17
    steps:
      pages:   {kind: ingest, source: pretrain/en}
      signals: {kind: annotate, from: pages}
    expect:
      kept.kept_share: [0.10, 0.40]
    scales:
      xs: {about: "three minutes on two cores", set: {steps.pages.max_documents: 500}}

Every setting can be overridden by its dotted path: `--set steps.pages.max_documents=100`; `steps.` may be left out.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from diglot.core.errors import ConfigError, InputError, unknown
from diglot.core.hardware import host
from diglot.steps.context import StepKind
from diglot.steps.kinds import KINDS, step_kind

RECIPE_KEYS = ("recipe", "about", "seed", "steps", "expect", "deviations", "scales")
SCALE_KEYS = ("about", "needs", "set")
NEED_KEYS = ("cores", "memory_gb", "gpu")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A node of a recipe. `inputs`: slot -> name of the step that fills it."""

    name: str
    kind: StepKind
    config: Any
    inputs: Mapping[str, str]

    def settings(self) -> dict[str, Any]:
        """Every setting except the inputs, as plain JSON values."""
        adapter: TypeAdapter[Any] = TypeAdapter(self.kind.config)
        everything = adapter.dump_python(self.config, mode="json")
        return {key: value for key, value in everything.items() if key not in self.kind.input_fields()}

    def result_settings(self) -> dict[str, Any]:
        """The settings that determine the result."""
        everything = self.settings()
        return {key: everything[key] for key in self.kind.result_fields()}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe. `steps` stand in an order in which each comes after its inputs."""

    name: str
    about: str
    seed: int
    steps: tuple[Step, ...]
    expect: Mapping[str, tuple[float, float]]
    deviations: tuple[Any, ...]
    path: Path
    scale: str | None
    scale_reason: str
    resolved: Mapping[str, Any] = field(repr=False)

    @property
    def run_name(self) -> str:
        return f"{self.name}@{self.scale}" if self.scale else self.name

    def step(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise unknown("step", name, [s.name for s in self.steps], f"recipe {self.name}")


def load_recipe(path: Path, *, scale: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file.

    scale: one of the recipe's `scales`, or "auto" for the largest that fits this machine.
    overrides: `dotted.path=value`, the value in YAML.
    Raises ConfigError naming the file, the place and the nearest right name.
    """
    content = _read_yaml(path)
    _refuse_unknown_keys(content, RECIPE_KEYS, "key", path.name)
    for key in ("recipe", "steps"):
        if key not in content:
            raise ConfigError(f"{path.name} has no '{key}'. A recipe needs `recipe: NAME` and `steps: {{...}}`.")
    content = copy.deepcopy(content)
    scale, reason = _choose_scale(content, scale, path.name)
    if scale:
        for dotted, value in (content["scales"][scale].get("set") or {}).items():
            set_path(content, dotted, value)
    for override in overrides:
        dotted, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override} has no '='. Write --set steps.NAME.SETTING=VALUE.")
        set_path(content, dotted.strip(), _parse_value(text, override))
    steps = _order(_parse_steps(content["steps"], path.name), path.name)
    return Recipe(
        name=str(content["recipe"]),
        about=str(content.get("about", "")).strip(),
        seed=_whole_number(content.get("seed", 0), "seed", path.name),
        steps=steps,
        expect=_parse_expect(content.get("expect") or {}, {s.name for s in steps}, path.name),
        deviations=tuple(content.get("deviations") or ()),
        path=path.resolve(),
        scale=scale,
        scale_reason=reason,
        resolved={key: value for key, value in content.items() if key != "scales"},
    )


def set_path(content: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one setting by its dotted path, `steps.` optional. Lists are indexed: `pretrain.phases.0.tokens`."""
    parts = dotted.split(".")
    if parts[0] not in RECIPE_KEYS:
        parts = ["steps", *parts]
    node: Any = content
    for depth, part in enumerate(parts[:-1]):
        if isinstance(node, dict) and part not in node and parts[depth + 1].isdigit():
            raise ConfigError(
                f"cannot set '{dotted}': the recipe does not write '{part}' out, so it has no entry "
                f"{parts[depth + 1]} to change. Set the whole list: --set '{'.'.join(parts[: depth + 1])}=[...]'."
            )
        node = _child(node, part, ".".join(parts[:depth]) or "the recipe", create=depth >= 2)
    if isinstance(node, list):
        node[_list_index(node, parts[-1], dotted)] = value
    elif isinstance(node, dict):
        node[parts[-1]] = value
    else:
        raise ConfigError(
            f"cannot set '{dotted}': '{'.'.join(parts[:-1])}' is a single value, not a group of settings."
        )


def json_schema() -> dict[str, Any]:
    """The JSON schema of recipe files, for editors: one alternative per step kind."""
    definitions: dict[str, Any] = {}
    alternatives = []
    for name in KINDS:
        kind = step_kind(name)
        _forbid_unknown_keys(kind.config)
        schema = TypeAdapter(kind.config).json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        schema["properties"] = {_yaml_key(key): value for key, value in schema.get("properties", {}).items()}
        schema["properties"]["kind"] = {"const": name}
        schema["required"] = ["kind", *map(_yaml_key, schema.get("required", []))]
        definitions[f"step_{name}"] = schema
        alternatives.append({"$ref": f"#/$defs/step_{name}"})
    scale = {
        "type": "object",
        "properties": {
            "about": {"type": "string"},
            "needs": {"type": "object", "properties": {key: {"type": "number"} for key in NEED_KEYS}},
            "set": {"type": "object"},
        },
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Diglot recipe",
        "type": "object",
        "required": ["recipe", "steps"],
        "additionalProperties": False,
        "properties": {
            "recipe": {"type": "string"},
            "about": {"type": "string"},
            "seed": {"type": "integer"},
            "steps": {"type": "object", "additionalProperties": {"oneOf": alternatives}},
            "expect": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            },
            "deviations": {"type": "array"},
            "scales": {"type": "object", "additionalProperties": scale},
        },
        "$defs": definitions,
    }


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(p) for p in Path("recipes").rglob("*.yaml"))
        raise InputError(f"no recipe at {path}. Recipes here: {', '.join(near) or 'none'}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a recipe file in it.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings. A recipe needs `recipe: NAME` and `steps: {{...}}`.")
    return content


def _parse_value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"--set {override}: the value is not valid YAML. Quote it, for example --set 'a.b=\"x: y\"'."
        ) from None


def _refuse_unknown_keys(mapping: Mapping[str, Any], known: Sequence[str], what: str, where: str) -> None:
    for key in mapping:
        if key not in known:
            raise unknown(what, str(key), known, where)


def _choose_scale(content: Mapping[str, Any], wanted: str | None, where: str) -> tuple[str | None, str]:
    scales: Mapping[str, Any] = content.get("scales") or {}
    for name, scale in scales.items():
        _refuse_unknown_keys(scale, SCALE_KEYS, "key", f"scale {name} of {where}")
        _refuse_unknown_keys(scale.get("needs") or {}, NEED_KEYS, "need", f"scale {name} of {where}")
    if wanted is None or wanted == "default":
        return None, "the recipe as written"
    if wanted != "auto":
        if wanted not in scales:
            raise unknown("scale", wanted, [*scales, "default", "auto"], where)
        return wanted, str(scales[wanted].get("about", "asked for"))
    facts = host()
    memory_gb = facts.memory_bytes / 2**30
    have = f"{facts.num_cores} cores, {memory_gb:.0f} GiB" + (f", {facts.gpu}" if facts.gpu else ", no GPU")
    fitting = None
    for name, scale in scales.items():  # written from small to large
        needs = scale.get("needs") or {}
        if (
            facts.num_cores >= needs.get("cores", 1)
            and memory_gb >= needs.get("memory_gb", 0)
            and (facts.gpu or not needs.get("gpu"))
        ):
            fitting = name
    if fitting is None:
        raise ConfigError(f"no scale of {where} fits this machine ({have}). Name one with --scale to try anyway.")
    return fitting, f"largest that fits {have}: {scales[fitting].get('about', fitting)}"


def _parse_steps(content: Any, where: str) -> list[Step]:
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"{where}: `steps` must map names to steps, for example `pages: {{kind: ingest, source: pages/}}`."
        )
    steps = []
    for name, settings in content.items():
        place = f"step '{name}' of {where}"
        if not isinstance(settings, dict) or "kind" not in settings:
            raise ConfigError(f"{place} has no kind. Known kinds: {', '.join(KINDS)}.")
        kind = step_kind(str(settings["kind"]), place)
        fields = {_field_name(key): value for key, value in settings.items() if key != "kind"}
        config = _validate(kind, fields, place)
        inputs = {}
        for slot in kind.input_fields():
            target = getattr(config, slot)
            if target is not None:
                inputs[_yaml_key(slot)] = target
        steps.append(Step(name=name, kind=kind, config=config, inputs=inputs))
    kinds = {step.name: step.kind.kind for step in steps}
    for step in steps:
        for slot, accepted in step.kind.input_fields().items():
            target = step.inputs.get(_yaml_key(slot))
            if target is None:
                continue
            if target not in kinds:
                raise unknown("step", target, kinds, f"`{_yaml_key(slot)}` of step '{step.name}' of {where}")
            if kinds[target] not in accepted:
                raise ConfigError(
                    f"step '{step.name}' of {where} takes `{_yaml_key(slot)}: {target}`, which is of kind "
                    f"{kinds[target]}, but {step.kind.kind} needs one of: {', '.join(accepted)}."
                )
    return steps


def _validate(kind: StepKind, fields: Mapping[str, Any], place: str) -> Any:
    """Build the kind's config; turn pydantic's first complaint into one sentence."""
    _forbid_unknown_keys(kind.config)
    try:
        return TypeAdapter(kind.config).validate_python(fields)
    except ValidationError as error:
        # a misspelled key is also a missing one: name the misspelling
        first = min(error.errors(), key=lambda e: e["type"] != "unexpected_keyword_argument")
        location = ".".join(_yaml_key(str(part)) for part in first["loc"])
        if first["type"] == "unexpected_keyword_argument":
            names = {_yaml_key(f.name) for cls in _dataclasses_in(kind.config) for f in dataclasses.fields(cls)}
            raise unknown("setting", location.split(".")[-1], names, place) from None
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise ConfigError(f"{place} needs `{location}`.") from None
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise ConfigError(f"{place}: {cause}") from None
        found = f" (found {first['input']!r})" if not isinstance(first["input"], dict | list) else ""
        raise ConfigError(f"{place}: {location or 'settings'}: {first['msg']}{found}.") from None


def _dataclasses_in(annotation: Any) -> Iterator[type]:
    """Every dataclass reachable from a type annotation, itself included."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        yield annotation
        for hint in typing.get_type_hints(annotation).values():
            yield from _dataclasses_in(hint)
    for argument in typing.get_args(annotation):
        yield from _dataclasses_in(argument)


def _forbid_unknown_keys(config: type) -> None:
    for cls in _dataclasses_in(config):
        if "__pydantic_config__" not in vars(cls):
            cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


def _order(steps: list[Step], where: str) -> tuple[Step, ...]:
    """Inputs before users; among the free ones, the order of the file."""
    ordered: list[Step] = []
    done: set[str] = set()
    while len(ordered) < len(steps):
        ready = [s for s in steps if s.name not in done and all(target in done for target in s.inputs.values())]
        if not ready:
            circle = [s.name for s in steps if s.name not in done]
            raise ConfigError(
                f"{where}: the steps {', '.join(circle)} wait for each other. Break the circle of `from`s."
            )
        ordered.append(ready[0])
        done.add(ready[0].name)
    return tuple(ordered)


def _parse_expect(content: Mapping[str, Any], names: set[str], where: str) -> dict[str, tuple[float, float]]:
    expect = {}
    for key, bounds in content.items():
        step = key.partition(".")[0]
        if step not in names:
            raise unknown("step", step, names, f"`expect` of {where}")
        if not (isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(b, int | float) for b in bounds)):
            raise ConfigError(f"{where}: expect {key} must be a pair [low, high], found {bounds!r}.")
        expect[key] = (float(bounds[0]), float(bounds[1]))
    return expect


def _whole_number(value: Any, key: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where}: {key} must be a whole number, found {value!r}.")
    return value


def _child(node: Any, part: str, where: str, create: bool) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, part, where)]
    if isinstance(node, dict):
        if part not in node:
            if not create:
                raise unknown("step" if where == "steps" else "key", part, node, where)
            node[part] = {}
        return node[part]
    raise ConfigError(f"cannot set '{part}' inside '{where}', which is a single value.")


def _list_index(node: list[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(
            f"'{part}' is no index of the list at '{where}', which has {len(node)} entries (counted from 0)."
        )
    return int(part)


def _field_name(key: str) -> str:
    return "from_" if key == "from" else key


def _yaml_key(name: str) -> str:
    return "from" if name == "from_" else name
