"""The questions that a verification asks replicas, and the changes that it follows."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from realms.coherence.replica_client import Question, ReplicaClient
from realms.coherence.rules import Observation, State
from realms.models import FileVersion, Realm
from realms.serving.contents import Variant
from reindex.reading.card_paths import FRONT_PAGE, card_of, is_card_file


@dataclass
class Asking:
    """A question that is put to one replica until it is settled. Times are monotonic seconds."""

    client: ReplicaClient
    question: Question
    due: float = 0.0
    future: "Future[Observation] | None" = None
    silent_since: float | None = None

    def __post_init__(self) -> None:
        self.line = self.client.line()

    def ask(self) -> None:
        self.future = self.client.submit(self.line, self.question)


@dataclass
class Check(Asking):
    """Compares an answer with the state that the database has when the answer arrives. By then the
    replica has stored any module that it had to transpile, so reading the state is fast."""

    suspect: str = ""
    first: State | None = None
    suspected_at: float = 0.0


@dataclass
class WatchedChange:
    """A realm's new generation. It was committed after `since`, and noticed at `noticed_at`."""

    since: float
    noticed_at: float
    #: None if the realm was deleted; `before` is the generation before the change.
    generation: int | None
    before: int
    #: How many replicas have settled it.
    replicas: int = 0
    latency: float = 0.0
    missed: bool = False


@dataclass
class Arrival(Asking):
    """Waits until a replica serves a change."""

    change: WatchedChange = field(default_factory=lambda: WatchedChange(0, 0, None, 0))
    late: bool = False


def variants_of(realm: Realm, path: str, private: bool) -> list[Question]:
    """The questions about a file: its source, its module, and for a published card its page."""
    questions = [
        Question(realm.url, path, Variant.SOURCE, private),
        Question(realm.url, path, Variant.MODULE, private),
    ]
    if realm.kind == Realm.Kind.PUBLISHED and is_card_file(path):
        page = "" if path == FRONT_PAGE else card_of(path)
        questions.append(Question(realm.url, page, Variant.HTML, private))
    return questions


def with_token(question: Question, state: State) -> Question:
    """The question, with the operator's token if the realm is private."""
    private = state.realm_url is not None and not state.public
    return Question(question.realm_url, question.path, question.variant, private)


def changed_path(realm: Realm, generation: int) -> str | None:
    """A file that a generation added, changed or deleted. Other files may rightly be served under
    older generations."""
    versions = FileVersion.objects.filter(realm=realm)
    changed = versions.filter(from_generation=generation).first()
    changed = changed or versions.filter(until_generation=generation).first()
    return changed.path if changed else None
