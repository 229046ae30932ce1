"""Settings given as text, `name=value`, put into a configuration."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

C = TypeVar("C")

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def changed(config: C, settings: Mapping[str, str], owner: str) -> C:
    """A configuration with some settings changed.

    Args:
      config: a dataclass of plain values.
      settings: new values by name, as text.
      owner: whose settings they are, for messages.

    Raises:
      ValueError: for an unknown setting, or a value that does not fit.
    """
    types = get_type_hints(type(config))
    values = {name: _value(owner, types, name, text) for name, text in settings.items()}
    replaced: Any = dataclasses.replace(config, **values)  # ty: ignore[invalid-argument-type]
    return replaced


def _value(owner: str, types: Mapping[str, Any], name: str, text: str) -> Any:
    if name not in types:
        close = difflib.get_close_matches(name, types, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{owner} has no setting {name!r}; it has {', '.join(types)}.{hint}")
    kind = types[name]
    if get_origin(kind) is tuple:  # of any length, its items divided by commas
        item = get_args(kind)[0]
        return tuple(_value(owner, {name: item}, name, part) for part in text.split(","))
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(
            f"`{name}` of {owner} must be of type {kind.__name__}, but got {text!r}."
        ) from None
