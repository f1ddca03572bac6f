"""The expected state in the model of publishing: the content of realms, and the ends of changes."""

from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import strategies as st

Files: TypeAlias = dict[str, bytes]


class Killed(Exception):
    """The process that makes a change is killed."""


@dataclass
class Shown:
    """The expected content of a realm at each of its generations."""

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
    """How a change ends. `well`: normally. `killed`: the process ends before statement number
    `at`. `terminated`: its database connection ends there. `after the commit`: the process ends
    right after its commit."""

    how: str
    at: int = 0


ENDS = st.one_of(
    st.just(End("well")),
    st.just(End("after the commit")),
    st.builds(End, st.just("killed"), st.integers(0, 30)),
    st.builds(End, st.sampled_from(("killed", "terminated")), st.integers(0, 12)),
)
WHICH = st.integers(0, 1)
