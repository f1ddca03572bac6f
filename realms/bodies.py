"""The JSON bodies of requests, and what is said of one that is wrong."""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from realms.errors import Malformed

M = TypeVar("M", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class RealmAttributes(_Body):
    """What a new realm is called and where it goes below its owner."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=200)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    backgroundURL: str | None = None
    iconURL: str | None = None


class _CreateData(_Body):
    type: Literal["realm"]
    attributes: RealmAttributes


class CreateRealm(_Body):
    """The body of `_create-realm`."""

    data: _CreateData


class PublishRealm(_Body):
    """The body of `_publish-realm`."""

    sourceRealmURL: str
    publishedRealmURL: str


class UnpublishRealm(_Body):
    """The body of `_unpublish-realm`."""

    publishedRealmURL: str


class _DeleteData(_Body):
    type: Literal["realm"]
    id: str


class DeleteRealm(_Body):
    """The body of `_delete-realm`."""

    data: _DeleteData


class ServerSession(_Body):
    """The body of `_server-session`."""

    username: str
    password: str
    lifetime: Literal["standard", "extended"] = "standard"


def parse(model: type[M], body: bytes) -> M:
    """A body as its model. Raises Malformed, which names every field that is wrong, and how."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(what=f"Request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number")
        raise Malformed(what=f"Request body must be a JSON object, not {kind}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise Malformed(what="; ".join(faults)) from error
