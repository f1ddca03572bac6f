"""Reads the environment variables, with their types and defaults, and reports invalid values.

No other module reads settings from the environment. docs/reference/settings.md describes the
variables.
"""

import socket
from pathlib import Path
from typing import Annotated, Literal

from django.core.exceptions import ImproperlyConfigured
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

BASE_DIR = Path(__file__).resolve().parent.parent
#: The folder of the TypeScript and npm files in an installed wheel. `script/wheel_hooks.py` adds
#: this folder to the wheel. A clone doesn't have this folder.
_PACKED = Path(__file__).resolve().with_name("typescript")
INSTALLED = _PACKED.is_dir()
#: This folder contains `card_library`, `reindex/deno`, `deno.json`, `deno.lock` and `node_modules`.
TYPESCRIPT_DIR = _PACKED if INSTALLED else BASE_DIR

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
#: A comma-separated list, as one text. The code that uses the variable splits the text.
Listed = Annotated[str, NoDecode]

MIB = 1024 * 1024
#: The maximum of REALM_EDGE_SECONDS, the time for which a shared cache such as a CDN may keep an
#: answer. A cache that isn't told to purge an outdated answer serves it for up to this time.
MAX_EDGE_SECONDS = 3600


class Environment(BaseSettings):
    """The values of the environment variables of the server. An empty variable counts as unset."""

    model_config = SettingsConfigDict(case_sensitive=True, env_ignore_empty=True, extra="ignore")

    # An installed wheel keeps its data in the current folder, because the package manager owns the
    # folder of the packages.
    REALM_DATA_DIR: Path = Path(".data") if INSTALLED else BASE_DIR / ".data"
    DATABASE_URL: str = ""
    LISTEN_DATABASE_URL: str = ""
    CELERY_BROKER_URL: str = ""
    REALM_QUEUE_PREFIX: str = ""
    REALM_QUEUE_KIND: Literal["classic", "quorum"] = "classic"
    REALM_BLOB_STORAGE: str = ""
    REALM_TEST_DATABASE: str = "test_realms"
    REALM_LOG_LEVEL: str = "INFO"
    REALM_LOG_FORMAT: Literal["text", "json"] = "text"

    REALM_PUBLIC_ORIGIN: str = "http://localhost:4201"
    REALM_ADMIN_ORIGIN: str = ""
    REALM_USER_HOST: str = ""
    REALM_PUBLISH_DOMAINS: Listed = ""
    REALM_TRUSTED_PROXIES: Listed = ""
    REALM_SECRET_SEED: str = ""
    REALM_METRICS_TOKEN: str = ""
    REALM_TRACES_ENDPOINT: str = ""

    REALM_REPLICA: str = Field(default_factory=socket.gethostname)
    REALM_REPLICA_ADDRESS: str = "http://127.0.0.1:4201"
    REALM_BOARD: Path | None = None
    REALM_STALENESS_BOUND: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2
    REALM_EDGE_SECONDS: Annotated[int, Field(ge=0, le=MAX_EDGE_SECONDS)] = 0
    REALM_EDGE_PURGE: Listed = ""
    REALM_EDGE_PURGER: str = "realms.housekeeping.purging.ban"
    REALM_LEGACY_CHANNELS: bool = False

    CARD_SIZE_LIMIT_BYTES: Size = 512 * 1024
    FILE_SIZE_LIMIT_BYTES: Size = 5 * MIB
    ATOMIC_SIZE_LIMIT_BYTES: Size = 32 * MIB
    REALM_RETENTION_SECONDS: Seconds = 7 * 24 * 3600
    REALM_CACHE_BYTES: Size = 64 * MIB

    REALM_THREADS: Count = 4
    REALM_BODY_SECONDS: Seconds = 10
    REALM_BODY_BYTES: Size = 64 * MIB
    REALM_SEND_SECONDS: Seconds = 20
    REALM_ANSWER_BYTES: Size = 64 * MIB
    REALM_LISTING_BYTES: Size = 16 * MIB
    REALM_MAX_FILES: Size = 200_000
    REALM_MAX_BYTES: Size = 10 * 1024 * MIB

    REALM_RENDER_SECONDS: Seconds = 5
    REALM_LOST_SECONDS: Seconds = 30
    REALM_RENDER_MEMORY_MB: Count = 256
    REALM_RENDER_REPLICAS: Listed = ""
    REALM_PRERENDERER_SECONDS: Seconds = 60
    REALM_BATCH_CARDS: Count = 1000
    REALM_INDEX_SOURCES: bool = True
    REALM_SWEEP_SECONDS: Seconds = 5
    REALM_BATCH_LEASE_SECONDS: Seconds = 60

    @field_validator("REALM_BATCH_LEASE_SECONDS")
    @classmethod
    def _is_longer_than_one_card_takes(cls, seconds: float, others: ValidationInfo) -> float:
        """Raises ValueError if a worker's lease of a batch can expire while the worker renders one
        card of the batch. The worker renews the lease only between two cards, and at most twice a
        second. If rendering a card took longer than the lease, no worker could ever finish the
        batch."""
        limit = others.data.get("REALM_RENDER_SECONDS")
        if limit is not None and seconds < limit + 1:
            raise ValueError(
                f"must be at least 1 more than REALM_RENDER_SECONDS, which is {limit:g}"
            )
        return seconds


def read_environment() -> Environment:
    """Reads and validates the environment variables. Raises ImproperlyConfigured with a list of the
    invalid variables and the reasons."""
    try:
        return Environment()
    except ValidationError as error:
        wrong = [f"{each['loc'][0]} is {each['input']!r}: {each['msg']}" for each in error.errors()]
        raise ImproperlyConfigured("; ".join(wrong)) from None
