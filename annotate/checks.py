"""Settings that are each right and together wrong."""

import importlib.util

from django.conf import settings
from django.core.checks import Error, Tags, Warning, register


@register(Tags.database)
def pool_holds_every_thread(databases=None, **_) -> list[Error]:
    """A thread without a connection waits for another thread's; under load that shows as time-outs."""
    if settings.DATABASE_POOL_SIZE >= settings.WEB_THREADS:
        return []
    return [Error("DATABASE_POOL_SIZE is less than WEB_THREADS.", id="bothsides.E001")]


@register(Tags.compatibility)
def sweep_is_quicker_than_leases(**_) -> list[Warning]:
    """What a dead worker held is found by the sweep; a slow one doubles the wait."""
    if settings.SWEEP_SECONDS <= settings.SAMPLING_LEASE_SECONDS:
        return []
    return [Warning("SWEEP_SECONDS is more than SAMPLING_LEASE_SECONDS.", id="bothsides.W001")]


@register(Tags.files)
def bucket_has_its_package(**_) -> list[Error]:
    """The package that talks to S3 is an extra."""
    in_bucket = settings.STORAGES["default"]["BACKEND"].startswith("storages.")
    if not in_bucket or importlib.util.find_spec("storages"):
        return []
    return [Error("S3_BUCKET needs the extra s3: pip install '.[s3]' in the folder of Bothsides.", id="bothsides.E002")]


@register(Tags.security, deploy=True)
def production_uses_https(**_) -> list[Warning]:
    """Over plain http anyone on the way can take a cookie or a sign-in link."""
    if settings.EMBEDDED or settings.SITE_URL.startswith("https://"):
        return []
    return [Warning("SITE_URL is not https.", id="bothsides.W002")]
