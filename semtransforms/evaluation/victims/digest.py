"""What tells two networks, pipelines or functions of a caller apart, the same in every process.

A record of a victim is kept and found again by it. So it holds all that decides what a function does: its code, its
defaults, the values it captures, and the functions and values of the caller's own modules that it names. What comes
with Python or with an installed package counts by its name, and so does what a function imports when it is called.
"""

from __future__ import annotations

import copyreg
import dis
import hashlib
import inspect
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes)


def described(argument: str, thing: Any) -> str:
    """A name for a network or a pipeline, with a digest of what it does.

    Args:
        argument: what it was given as, for the message.
        thing: a module, a function, or an object that can be called.

    Returns:
        Such as ``"my_script.blur#0f3a9c71"``.

    Raises:
        ValueError: it holds what has no digest, such as an open file.
    """
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    name = f"{named.__module__}.{named.__qualname__}"
    try:
        return f"{name}#{digest_of(thing).hex()[:8]}"
    except TypeError as error:
        raise ValueError(
            f"{argument}={name} holds {error}: two that differ in it could not be told apart. Let it hold plain "
            "values, tensors, modules and functions only, and make or open the rest when it is called."
        ) from error


def digest_of(thing: Any) -> bytes:
    """SHA-256 of all that decides what a thing does, equal in every process.

    Raises:
        TypeError: it holds what has no digest; says what.
    """
    digest = hashlib.sha256()
    for part in _parts(thing, {}):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _parts(thing: Any, seen: dict[int, tuple[int, Any]]) -> Iterator[bytes]:
    """The bytes of a thing and of all that it holds.

    What was seen before counts by its number, since a function may name itself. ``seen`` also keeps it alive, so that
    nothing else gets its address.
    """
    kind = type(thing)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if kind in _PLAIN:
        yield repr(thing).encode()
        return
    if id(thing) in seen:
        yield str(seen[id(thing)][0]).encode()
        return
    if kind is not tuple:  # Python makes one object of equal constants as it likes
        seen[id(thing)] = (len(seen), thing)
    if isinstance(thing, Tensor):
        yield f"{thing.dtype} {tuple(thing.shape)} {thing.requires_grad}".encode()
        yield thing.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if thing.numel() else b""
    elif isinstance(thing, set | frozenset):
        yield from sorted(digest_of(each) for each in thing)  # in an order that no process changes
    else:
        for part in _held_by(thing):
            yield from _parts(part, seen)
        yield b"end"


def _held_by(thing: Any) -> Iterator[Any]:
    """What an object holds that decides what it does, in a fixed order."""
    if type(thing) in (tuple, list):
        yield from thing
    elif type(thing) is dict:
        for pair in thing.items():
            yield from pair
    elif isinstance(thing, ModuleType):
        yield thing.__name__
        if not _is_installed(thing.__name__) and (source := getattr(thing, "__file__", None)):
            yield Path(source).read_bytes()
    elif isinstance(thing, type):
        yield from _held_by_class(thing)
    elif isinstance(thing, FunctionType):
        yield from _held_by_function(thing)
    elif isinstance(thing, CodeType):
        yield from (thing.co_name, thing.co_code, thing.co_consts, thing.co_names, thing.co_varnames, thing.co_freevars)
        yield from (thing.co_flags, thing.co_argcount, thing.co_posonlyargcount, thing.co_kwonlyargcount)
    elif isinstance(thing, property | cached_property | staticmethod | classmethod):
        yield from (getattr(thing, part, None) for part in ("fget", "func", "__func__"))
    elif isinstance(thing, nn.Module):
        yield from _held_by_module(thing)
    else:
        yield from _held_by_instance(thing)


def _held_by_class(cls: type) -> Iterator[Any]:
    yield f"{cls.__module__}.{cls.__qualname__}"
    yield cls.__bases__
    if _is_installed(cls.__module__):
        return
    for name, value in vars(cls).items():
        # not what Python keeps there for itself: slots, documentation, the registers of dataclass and ABC
        if inspect.isroutine(value) or isinstance(value, property) or not name.startswith(("__", "_abc_")):
            yield from (name, value if not inspect.ismemberdescriptor(value) else None)


def _held_by_module(module: nn.Module) -> Iterator[Any]:
    """Its class, weights, parts, hooks and settings; other private fields are what it remembers of its last call."""
    yield type(module)
    for name, value in vars(module).items():
        if name.endswith("_hooks"):
            yield from (name, list(value.values()))  # without their numbers, which count all hooks of the process
        elif name in ("_parameters", "_buffers", "_modules") or not name.startswith("_"):
            yield from (name, value)


def _held_by_function(function: FunctionType) -> Iterator[Any]:
    yield f"{function.__module__}.{function.__qualname__}"
    if compiled := getattr(function, "_torchdynamo_orig_callable", None):  # by torch.compile
        yield compiled
        return
    yield from (function.__defaults__, function.__kwdefaults__, vars(function))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield "nothing yet"
    if not _is_installed(function.__module__):
        yield function.__code__
        known = function.__globals__
        yield {name: known[name] for name in _globals_of(function.__code__) if name in known}


def _held_by_instance(thing: Any) -> Iterator[Any]:
    """What a copy of it would be made from (``__reduce_ex__``): its class, arguments, fields and items."""
    reduce = copyreg.dispatch_table.get(type(thing))
    try:
        made_from = reduce(thing) if reduce else thing.__reduce_ex__(4)
    except Exception as error:  # each kind of object has an error of its own
        raise TypeError(f"a {type(thing).__module__}.{type(thing).__qualname__}") from error
    if isinstance(made_from, str):
        yield f"{getattr(thing, '__module__', None)}.{made_from}"
        yield getattr(thing, "__wrapped__", None)  # what functools.cache was put around
    else:
        yield from (list(part) if isinstance(part, Iterator) else part for part in made_from)


def _globals_of(code: CodeType) -> list[str]:
    """The globals that a function names, itself or in the functions it makes."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (name for each in code.co_consts if isinstance(each, CodeType) for name in _globals_of(each))
    return sorted(names.union(inner))


def _is_installed(module: str) -> bool:
    """Whether a module comes with Python or with an installed package; its name then says what it does."""
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
