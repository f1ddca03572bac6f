"""Provides a decorator for caching functions that take strings from clients."""

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Calls with longer arguments aren't cached, because thousands of long strings would fill the
#: memory.
MAX_LENGTH = 256


class _ShortCached(Generic[P, R]):
    def __init__(self, function: Callable[P, R], maxsize: int) -> None:
        update_wrapper(self, function)
        self._function = function
        self._cached = lru_cache(maxsize)(function)
        self.cache_info, self.cache_clear = self._cached.cache_info, self._cached.cache_clear

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        for each in args:
            if each is not None and len(each) > MAX_LENGTH:  # type: ignore[arg-type]
                return self._function(*args, **kwargs)
        return self._cached(*args, **kwargs)  # type: ignore[arg-type]


def short_cached(maxsize: int) -> Callable[[Callable[P, R]], _ShortCached[P, R]]:
    """Returns a decorator like `lru_cache` that doesn't cache calls with an argument longer than
    MAX_LENGTH. The function's positional arguments must be strings, bytes or None."""
    return lambda function: _ShortCached(function, maxsize)
