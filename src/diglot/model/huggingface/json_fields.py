"""Reading config.json with checks: what another program wrote is an input like any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diglot.core.errors import ConfigError


class Fields:
    """The fields of a config.json.

    where: named in errors. defaults: of fields that are left out; one that is null stays None.
    """

    def __init__(self, fields: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None) -> None:
        self.fields, self.where, self.defaults = fields, where, defaults or {}

    def get(self, name: str) -> Any:
        return self.fields[name] if name in self.fields else self.defaults.get(name)

    def whole(self, name: str, *, least: int = 1) -> int:
        """A whole number. Raises ConfigError when it is left out, something else or too small."""
        value = self.get(name)
        if isinstance(value, float) and value.is_integer():  # some writers make every number a float
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(name, value, f"a whole number of at least {least}")
        return value

    def number(self, name: str) -> float:
        """A finite number. Raises ConfigError for NaN and infinities, which Python's JSON lets through."""
        value = self.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self._wrong(name, value, "a finite number")
        return float(value)

    def positive(self, name: str) -> float | None:
        """A finite number above 0, or None where it is left out."""
        if self.get(name) is None:
            return None
        if (value := self.number(name)) <= 0:
            raise self._wrong(name, value, "a number above 0")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value not in (None, True, False):
            raise self._wrong(name, value, "true or false")
        return bool(value)

    def wholes(self, name: str) -> tuple[int, ...]:
        value = self.get(name) or ()
        if not isinstance(value, list | tuple) or not all(isinstance(item, int) for item in value):
            raise self._wrong(name, value, "a list of whole numbers")
        return tuple(value)

    def inside(self, name: str) -> Fields:
        """The fields of an object within; of an empty one where it is left out."""
        value = self.get(name)
        if not isinstance(value, Mapping | None):
            raise self._wrong(name, value, "an object")
        return Fields(value or {}, f"{name} in {self.where}")

    def _wrong(self, name: str, value: Any, right: str) -> ConfigError:
        found = f"no {name}" if value is None else f"{name} = {value!r}"
        return ConfigError(f"{self.where} has {found}, but it must be {right}. Restore the file or write it again.")
