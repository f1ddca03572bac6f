"""The books of the model of publishing: what each realm shows, and how a change may end."""

from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import strategies as st

Files: TypeAlias = dict[str, bytes]


class Killed(Exception):
    """The process that made a change is no more."""


@dataclass
class Shown:
    """A realm as the machine's books have it: what it holds at each of its generations."""

    url: str
    generation: int
    history: dict[int, Files]
    source: str | None = None
    #: The generations that were publications, with the source's URL and generation.
    publications: dict[int, tuple[str, int]] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return self.history[self.generation]


@dataclass
class End:
    """How a change ends: killed or cut off at statement number `at`, killed after the commit, or
    not at all."""

    how: str
    at: int = 0


ENDS = st.one_of(
    st.just(End("well")),
    st.just(End("after the commit")),
    st.builds(End, st.just("killed"), st.integers(0, 30)),
    st.builds(End, st.sampled_from(("killed", "terminated")), st.integers(0, 12)),
)
WHICH = st.integers(0, 1)
