"""All settings, read from the environment through env.py; importing this starts and writes nothing.

With neither DATABASE_URL nor REDIS_URL set the site runs embedded: `manage.py up` starts both servers and
every other process finds them through the home folder. With both set it runs in production mode.
"""

import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from csp.constants import NONE, SELF
from django.core.management.utils import get_random_secret_key
from psycopg.conninfo import conninfo_to_dict
from redis.backoff import NoBackoff
from redis.connection import parse_url as parse_redis_url
from redis.retry import Retry

from annotate import embedded, env

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Where everything lies ------------------------------------------------------------------------

BOTHSIDES_HOME = env.folder(
    "BOTHSIDES_HOME",
    BASE_DIR / "var",
    "Folder of everything that is kept: the embedded servers' data, models, exports, logs; var/ beside manage.py.",
)
_database_url = env.secret("DATABASE_URL", "PostgreSQL to use, as postgresql://user:password@host:port/name.")
_redis_url = env.secret("REDIS_URL", "Redis or Valkey to use, as redis://:password@host:port/0.")
if bool(_database_url) != bool(_redis_url):
    _missing = "REDIS_URL" if _database_url else "DATABASE_URL"
    raise env.BadSetting(f"{_missing} is missing: set both DATABASE_URL and REDIS_URL, or neither")

EMBEDDED = not _database_url
"""True when `manage.py up` brings PostgreSQL and Valkey itself."""

# --- The site -------------------------------------------------------------------------------------

DEBUG = env.flag("DEBUG", False, "Show errors with their code; never in production.")
PORT = env.integer("PORT", 8000, "Port that the web server listens on.", least=1, most=65535)
BIND = env.text(
    "BIND",
    "127.0.0.1",
    "Address that the web server listens on; 0.0.0.0 in a container.",
)
SITE_URL = env.text(
    "SITE_URL",
    f"http://127.0.0.1:{PORT}",
    "How browsers reach the site; links in invitations start with it. With https, cookies are secure.",
).rstrip("/")
_site = urlsplit(SITE_URL)
if _site.scheme not in ("http", "https") or not _site.hostname:
    raise env.BadSetting(f"SITE_URL must start with http:// or https:// and name a host, not {SITE_URL!r}")
_https = _site.scheme == "https"

# A probe on the machine itself asks for the loopback address, whatever the site is called.
ALLOWED_HOSTS = [
    *dict.fromkeys([_site.hostname, "127.0.0.1", "localhost", "[::1]"]),
    *env.words("ALLOWED_HOSTS", [], "Further host names under which the site may be asked for."),
]
CSRF_TRUSTED_ORIGINS = [SITE_URL]

SECRET_KEY = env.secret("SECRET_KEY", "Signs cookies and sign-in links; production needs one, embedded makes its own.")
if not SECRET_KEY:
    if not EMBEDDED:
        raise env.BadSetting("SECRET_KEY is missing: production needs one, at least 50 random characters")
    # `up` writes the file; what runs without it (help, makemigrations) signs nothing that is kept.
    SECRET_KEY = embedded.stored_secret_key(BOTHSIDES_HOME) or get_random_secret_key()
SECRET_KEY_FALLBACKS = env.words(
    "SECRET_KEY_FALLBACKS", [], "Earlier secret keys that still verify, while a key is being replaced."
)

WEB_PROCESSES = env.integer("WEB_PROCESSES", 2, "Processes of the web server.", least=1)
WEB_THREADS = env.integer(
    "WEB_THREADS", 64, "Threads of each web process; streams of replies take at most half of them.", least=2
)
STREAM_LIMIT = WEB_THREADS // 2
"""Streams of replies that one web process holds open at once."""

# --- Applications ---------------------------------------------------------------------------------

INSTALLED_APPS = [
    "annotate",
    "trainers_ui",
    "worker",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "csp",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "rest_framework.authtoken",
    "sesame",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
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
            ]
        },
    }
]

ROOT_URLCONF = "annotate.urls"
WSGI_APPLICATION = "annotate.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = "annotate.formats"
USE_TZ = True
TIME_ZONE = "UTC"

# --- Database, broker, cache ----------------------------------------------------------------------

DATABASE_POOL_SIZE = env.integer(
    "DATABASE_POOL_SIZE",
    WEB_THREADS + 4,
    "Database connections of each process at most; no fewer than its threads.",
    least=1,
)


# A server that vanished, as at a failover, says nothing: a thread would wait a quarter of an hour for its answer.
_NOTICE_LOSS = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def _database(url: str) -> dict:
    """Django's entry for a libpq URL; whatever Django has no name for (sslmode and the like) is an option."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        # The parser's own message may quote the password.
        raise env.BadSetting("DATABASE_URL must look like postgresql://user:password@host/name") from None
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    entry = {name: parts.pop(part, "") for name, part in names.items()}
    if not entry["NAME"]:
        raise env.BadSetting("DATABASE_URL names no database")
    pool = {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 5}
    # The check costs one round trip and spares every page an error after the database was restarted.
    return {
        "ENGINE": "django.db.backends.postgresql",
        **entry,
        "CONN_HEALTH_CHECKS": True,
        # Outside a transaction such a cursor is lost where a pooler has the next statement on another connection.
        "DISABLE_SERVER_SIDE_CURSORS": True,
        "OPTIONS": {**_NOTICE_LOSS, **parts, "pool": pool},
    }


def _redis(url: str) -> str:
    try:
        parse_redis_url(url)
        # Celery knows no unix:// addresses.
        if urlsplit(url).scheme not in ("redis", "rediss"):
            raise ValueError
    except ValueError:
        raise env.BadSetting("REDIS_URL must look like redis://:password@host:port/0") from None
    return url


_addresses = embedded.addresses(BOTHSIDES_HOME) if EMBEDDED else None
if EMBEDDED and _addresses:
    _database_url, _redis_url = _addresses["DATABASE_URL"], _addresses["REDIS_URL"]

if _database_url:
    DATABASES = {"default": _database(_database_url)}
    REDIS_URL = _redis(_redis_url)
else:
    # Nothing runs yet. Commands that need no database work; manage.py says so for the others.
    DATABASES = {"default": {"ENGINE": "django.db.backends.dummy"}}
    REDIS_URL = "redis://127.0.0.1:1/0"

# By itself the library tries for many seconds; a page must not wait that long for what it can do without.
REDIS_OPTIONS = {"socket_timeout": 2, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 1)}

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": REDIS_OPTIONS,
        "KEY_PREFIX": "bothsides:cache",
    }
}

# --- Sampling and the queue -----------------------------------------------------------------------

ASSIGNMENT_LEASE_SECONDS = env.integer(
    "ASSIGNMENT_LEASE_SECONDS", 1800, "How long a trainer keeps a task without a sign of life.", least=1
)
# Ten years at most: before the year 1 there is no date, and the sweep would end at that.
ABANDON_AFTER_HOURS = env.integer(
    "ABANDON_AFTER_HOURS",
    24,
    "After how long an expired conversation that nobody came back to is given up.",
    least=1,
    most=87_600,
)
POOL_PATIENCE_HOURS = env.number(
    "POOL_PATIENCE_HOURS",
    24,
    "After how long a pool of comparisons that are not scored is ranked as if drawn at random.",
    most=87_600,
)
MESSAGE_CHARACTERS = env.integer(
    "MESSAGE_CHARACTERS", 50_000, "Characters that one message of a person may have.", least=1
)
SAMPLING_LEASE_SECONDS = env.integer(
    "SAMPLING_LEASE_SECONDS", 30, "How long a worker keeps a sampling job without a sign of life.", least=1
)
JOB_LEASE_SECONDS = env.integer(
    "JOB_LEASE_SECONDS",
    60,
    "How long an import or export is held without a sign of life before it can be begun again.",
    least=1,
)
JOB_ATTEMPTS = env.integer(
    "JOB_ATTEMPTS", 3, "How often an import or export whose worker died is begun before it has failed.", least=1
)
JOB_STOP_SECONDS = env.integer(
    "JOB_STOP_SECONDS", 20, "How long an import or export that is to stop may take before it is killed.", least=1
)
GENERATION_ATTEMPTS = env.integer(
    "GENERATION_ATTEMPTS", 3, "How often a sampling job is tried before it has failed.", least=1
)
SWEEP_SECONDS = env.number(
    "SWEEP_SECONDS", 5, "Pause between two sweeps, which end leases and ring for what waits.", least=0.1
)
STREAM_TTL_SECONDS = env.integer(
    "STREAM_TTL_SECONDS",
    600,
    "How long a reply's stream stays in Redis after its last event.",
    least=1,
)

# --- Worker ---------------------------------------------------------------------------------------

WORKER_POLICIES = env.words(
    "WORKER_POLICIES", [], "Names of the policies that this worker serves; empty means all active ones."
)
WORKERS = env.integer(
    "WORKERS", 0, "Worker processes that `manage.py up` starts; 0 is one for each GPU, and one on a machine without."
)
WORKER_CAPACITY = env.integer(
    "WORKER_CAPACITY", 64, "Sequences that this worker samples at once for each policy.", least=1
)
WORKER_BULK_SHARE = env.number(
    "WORKER_BULK_SHARE",
    0.75,
    "Share of the capacity that alternatives may take, 0 to 1.",
    most=1,
)
WORKER_JOBS = env.integer(
    "WORKER_JOBS", 1, "Imports and exports that this worker runs at once, each in a process of its own.", least=1
)
WORKER_DEVICE = env.text("WORKER_DEVICE", "auto", "Torch device of this worker: auto, cpu, cuda, cuda:1 or mps.")
if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", WORKER_DEVICE):
    raise env.BadSetting(f"WORKER_DEVICE must be auto, cpu, cuda, cuda: with a number, or mps, not {WORKER_DEVICE!r}")
WORKER_DTYPE = env.text(
    "WORKER_DTYPE",
    "auto",
    "Precision that this worker computes in: auto, float32, bfloat16 or float16. auto is the model's own, and on a CPU "
    "bfloat16 where it has it in hardware, else float32.",
    choices=("auto", "float32", "bfloat16", "float16"),
)
WORKER_ATTENTION = env.text(
    "WORKER_ATTENTION",
    "auto",
    "How this worker computes attention: auto, sdpa (torch's own, fast) or eager (plain). auto is sdpa where the model "
    "has it.",
    choices=("auto", "sdpa", "eager"),
)
WORKER_MEMORY_GIGABYTES = env.number(
    "WORKER_MEMORY_GIGABYTES",
    0,
    "What the models of this worker process may take together; 0 is nine tenths of what the GPU has free, else half of "
    "the machine's memory. Models that do not fit beside each other take turns.",
)
WORKER_SWAP_SECONDS = env.number(
    "WORKER_SWAP_SECONDS",
    60,
    "How long a busy model keeps its place in memory while others wait for it; a quarter of that where people wait.",
    least=0.1,
)
WORKER_POLL_SECONDS = env.number(
    "WORKER_POLL_SECONDS", 2, "How often a worker looks for sampling jobs that no bell announced.", least=0.05
)
WORKER_DRAIN_SECONDS = env.number(
    "WORKER_DRAIN_SECONDS", 5, "How long a worker that is to end goes on with what it holds; then it gives it back."
)
WORKER_HEARTBEAT_SECONDS = env.number(
    "WORKER_HEARTBEAT_SECONDS",
    5,
    "How often a worker shows that it lives; three times that without a sign and it is gone.",
    least=0.1,
)
SERVER_CONNECT_SECONDS = env.number(
    "SERVER_CONNECT_SECONDS", 10, "How long the server of a policy may take to be connected to.", least=0.1
)
SERVER_FIRST_TOKEN_SECONDS = env.number(
    "SERVER_FIRST_TOKEN_SECONDS",
    120,
    "How long the server of a policy may take for the first word of a text.",
    least=0.1,
)
SERVER_NEXT_TOKEN_SECONDS = env.number(
    "SERVER_NEXT_TOKEN_SECONDS", 30, "How long the server of a policy may be silent in the middle of a text.", least=0.1
)
SERVER_RETRIES = env.integer(
    "SERVER_RETRIES", 2, "How often the server of a policy is asked again for a text of which no word came."
)
SERVER_PAUSE_SECONDS = env.number(
    "SERVER_PAUSE_SECONDS",
    2,
    "After how long a server that failed several times in a row is tried again; then ever more, up to 60.",
    least=0.05,
)

# --- Files ----------------------------------------------------------------------------------------

_bucket = env.text("S3_BUCKET", "", "S3 bucket for exports instead of the home folder; needs the extra `s3`.")
_s3_endpoint = env.text("S3_ENDPOINT_URL", "", "S3 service other than Amazon's; credentials are boto3's own variables.")
_exports_in_folder = {
    "BACKEND": "django.core.files.storage.FileSystemStorage",
    "OPTIONS": {"location": BOTHSIDES_HOME / "exports"},
}
_exports_in_bucket = {
    "BACKEND": "storages.backends.s3.S3Storage",
    "OPTIONS": {"bucket_name": _bucket, "endpoint_url": _s3_endpoint or None, "file_overwrite": False},
}
UPLOAD_MEGABYTES = env.integer(
    "UPLOAD_MEGABYTES", 1024, "Largest file of conversations that may be sent to the REST API.", least=1
)
STORAGES = {
    "default": _exports_in_bucket if _bucket else _exports_in_folder,
    "staticfiles": {"BACKEND": "annotate.static_files.Storage"},
}
STATIC_URL = "static/"
STATIC_ROOT = env.folder(
    "STATIC_ROOT",
    BOTHSIDES_HOME / "static",
    "Where collectstatic puts style sheets and scripts; static/ in BOTHSIDES_HOME.",
)

# --- Signing in -----------------------------------------------------------------------------------

AUTH_USER_MODEL = "annotate.User"
AUTHENTICATION_BACKENDS = [
    "allauth.account.auth_backends.AuthenticationBackend",
    "sesame.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "annotate.sign_in.Adapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"

SESAME_MAX_AGE = timedelta(days=7)
# The demo's links are printed once and tried from several browsers; an invitation works once.
SESAME_ONE_TIME = not EMBEDDED

# --- Mail -----------------------------------------------------------------------------------------

EMAIL_HOST = env.text("EMAIL_HOST", "", "Mail server for password resets; without one they go to standard output.")
EMAIL_PORT = env.integer("EMAIL_PORT", 587, "Port of the mail server.", least=1, most=65535)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "", "User name at the mail server.")
EMAIL_HOST_PASSWORD = env.secret("EMAIL_HOST_PASSWORD", "Password at the mail server.")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", True, "Talk to the mail server through STARTTLS.")
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", f"bothsides@{_site.hostname}", "Sender of the site's mails.")
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'console'}.EmailBackend"

# --- Security -------------------------------------------------------------------------------------

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_AGE = int(timedelta(days=30).total_seconds())
SECURE_SSL_REDIRECT = _https
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^healthz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.integer(
    "HSTS_SECONDS", 0, "For how long browsers insist on https once they saw it; 0 does not ask them to."
)
# Other names under the same domain, and browsers' built-in lists, are not this site's to decide about.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if env.flag("BEHIND_PROXY", False, "A proxy ends TLS and sets X-Forwarded-Proto itself; believe that header."):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

# --- REST -----------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["annotate.api.parsing.Json"],
    "DEFAULT_THROTTLE_CLASSES": ["annotate.api.throttling.PerPerson"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "annotate.api.refusals.answer",
}
API_REQUESTS_PER_MINUTE = env.integer(
    "API_REQUESTS_PER_MINUTE", 1200, "REST requests that one person may make in a minute.", least=1
)
SPECTACULAR_SETTINGS = {
    "TITLE": "Bothsides",
    "DESCRIPTION": "Claim, save, skip and submit work, write with suggestions, review, and read what was made.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "validatorUrl": None},
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "annotate.api.docs.refusals_of_all",
    ],
    "ENUM_NAME_OVERRIDES": {
        "AssignmentState": "annotate.models.Assignment.State",
        "ComparisonState": "annotate.models.Comparison.State",
        "RankingState": ["submitted", "surplus"],
        "RequestState": "annotate.models.GenerationRequest.State",
        "JobState": "annotate.models.Job.State",
        "ConversationState": "annotate.models.Conversation.State",
        "ConversationKind": "annotate.models.Conversation.Kind",
        "ReviewState": "annotate.models.Conversation.ReviewState",
        "Verdict": "annotate.models.Review.Verdict",
        "Side": ["user", "assistant"],
        "Source": "annotate.models.Message.Source",
        "FinishReason": "annotate.models.Completion.FinishReason",
        "Kind": "annotate.models.Assignment.Kind",
        "Flag": "annotate.models.Flag",
        "ChatRole": "annotate.models.Message.ChatRole",
        "SkipReason": "annotate.models.SkipReason",
    },
}

# --- Figures ------------------------------------------------------------------------------------

METRICS_TOKEN = env.secret(
    "METRICS_TOKEN", "Bearer token with which Prometheus reads /metrics; empty lets only signed-in admins in."
)

# --- Logging --------------------------------------------------------------------------------------

LOG_LEVEL = env.text(
    "LOG_LEVEL", "INFO", "Least severity that is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # Django's own handlers write the same lines a second time, or mail them to nobody.
    "loggers": {
        "django": {"handlers": [], "level": LOG_LEVEL},
        "django.server": {"handlers": [], "propagate": True},
        # They write a line a request; at DEBUG what was asked, and of whom.
        **{name: {"level": "WARNING"} for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore")},
        # Of what it has no fast code for; trainers import it wherever it is installed.
        "bitsandbytes": {"level": "ERROR"},
    },
}
