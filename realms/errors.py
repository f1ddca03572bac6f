"""Defines the errors that a request can end with. The docstring of each class is the template of
its message."""

from collections.abc import Mapping, Sequence
from typing import Any

from reindex.reading.pins import PIN_ENDED


class RealmError(Exception):
    """The request can't be carried out."""

    status = 400
    title = "Bad Request"

    def __init__(self, **details: object) -> None:
        self.details = details
        super().__init__((type(self).__doc__ or "").strip().format(**details))


class Malformed(RealmError):
    """{what}"""


class InvalidURL(RealmError):
    """Invalid realm URL supplied: {url} {why}"""


class InvalidPath(RealmError):
    """Invalid path {path!r}: {why}"""


class ForeignDomain(RealmError):
    """{url} is not below a domain that realms are published on: {domains}"""


class OwnHost(ForeignDomain):
    """{url} is at a host of this server itself; at these hosts, realms can only be published \
below {origin}/"""


class AlreadyExists(RealmError):
    """The realm '{url}' already exists on this server"""


class NotARealm(RealmError):
    """{url} is not a realm on this server"""


class IsASourceRealm(RealmError):
    """{url} is a {kind} realm, which a publish can't replace"""


class Unauthorized(RealmError):
    """{why}"""

    status = 401
    title = "Unauthorized"


class Forbidden(RealmError):
    """{user} is not allowed to {action} {url}"""

    status = 403
    title = "Forbidden"


class PinEnded(RealmError):
    """the reader of this pin no longer has access to {url}"""

    status = 403
    title = PIN_ENDED


class Reserved(RealmError):
    """{url} lies within {within}, reserved for this server's own library; choose another name"""

    status = 403
    title = "Forbidden"


class NotFound(RealmError):
    """{url} was not found"""

    status = 404
    title = "Not Found"


class MethodNotAllowed(RealmError):
    """{method} is not possible here; expected {expected}"""

    status = 405
    title = "Method Not Allowed"

    def __init__(self, allow: Sequence[str], **details: object) -> None:
        """`allow` lists the possible methods. The Allow header has these methods and OPTIONS."""
        self.allow = ", ".join([*allow, "OPTIONS"])
        super().__init__(**{"expected": " or ".join(allow), **details})


class NotAcceptable(RealmError):
    """{url} can't be transpiled: {why}"""

    status = 406
    title = "Not Acceptable"


class TooSlow(RealmError):
    """Only {size} bytes of the body arrived in time; the limit is {seconds:g} s plus one second \
for every {rate} bytes"""

    status = 408
    title = "Request Timeout"


class Conflict(RealmError):
    """{what}"""

    status = 409
    title = "Conflict"


class HistoryEnds(RealmError):
    """the content of {url} at generation {generation} has been removed from history"""

    status = 410
    title = "Gone"


class AlreadyThere(RealmError):
    """Resource {href} already exists"""

    status = 409
    title = "Resource already exists"


class Missing(RealmError):
    """Resource {href} does not exist: {why}"""

    status = 404
    title = "Resource does not exist"


class LengthRequired(RealmError):
    """The body's length is unknown; expected a Content-Length header"""

    status = 411
    title = "Length Required"


class PreconditionFailed(RealmError):
    """{header} is {value!r}, which doesn't hold for the current content of {url}"""

    status = 412
    title = "Precondition Failed"


class TooLarge(RealmError):
    """{path} has {size} bytes and exceeds maximum allowed size of {limit} bytes"""

    status = 413
    title = "Payload Too Large"


class OverQuota(RealmError):
    """{url} would have {count} {unit}; the limit of this realm is {limit} {unit}"""

    status = 413
    title = "Quota Exceeded"


class TooLong(RealmError):
    """The address is longer than {limit} bytes"""

    status = 414
    title = "URI Too Long"


class NotACard(RealmError):
    """{url} is not a card"""

    status = 415
    title = "Unsupported Media Type"


class Misdirected(RealmError):
    """{url} is in the realm {realm}"""

    status = 421
    title = "Misdirected Request"


class UnsupportedType(RealmError):
    """The body is {found}; expected {expected}"""

    status = 415
    title = "Unsupported Media Type"


class UnsupportedCoding(RealmError):
    """The body's Content-Encoding is {found!r}; expected one of: {expected}"""

    status = 415
    title = "Unsupported Media Type"


class InvalidQuery(RealmError):
    """{pointer}: {why}"""

    title = "Invalid Query"


class BrokenCard(RealmError):
    """{message}"""

    def __init__(self, url: str, error: Mapping[str, Any]) -> None:
        super().__init__(url=url, message=error.get("message", ""), causes=error.get("causes", []))
        status = error.get("status")
        # The error's status is 404 if a file that the card reads doesn't exist. The card itself
        # exists, so the response must not be a 404.
        if not isinstance(status, int) or status == 404 or not 400 <= status < 600:
            status = 500
        self.status = status
        self.title = str(error.get("title", "Render Failed"))


class BrokenModule(RealmError):
    """the definitions of {module} can't be built: {message}"""

    title = "Build Failed"

    def __init__(self, module: str, error: Mapping[str, Any]) -> None:
        super().__init__(module=module, message=error.get("message", ""), meta=error)
        status = error.get("status")
        # A 406 means that the module can't be turned into JavaScript. A 503 means that a realm
        # can't be read now. Any other error is caused by the module itself.
        self.status = status if status in (406, 503) else 422
        self.title = str(error.get("title", self.title))


class UnknownDefinition(RealmError):
    """{module} exports no card named {name}; it exports {exports}"""

    status = 404
    title = "Not Found"

    def __init__(self, module: str, name: str, exports: Sequence[str]) -> None:
        listed = ", ".join(exports) or "none"
        super().__init__(module=module, name=name, exports=listed, meta={"exports": list(exports)})


class BadParameter(RealmError):
    """{parameter}: {why}"""


class NotPublishable(RealmError):
    """Realm {url} is not publishable"""

    status = 422
    title = "Unprocessable Entity"


class NotPublished(RealmError):
    """Published realm {url} not found"""

    status = 422
    title = "Unprocessable Entity"


class Unprocessable(RealmError):
    """{what}"""

    status = 422
    title = "Unprocessable Entity"


class RangeNotSatisfiable(RealmError):
    """The content has {size} bytes; expected a range that begins within the content"""

    status = 416
    title = "Range Not Satisfiable"


class More(RealmError):
    """{count} more problems are not listed"""


class Problems:
    """Collects the problems of a request. Keeps the first hundred problems, and only counts the
    others. `least` is the problem with the lowest status."""

    LISTED = 100

    def __init__(self) -> None:
        self.listed: list[RealmError] = []
        self.count = 0
        self.least: RealmError | None = None

    def add(self, problem: RealmError) -> None:
        """Adds a problem."""
        self.count += 1
        if len(self.listed) < self.LISTED:
            self.listed.append(problem)
        if self.least is None or problem.status < self.least.status:
            self.least = problem

    def raise_any(self) -> None:
        """Raises Several if a problem has been added."""
        if self.least is not None:
            raise Several(self, self.least)


class Several(RealmError):
    """{count} problems: {first}"""

    def __init__(self, problems: Problems, least: RealmError) -> None:
        super().__init__(count=problems.count, first=problems.listed[0])
        self.status, self.title = least.status, least.title
        self.problems = list(problems.listed)
        if problems.count > len(problems.listed):
            more = More(count=problems.count - len(problems.listed))
            more.status, more.title = self.status, self.title
            self.problems.append(more)


class Busy(RealmError):
    """{what}; try again"""

    status = 503
    title = "Service Unavailable"
