"""What a verification asks replicas, and what it waits for."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from realms.coherence.replica_client import Question, ReplicaClient
from realms.coherence.rules import Observation, State
from realms.models import FileVersion, Realm
from realms.serving.contents import Variant


@dataclass
class Asking:
    """A question that one replica is being asked until it is settled."""

    of: ReplicaClient
    question: Question
    due: float = 0.0
    future: "Future[Observation] | None" = None
    silent_since: float | None = None

    def __post_init__(self) -> None:
        self.line = self.of.line()

    def ask(self) -> None:
        self.future = self.of.submit(self.line, self.question)


@dataclass
class Check(Asking):
    """Compares answers with the state that is read when they have come: what replicas had to
    transpile is stored by then, and this loop does not wait for it."""

    suspect: str = ""
    first: State | None = None
    suspected_at: float = 0.0


@dataclass
class WatchedChange:
    """A generation that moved: since when at the earliest, and when that was noticed."""

    since: float
    noticed_at: float
    #: None where the realm is gone; `before` is what it was then.
    generation: int | None
    before: int
    asked: int = 0
    latency: float = 0.0
    missed: bool = False


@dataclass
class Arrival(Asking):
    """Waits until a replica serves a change."""

    change: WatchedChange = field(default_factory=lambda: WatchedChange(0, 0, None, 0))
    late: bool = False


def variants_of(realm: Realm, path: str, private: bool) -> list[Question]:
    """What is asked of a file: its source, its module, and a published card's page."""
    questions = [
        Question(realm.url, path, Variant.SOURCE, private),
        Question(realm.url, path, Variant.MODULE, private),
    ]
    if realm.kind == Realm.Kind.PUBLISHED and path.endswith(".json"):
        page = "" if path == "index.json" else path.removesuffix(".json")
        questions.append(Question(realm.url, page, Variant.HTML, private))
    return questions


def with_token(question: Question, state: State) -> Question:
    """The question, with the operator's token where everyone's would be refused."""
    private = state.realm_url is not None and not state.public
    return Question(question.realm_url, question.path, question.variant, private)


def changed_path(realm: Realm, generation: int) -> str | None:
    """A file that a realm's generation brought or took away: others may rightly be served under
    older generations."""
    versions = FileVersion.objects.filter(realm=realm)
    changed = versions.filter(from_generation=generation).first()
    changed = changed or versions.filter(until_generation=generation).first()
    return changed.path if changed else None
