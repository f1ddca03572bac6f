"""Represents the requests that the verifier sends to replicas, and the changes that the verifier
follows.

The verifier is `manage.py verify_coherence`. It compares the answers of replicas with the database,
and measures how soon all replicas serve a change. All times are in monotonic seconds.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field

from realms.coherence.replica_client import Question, ReplicaClient
from realms.coherence.rules import Observation, State
from realms.models import FileVersion, Realm
from realms.serving.contents import Variant
from reindex.reading.card_paths import FRONT_PAGE, card_of, is_card_file


@dataclass
class Asking:
    """A request that the verifier sends to one replica repeatedly until there is a result. `due` is
    the earliest time for the next request. `silent_since` is when the replica first failed to
    answer. It becomes None when the replica answers."""

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
    """A comparison of a replica's answer with the database. The verifier reads the database after
    the answer has arrived. The verifier rarely has to transpile a module, because the replica has
    stored the transpiled module in the database before it answered.

    If an answer is wrong, the verifier asks again. `suspect` is the web worker that gave the wrong
    answer. `suspected_at` is the start of the grace period, and `first` is the right answer at this
    time."""

    suspect: str = ""
    first: State | None = None
    suspected_at: float = 0.0


@dataclass
class WatchedChange:
    """A change that replicas should serve: a realm's new generation, or a realm's deletion. The
    verifier polls the realms' generations. The poll at `since` did not find the change yet. The
    next poll found it, at `noticed_at`."""

    since: float
    noticed_at: float
    #: The new generation; None if the realm was deleted.
    generation: int | None
    #: The generation before the change; 0 if there was no realm at the URL.
    before: int
    #: The number of replicas that the verifier no longer asks about the change, because they have
    #: served the change or have taken too long.
    replicas: int = 0
    latency: float = 0.0
    missed: bool = False


@dataclass
class Arrival(Asking):
    """A request that the verifier repeats to one replica until the replica serves a change."""

    change: WatchedChange = field(default_factory=lambda: WatchedChange(0, 0, None, 0))
    late: bool = False


def variants_of(realm: Realm, path: str, private: bool) -> list[Question]:
    """Returns the requests for a file as source and as module. If the file is a card of a published
    realm, also returns the request for the card's page. With `private`, the requests have the
    operator's token."""
    questions = [
        Question(realm.url, path, Variant.SOURCE, private),
        Question(realm.url, path, Variant.MODULE, private),
    ]
    if realm.kind == Realm.Kind.PUBLISHED and is_card_file(path):
        page = "" if path == FRONT_PAGE else card_of(path)
        questions.append(Question(realm.url, page, Variant.HTML, private))
    return questions


def with_token(question: Question, state: State) -> Question:
    """Returns a copy of the question that has the operator's token only if the realm is private
    according to `state`."""
    private = state.realm_url is not None and not state.public
    return Question(question.realm_url, question.path, question.variant, private)


def changed_path(realm: Realm, generation: int) -> str | None:
    """Returns the path of one file that a generation added, changed or deleted, or None if there is
    none. The verifier must ask for such a file, because a replica that is current may still name an
    older generation in its answer for an unchanged file."""
    versions = FileVersion.objects.filter(realm=realm)
    changed = versions.filter(from_generation=generation).first()
    changed = changed or versions.filter(until_generation=generation).first()
    return changed.path if changed else None
