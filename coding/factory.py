"""Decides, before anything is called, whether what an import string names may be called to make a model or a data set.

A configuration may come from somebody else, and everything that it names is called with arguments that it gives. So only two
kinds of things are called: classes of the right kind, and plain functions that are the user's own code (of no module of the
standard library, of an installed package or of distseq) or whose return annotation is a class of the right kind.
"""

import functools
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, get_type_hints

from distseq.coding.import_string import load_object

INSTALLED = ("site-packages", "dist-packages")


def load_factory(
    target: str, what: str, is_kind: Callable[[type], bool], kind: str, *, own_classes: bool = False
) -> Callable[..., Any]:
    """The class or function that `target`, "module:name", names, if it may be called to make a `what`.

    is_kind, kind: whether a class is of the right kind, and what that is called in messages. own_classes: any class that is the
        user's own code will do. ValueError, before anything is called, for everything else; and as from load_object.
    """
    module = target.partition(":")[0]
    if is_standard(module):
        # Not even imported: some modules do something when they are.
        raise ValueError(_refused(target, what, f"{module} is a module of the standard library", kind))
    found = load_object(target)
    inner = found
    # What partial and lru_cache wrap decides.
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inspect.unwrap(inner) if callable(inner) else inner
    if isinstance(inner, type):
        if not (is_kind(inner) or (own_classes and is_own(inner))):
            raise ValueError(_refused(target, what, f"it names {_described(inner)}, which is no {kind}", kind))
    elif not isinstance(inner, FunctionType) or inner.__name__ == "<lambda>":
        raise ValueError(_refused(target, what, f"it names {_described(inner)}", kind))
    elif not is_own(inner) and not _returns(inner, is_kind):
        why = f"it names {_described(inner)} of module {inner.__module__}, which is not your own code"
        raise ValueError(_refused(target, what, why, kind))
    factory: Callable[..., Any] = found
    return factory


def is_standard(module: str) -> bool:
    """Whether a module is of the standard library."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names and top != "__main__"


def is_own(found: Any) -> bool:
    """Whether a class or function is of a module that is neither installed nor of the standard library nor of distseq."""
    name = getattr(found, "__module__", None)
    if not isinstance(name, str) or name.partition(".")[0] == "distseq" or is_standard(name):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    # A module without a file was made by the program that runs, or in a notebook.
    if file is None:
        return True
    path = Path(file)
    return not set(INSTALLED) & set(path.parts) and not path.is_relative_to(sysconfig.get_path("stdlib"))


def _returns(function: FunctionType, is_kind: Callable[[type], bool]) -> bool:
    # torch's own functions that return modules, as torch.jit.load, read them from files.
    if function.__module__.partition(".")[0] == "torch":
        return False
    try:
        returned = get_type_hints(function).get("return")
    except Exception:  # an annotation that names what is not imported at run time
        return False
    return isinstance(returned, type) and is_kind(returned)


def _described(found: Any) -> str:
    if isinstance(found, ModuleType):
        return "a module"
    for kind, word in ((type, "class"), (FunctionType, "function"), (BuiltinFunctionType, "built-in function")):
        if isinstance(found, kind):
            return "a lambda" if found.__name__ == "<lambda>" else f"the {word} {found.__qualname__}"
    return f"an object of type {type(found).__name__}"


def _refused(target: str, what: str, why: str, kind: str) -> str:
    return (
        f"{what} {target!r} is refused, and nothing was called: {why}; a {what} is made by a {kind}, by a function (def) of your "
        f"own code, or by an installed one that is annotated to return such a class"
    )
