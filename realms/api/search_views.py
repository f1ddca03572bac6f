"""Contains the view that searches a realm's cards: `GET` and `QUERY` on `<realm>/_search`."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from definitions.entries import DefinitionCacheEntryQuery
from definitions.extensions import MODULE_ENDINGS
from definitions.lookup import DefinitionLookup
from realms import errors
from realms.access import auth
from realms.api.card_views import headed, resources
from realms.cards import documents
from realms.content.resolve import resolve
from realms.http.requests import read_body, requested_method
from realms.models import Realm
from realms.serving import drafts
from reindex.index.query import InvalidQuery, parse_json, parse_url
from reindex.index.search import SearchTimeout
from reindex.index.search import search as find
from reindex.jobs import wanted
from reindex.reading.media_types import CARD
from reindex.reading.references import file_url

#: The maximum size of a search request's body. Every valid query is smaller. Unit: bytes.
MAX_QUERY_BYTES = 128 * 1024


def search(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Returns one page of the cards that a query finds, and the number of all cards found."""
    in_url = requested_method(request) != "QUERY"
    definitions = _Definitions(realm)
    try:
        if in_url:
            query = parse_url(request.META.get("QUERY_STRING", ""))
        else:
            query = parse_json(read_body(request, MAX_QUERY_BYTES, "The query"))
        found = find(realm.url, query, text=in_url, known=definitions)
    except InvalidQuery as error:
        raise errors.InvalidQuery(pointer=error.pointer, why=error.why) from error
    except SearchTimeout as error:
        raise errors.Busy(what=str(error)) from error
    finally:
        # If a definition is missing, the search fails, and its transaction is rolled back. The
        # module is queued only after that, because the rollback would undo the queueing.
        wanted.want_definitions(definitions.lacking, realm.owner_key)
    # After a change of a source realm, searches use the outdated index until a worker has made a
    # new index. Only callers who may write to the realm may queue the job that makes the new index,
    # because the queueing takes the realm's write lock, and the job occupies a worker.
    if auth.may(request, realm, "write"):
        drafts.ask_for_index(realm.url)
        if found is None:
            raise errors.Busy(what=f"{realm.url} is being indexed")
    if found is None:
        raise errors.Busy(what=f"{realm.url} has no index yet")
    data = resources(realm, documents.read_many(realm, found.generation, found.paths))
    page = {"total": found.total, "number": query.page.number, "size": query.page.size}
    response = JsonResponse({"data": data, "meta": {"page": page}}, content_type=CARD)
    return headed(response, realm, found.generation)


class _Definitions:
    """Finds the definitions of card types, in public modules only. A definition lists the fields of
    a card type. The realm's index lists the fields of the types of its cards. So a search needs the
    definition only of a type that no card in the index has."""

    def __init__(self, realm: Realm) -> None:
        #: The modules that the search needs but that have no definitions yet.
        self.lacking: list[str] = []

    def __call__(self, module: str, name: str) -> dict[str, Any] | None:
        """Returns the definition of the card type `name`. Returns None if `module` is not public,
        doesn't exist or has no such card type. Raises Busy if the definition is not built yet."""
        found = resolve(module, MODULE_ENDINGS)
        if found is None or found.file is None:
            return None
        if not found.public:
            # The look-up below finds only definitions that were built from public modules.
            return None
        url = file_url(found.realm_url, found.file.path)
        entries = DefinitionLookup().get_cached_definitions_batch(DefinitionCacheEntryQuery((url,)))
        if url not in entries:
            self.lacking.append(url)
            raise errors.Busy(what=f"the definitions of {url} are being made")
        return (entries[url].definitions or {}).get(name)
