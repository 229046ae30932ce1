"""Settings given as text, `name=value`, put into a configuration; what is wrong with them."""

import dataclasses
import difflib
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

C = TypeVar("C")
T = TypeVar("T")

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def renewable(default: T, *, moved: bool = False) -> T:
    """The default of a setting that may be changed when a run goes on.

    Such a setting says how far, how fast or by which server a run goes, never what it finds.

    Args:
      default: its value.
      moved: whether it may only change from one value to another, not be added or left out.
    """
    return dataclasses.field(default=default, metadata={"renewable": True, "moved": moved})


def renewed(config: C, settings: Mapping[str, str], owner: str) -> C:
    """The configuration of a run that goes on, with some of its `renewable` settings changed.

    Args:
      config: of the run.
      settings: as for `changed`.
      owner: as for `changed`.

    Raises:
      ValueError: as `changed`, and for a setting that must stay.
    """
    fields: Any = dataclasses.fields(config)  # ty: ignore[invalid-argument-type]
    free = [field.name for field in fields if field.metadata.get("renewable")]
    fixed = [field.name for field in fields if field.name in settings and field.name not in free]
    if fixed:
        raise ValueError(
            f"`{fixed[0]}` of {owner} must stay as it is when a run goes on, only "
            f"{', '.join(free) or 'nothing'} may change; start a new run."
        )
    new = changed(config, settings, owner)
    for name in (field.name for field in fields if field.metadata.get("moved")):
        before, after = getattr(config, name), getattr(new, name)
        if bool(before) != bool(after):
            raise ValueError(
                f"`{name}` of {owner} may change from one to another when a run goes on, but was "
                f"{before!r} and would be {after!r}; start a new run."
            )
    return new


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


def refuse_idle(
    config: Any, names: Iterable[str], presets: Iterable[Any], *, whose: str, why: str, remedy: str
) -> None:
    """Refuses settings that would do nothing, if they were changed.

    A setting counts as changed if it has a value that it has in no preset.

    Args:
      config: the configuration.
      names: of the settings that do nothing in it.
      presets: what it may have been made from.
      whose: settings they are, such as `a language model`.
      why: they do nothing.
      remedy: the other way out, beside leaving them out.

    Raises:
      ValueError: with the names of those that were changed.
    """
    presets = list(presets)
    idle = [
        name
        for name in names
        if all(getattr(config, name) != getattr(preset, name) for preset in presets)
    ]
    if idle:
        given = ", ".join(f"`{name}` = {getattr(config, name)!r}" for name in idle)
        raise ValueError(
            f"`{idle[0]}` is a setting of {whose}, but {why}; leave out {given}, or {remedy}."
        )


@contextmanager
def as_settings(**names: str) -> Generator[None]:
    """Inside, errors about arguments name the settings that these came from.

    Args:
      **names: of settings, by argument.

    Raises:
      ValueError: the error, in the words of who chose the settings.
    """
    try:
        yield
    except ValueError as error:
        said = re.sub(r"`(\w+)`", lambda word: f"`{names.get(word[1], word[1])}`", str(error))
        if said == str(error):
            raise
        raise ValueError(said) from None


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
