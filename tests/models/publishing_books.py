"""Contains classes for the publishing model. `Shown` is the expected content of a realm, and `End`
says how a change ends."""

from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import strategies as st

Files: TypeAlias = dict[str, bytes]


class Killed(Exception):
    """Raised in place of killing the process that makes a change."""


@dataclass
class Shown:
    """The expected content of a realm at each of its generations."""

    url: str
    generation: int
    history: dict[int, Files]
    source: str | None = None
    #: The generations that were published. The value is the URL and the generation of the source
    #: realm.
    publications: dict[int, tuple[str, int]] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return self.history[self.generation]


@dataclass
class End:
    """Says how a change ends. With `well`, the change ends normally. With `killed`, the process is
    killed before statement number `at`. With `terminated`, the database connection is terminated
    before statement number `at`. With `after the commit`, the process is killed right after the
    commit."""

    how: str
    at: int = 0


ENDS = st.one_of(
    st.just(End("well")),
    st.just(End("after the commit")),
    st.builds(End, st.just("killed"), st.integers(0, 30)),
    st.builds(End, st.sampled_from(("killed", "terminated")), st.integers(0, 12)),
)
WHICH = st.integers(0, 1)
