"""Heavy imports, without what they bring in and nothing here needs.

Of the ten seconds that torch and Lightning take to import, half go to what no training uses unless
it says so: torch's compiler with sympy behind it, and scipy.signal.
"""

import atexit
import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMPILER, HELPERS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def imports(compiler: bool = False) -> Iterator[None]:
    """For imports that take seconds.

    Args:
        compiler: whether `torch.compile` will be called. If not, a small module stands in for it,
            until somebody asks it for more than code that is not compiled does.
    """
    # torchmetrics, which Lightning imports, looks for one old name in scipy.signal.
    signal = ModuleType("scipy.signal")
    vars(signal)["hamming"] = None
    stood_in = sys.modules.setdefault(signal.__name__, signal) is signal
    if not compiler and COMPILER not in sys.modules:
        _stand_in()
    # A tenth of the time would go by with looking for garbage, and half a second with looking at
    # all that was imported afterwards.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # what is left over at the end is said to be a leak
        gc.enable()
        if stood_in:
            del sys.modules[signal.__name__]


def is_compiler_loaded() -> bool:
    """Whether torch's compiler itself was imported."""
    module = sys.modules.get(COMPILER)
    return module is not None and not isinstance(module, _StandIn)


class _StandIn(ModuleType):
    """A module of the compiler, as far as code that is not compiled calls it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _load()
        return getattr(sys.modules[self.__name__], name)


class _Finder(MetaPathFinder, Loader):
    """Whoever imports another module of the compiler gets the compiler."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(COMPILER + "."):
            return None
        _load()
        if name in sys.modules:
            return ModuleSpec(name, self)
        return PathFinder.find_spec(name, sys.modules[COMPILER].__path__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it came with its package."""


class _Compiled(type):
    """Of a class that has no instances before the compiler is there."""

    def __instancecheck__(cls, instance: object) -> bool:
        return is_compiler_loaded() and isinstance(instance, sys.modules[COMPILER].OptimizedModule)


class _OptimizedModule(metaclass=_Compiled):
    """What `torch.compile` makes of a network: Lightning asks whether it was given one."""


def _stand_in() -> None:
    compiler, helpers = _StandIn(COMPILER), _StandIn(HELPERS)
    compiler.__path__ = []  # a package: `_Finder` finds what is in it
    names = {
        "utils": helpers,
        "OptimizedModule": _OptimizedModule,
        "graph_break": lambda: None,  # no graph is traced
        "disable": _disable,
    }
    vars(compiler).update(names)
    # torchvision takes it at import, for operators to call when they run.
    vars(helpers)["is_compile_supported"] = _is_compile_supported
    sys.modules.update({COMPILER: compiler, HELPERS: helpers})
    sys.meta_path.insert(0, _Finder())


def _load() -> None:
    if is_compiler_loaded():
        return
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    del sys.modules[COMPILER], sys.modules[HELPERS]
    importlib.import_module(COMPILER)


def _is_compile_supported(device: Any) -> Any:
    _load()
    return sys.modules[HELPERS].is_compile_supported(device)


def _disable(
    fn: Callable[..., Any] | None = None, *args: Any, **options: Any
) -> Callable[..., Any]:
    """The function itself; kept from the compiler, should that be loaded one day."""
    if fn is None:
        return functools.partial(_disable, **options)

    @functools.cache
    def kept() -> Callable[..., Any]:
        compiler = sys.modules[COMPILER]
        return compiler.disable(fn, *args, **options)

    @functools.wraps(fn)
    def call(*values: Any, **named: Any) -> Any:
        return (kept() if is_compiler_loaded() else fn)(*values, **named)

    return call
