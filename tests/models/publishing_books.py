"""Contains classes for the publishing model, a state machine in `test_publishing_model.py`. The
model changes realms and kills the processes that make the changes. `Shown` is the expected content
of a realm, and `End` says how a change ends."""

from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import strategies as st

Files: TypeAlias = dict[str, bytes]


class Killed(Exception):
    """Ends a change, as if the process that makes the change were killed."""


@dataclass
class Shown:
    """The expected content of a realm at each of its generations."""

    url: str
    generation: int
    history: dict[int, Files]
    source: str | None = None
    #: The keys are the generations that publishes and rollbacks have made. The value is the URL and
    #: the generation of the source realm that the published realm shows at the key.
    publications: dict[int, tuple[str, int]] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return self.history[self.generation]


@dataclass
class End:
    """Says how a change ends. With `well`, the change ends normally. With `killed`, the process is
    killed before the change's SQL statement number `at`. With `terminated`, the database connection
    is terminated before this statement. If no transaction has a statement with this number, the
    change ends normally. With `after the commit`, the process is killed right after the commit."""

    how: str
    at: int = 0


ENDS = st.one_of(
    st.just(End("well")),
    st.just(End("after the commit")),
    st.builds(End, st.just("killed"), st.integers(0, 30)),
    st.builds(End, st.sampled_from(("killed", "terminated")), st.integers(0, 12)),
)
WHICH = st.integers(0, 1)
