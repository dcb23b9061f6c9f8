"""The environment, read in one place and only by settings.py.

Every function reads one variable, remembers it for the documentation and returns a value of the right type.
A value that cannot be used raises BadSetting, whose message names the variable and never shows a secret.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


class BadSetting(ImproperlyConfigured):
    """An environment variable holds something that cannot be used."""


@dataclass(frozen=True)
class Variable:
    """One variable that the settings read: its default as it is documented, and its meaning in a sentence."""

    name: str
    default: str
    meaning: str


variables: dict[str, Variable] = {}

_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}


def text(name: str, default: str, meaning: str, *, choices: Sequence[str] = ()) -> str:
    """A string; empty counts as unset. Raises BadSetting when there are choices and it is none of them."""
    value = _read(name, default, meaning)
    if choices and value not in choices:
        raise BadSetting(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value


def secret(name: str, meaning: str) -> str:
    """A string that may lie in a file instead: NAME_FILE is its path. Empty when neither is set.

    Raises BadSetting when both are set or the file cannot be read.
    """
    return _or_of_file(name, _read(name, "", f"{meaning} Or {name}_FILE: a file that holds it."))


def key(name: str) -> str:
    """The key of a server, in a variable that a policy names: it, or what is in the file NAME_FILE, or empty.

    No setting, as only the policies know its name. Raises BadSetting as `secret` does.
    """
    return _or_of_file(name, os.environ.get(name, "").strip())


def _or_of_file(name: str, value: str) -> str:
    path = os.environ.get(f"{name}_FILE", "").strip()
    if not path:
        return value
    if value:
        raise BadSetting(f"{name} and {name}_FILE are both set; keep one")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise BadSetting(f"{name}_FILE cannot be read: {why}: {path}") from None


def integer(name: str, default: int, meaning: str, *, least: int = 0, most: int | None = None) -> int:
    """A whole number within [least, most]. Raises BadSetting otherwise."""
    return _numeric(name, default, meaning, int, "a whole number", least, most)


def number(name: str, default: float, meaning: str, *, least: float = 0, most: float | None = None) -> float:
    """A number, decimals allowed, within [least, most]. Raises BadSetting otherwise."""
    return _numeric(name, default, meaning, _finite, "a number", least, most)


def flag(name: str, default: bool, meaning: str) -> bool:
    """Yes or no, written as 1/0, true/false, yes/no or on/off. Raises BadSetting for anything else."""
    value = _read(name, "yes" if default else "no", meaning).lower()
    if value not in _YES | _NO:
        raise BadSetting(f"{name} must be yes or no, not {value!r}")
    return value in _YES


def words(name: str, default: Sequence[str], meaning: str) -> list[str]:
    """A list separated by commas; blanks around the items and empty items are dropped."""
    value = _read(name, ",".join(default), meaning)
    return [item.strip() for item in value.split(",") if item.strip()]


def folder(name: str, default: Path, meaning: str) -> Path:
    """An absolute path; a relative one is taken from the working directory. Need not exist.

    Its default differs from machine to machine, so that the meaning should tell it. Raises BadSetting when
    something other than a folder lies there.
    """
    path = Path(_read(name, "", meaning) or default).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise BadSetting(f"{name} is not a folder: {path}")
    return path


def example() -> str:
    """Every variable read so far as the text of `.env.example`: its meaning, and its default commented out."""
    head = (
        "# Every setting of Bothsides, with its default. The programs read their environment, not this file; Docker\n"
        "# Compose gives them a copy of it named .env. Written by `make env-example`.\n"
        "\n# For Docker Compose only: what it runs beside web and beat, of servers, cpu, gpu and vllm.\n"
        "COMPOSE_PROFILES=servers,cpu\n"
        "\n# For Docker Compose only: the password of the PostgreSQL that it starts.\n#POSTGRES_PASSWORD=\n"
    )
    parts = [f"\n# {variable.meaning}\n#{variable.name}={variable.default}\n" for variable in variables.values()]
    return head + "".join(parts)


def _read(name: str, default: str, meaning: str) -> str:
    variables[name] = Variable(name, default, meaning)
    return os.environ.get(name, "").strip() or default


def _finite(raw: str) -> float:
    # "nan" and "inf" are floats to Python.
    if not math.isfinite(value := float(raw)):
        raise ValueError(raw)
    return value


def _numeric(name: str, default, meaning: str, convert: Callable, kind: str, least, most):
    raw = _read(name, str(default), meaning)
    try:
        value = convert(raw)
    except ValueError:
        raise BadSetting(f"{name} must be {kind}, not {raw!r}") from None
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"between {least} and {most}"
        raise BadSetting(f"{name} must be {limits}, not {raw}")
    return value
