"""Provides a decorator that caches a function's results. Unlike `lru_cache`, the decorator is safe
for functions that take texts from clients, which may be long.
"""

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: The result of a call isn't cached if a positional argument is longer than this. Otherwise,
#: thousands of long arguments could fill the memory. Unit: characters, or bytes of a byte string.
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
    """Returns a decorator like `lru_cache`, except that it doesn't cache the result of a call with
    a positional argument longer than MAX_LENGTH. All positional arguments must be strings, bytes or
    None."""
    return lambda function: _ShortCached(function, maxsize)
