"""Options as frozen, checked values that say in one sentence what is wrong with them.

What a field means, its unit and what it allows stand in the field itself; the help of the command line, the
TOML file, the pages and the errors all take them from there.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.fields import FieldInfo

from gpucal.errors import ConfigError, did_you_mean

_UNITS = ("K", "s", "m", "deg", "Np", "mm", "MiB")
K, S, M, DEG, NP, MM, MIB = ({"unit": cast(JsonValue, unit)} for unit in _UNITS)
"""Unit of a field, in its ``json_schema_extra``."""

KernelForm = Annotated[
    Literal["fused", "plain"],
    Field(description="Kernels on a card: fused, or their readable, slower form."),
]

_BOUNDS = (
    ("exclusiveMinimum", "above"),
    ("minimum", "at least"),
    ("exclusiveMaximum", "below"),
    ("maximum", "at most"),
)


class OptionModel(BaseModel):
    """Base of the classes of options. Raises ConfigError instead of pydantic's own error.

    Fields cannot be assigned; ``model_copy(update={...})`` makes another, checked as the first.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    if not TYPE_CHECKING:  # type checkers shall see the fields as parameters

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigError(sentence(error, type(self))) from None

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                super().__setattr__(name, value)
                return
            raise ConfigError(
                f"{name} cannot be set: a {type(self).__name__} does not change.",
                hint=f"Make another one: config.model_copy(update={{{name!r}: {value!r}}}).",
            )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let ``help()`` list the fields."""
        rows = [
            f"    {name:15} {info.description or ''} {unit_of(cls, name)}".rstrip()
            for name, info in cls.model_fields.items()
        ]
        cls.__doc__ = "\n".join([cls.__doc__ or "", *rows])

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, values: Any) -> Any:
        """True is no number, though Python counts with it."""
        if isinstance(values, Mapping):
            for name, value in values.items():
                info = cls.model_fields.get(str(name))
                truth = type(value).__name__ in ("bool", "bool_")  # of Python, of NumPy
                if truth and info is not None and not _takes(info, bool):
                    raise ValueError(f"{name} is {value}, expected {allowed(cls, name)}")
        return values

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Another with some fields changed; raises ConfigError as the constructor does."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **(update or {})})

    def __repr__(self) -> str:
        """The options that differ from the defaults."""
        return f"{type(self).__name__}({', '.join(self._chosen()) or 'all defaults'})"

    def __str__(self) -> str:
        return repr(self)

    def _chosen(self) -> list[str]:
        fields = type(self).model_fields
        return [
            f"{name}={value!r}"
            for name, value in self
            if value != fields[name].get_default(call_default_factory=True, validated_data={})
        ]

    def to_toml(self) -> str:
        """All options as the text of a TOML file, each with its meaning; without a value as a comment."""
        lines = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            text = "true" if value is True else "false" if value is False else _toml(value)
            key = name.replace("_", "-")
            lines += [f"# {describe(type(self), name)}"]
            lines += [f"{key} = {text}" if value is not None else f"#{key} ="]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A text or a number in TOML."""
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _takes(info: FieldInfo, kind: type) -> bool:
    """Whether the annotation of a field holds ``kind``, also inside a union."""

    def parts(annotation: Any) -> Iterator[Any]:
        yield annotation
        for part in get_args(annotation):
            yield from parts(part)

    return any(part is kind for part in parts(info.annotation))


def unit_of(model: type[BaseModel], name: str) -> str:
    """Unit of a field, "" without one."""
    extra = model.model_fields[name].json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of each field."""
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def describe(model: type[BaseModel], name: str) -> str:
    """Meaning of a field and what it allows, in one line."""
    text = (model.model_fields[name].description or name).rstrip(".")
    may_be = allowed(model, name)
    return f"{text} ({may_be})" if may_be else text


def allowed(model: type[BaseModel], name: str) -> str:
    """What a field may be, in words: "auto, cuda or cpu", "a number above 0 in K"; "" for any text."""
    found = list(_alternatives(schema_of(model)[name]))
    if not found:
        return ""
    unit = unit_of(model, name)
    text = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
    return f"{text} in {unit}" if unit else text


def _alternatives(schema: Mapping[str, Any]) -> Iterator[str]:
    """The values, or kinds of values, of a field's JSON schema."""
    if "enum" in schema:
        yield from (str(value) for value in schema["enum"])
    elif "const" in schema:
        yield str(schema["const"])
    elif "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _alternatives(part)
    elif schema.get("type") == "boolean":
        yield from ("true", "false")
    elif schema.get("type") in ("number", "integer"):
        kind = "a whole number" if schema["type"] == "integer" else "a number"
        bounds = [f"{words} {schema[key]:g}" for key, words in _BOUNDS if key in schema]
        yield " ".join([kind, " and ".join(bounds)]).strip()


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """All errors of pydantic as one sentence, each field once: what was found, what is allowed."""
    texts: dict[str, str] = {}
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        name = place[0] if place else ""
        message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if item["type"] == "extra_forbidden":
            nested = " (keys stand alone, without a [section])" * isinstance(item["input"], dict)
            hint = did_you_mean(name, model.model_fields)
            texts[name] = f"option {name!r} does not exist{nested}{hint and f'; {hint}'}"
        elif item["type"] == "value_error" or not _of_one_value(model, place):
            said = message.rstrip(".")
            whole = said if not name or said.startswith(name) else f"{'.'.join(place)}: {said}"
            texts[name or message] = whole
        else:
            texts[name] = _wrong_value(name, item, model)
    whole = "; ".join(dict.fromkeys(texts.values()))
    return whole if whole.endswith("?") else f"{whole}."


def _of_one_value(model: type[BaseModel], place: list[str]) -> bool:
    """Whether an error is one of a whole field, not of something in it (a union names its parts, too)."""
    known = bool(place) and place[0] in model.model_fields
    return known and (len(place) == 1 or bool(allowed(model, place[0])))


def _wrong_value(name: str, item: Any, model: type[BaseModel]) -> str:
    """ "tau is -1, expected a number at least 0 in Np", with the nearest of a few words."""
    found, hint = item["input"], ""
    message = item["msg"].replace("Input should be", "expected").replace("valid string", "text")
    may_be = f"expected {text}" if (text := allowed(model, name)) else message
    if isinstance(found, str):
        words = _alternatives(schema_of(model)[name])
        hint = did_you_mean(found, [w for w in words if " " not in w and w != found])
    shown = repr(found)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f"{name} is {shown}, {may_be}{hint and f'; {hint}'}"


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Keys and values of a TOML file, ``-`` in a key as ``_``.

    Raises ConfigError when it cannot be read, is no TOML, or names an option twice.
    """
    place = Path(path)
    try:
        values = tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} is not valid TOML: {error}.") from error
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name in found:
            raise ConfigError(f"configuration file {path} gives {name} twice, with - and with _.")
        found[name] = value
    return found
