"""Imports: asked for, watched and read; the files themselves are read by `annotate.datasets`."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePath
from typing import BinaryIO
from uuid import uuid4

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from annotate import jobs
from annotate.errors import Conflict, Invalid, Unavailable
from annotate.models import Import, Project, User

logger = logging.getLogger(__name__)

UPLOADS = "uploads"
"""The folder of the storage in which uploads wait."""

KEPT = timedelta(days=7)
"""How long an upload stays whose import was stopped or failed, so that it can be begun again."""

SOURCE_CHARACTERS = Import._meta.get_field("source").max_length


def ask(
    *,
    project: Project,
    file: File,
    format: str,
    options: dict,
    source: str,
    on_error: str = "stop",
    created_by: User | None = None,
) -> Import:
    """Keep an upload in the storage and have a worker bring it in. Raises Invalid for a source without a name, and
    Unavailable where the storage does not take the file.

    Format and options are taken as they are; `datasets.incoming.bringing.prepare` checks them first.
    """
    given = {"project": project, "format": format, "options": options | {"on_error": on_error}}
    # What is left of a name says how it is compressed.
    name = re.sub(r"[^\w.-]+", "_", PurePath(file.name or "").name)[-80:] or "upload"
    place = f"{UPLOADS}/{uuid4()}/{name}"
    try:
        stored = default_storage.save(place, file)
    except BaseException as error:
        # A disk that is full would keep what there was room for, and no record would tell of it.
        _delete(place)
        if not isinstance(error, Exception):
            raise
        logger.exception("The upload %s was not kept", place)
        raise Unavailable(f"The file cannot be kept: {_said(error)}. Nothing was imported.") from error
    try:
        with transaction.atomic():
            job = make(**given, source=source, created_by=created_by, background=True, file=stored)
            jobs.ring(job)
    except BaseException:
        _delete(stored)
        raise
    return job


def make(*, project: Project, source: str, **fields) -> Import:
    """The record of an import that is not begun. Raises Invalid for a source without a name."""
    source = source.replace("\x00", "").strip()
    if not source or len(source) > SOURCE_CHARACTERS:
        raise Invalid(f"The source needs a name of at most {SOURCE_CHARACTERS} characters; this has {len(source):,}.")
    return Import.objects.create(project=project, source=source, **fields)


def go_on(job: Import) -> None:
    """Have a worker begin an import again that failed or was stopped. Raises Conflict, also where its file is gone."""
    if job.state in Import.ENDED and not job.file and not job.report.get("taken"):
        raise Conflict("Its file is not kept any more; bring it in again.")
    jobs.go_on_in_worker(job)


@contextmanager
def opened(job: Import) -> Iterator[BinaryIO]:
    """The upload of an import. Raises Invalid where it is gone."""
    try:
        file = default_storage.open(job.file) if job.file else None
    except FileNotFoundError:
        file = None
    if file is None:
        raise Invalid("Its file is not kept any more; bring it in again.")
    with file:
        yield file


def keep_report(job: Import, *, token, report: dict) -> None:
    """Keep what came of a file with its import. Raises jobs.Lost where the job is not held any more."""
    kept = {"report": report, "format": report["format"] or job.format}
    if not Import.objects.filter(pk=job.pk, token=token).update(**kept):
        raise jobs.Lost("Its lease ran out, and it was begun again elsewhere.")
    job.report, job.format = kept["report"], kept["format"]


def forget_unless_taken(job: Import) -> None:
    """Remove the record of an import of which nothing came in."""
    with transaction.atomic():
        kept = Import.objects.select_for_update().filter(pk=job.pk).first()
        if kept is not None and not kept.report.get("taken"):
            kept.delete()


def settle_lost(*, project: Project | None = None) -> int:
    """Remove imports of commands that were killed before anything came in; end those that came in. How many."""
    lost = Import.objects.filter(background=False, state=Import.State.RUNNING, lease_until__lt=timezone.now())
    settled = 0
    for job in lost.filter(project=project) if project else lost:
        with transaction.atomic():
            # Whoever still holds it, late, writes its report under this lock and not after it.
            held = lost.select_for_update(skip_locked=True).filter(pk=job.pk).first()
            if held is None:
                continue
            settled += 1
            if held.report.get("taken"):
                jobs.end(held, token=held.token, state=Import.State.DONE)
            else:
                held.delete()
    return settled


def forget_upload(job: Import) -> None:
    """Delete the upload of an import that needs it no more. A storage that is away leaves it for `forget_uploads`."""
    if job.file and _delete(job.file):
        Import.objects.filter(pk=job.pk).update(file="")
        job.file = ""


def forget_uploads() -> int:
    """Delete uploads whose import is done, or failed or was stopped some days ago. How many."""
    ended = Import.objects.exclude(file="").filter(state=Import.State.DONE)
    old = Import.objects.exclude(file="").filter(
        state__in=[Import.State.FAILED, Import.State.STOPPED], ended_at__lt=timezone.now() - KEPT
    )
    jobs_with_files = [*ended[:100], *old[:100]]
    for job in jobs_with_files:
        forget_upload(job)
    return len(jobs_with_files)


def _delete(name: str) -> bool:
    try:
        default_storage.delete(name)
        # A folder of its own; a storage without folders knows nothing of it.
        default_storage.delete(str(PurePath(name).parent))
    except Exception as error:
        logger.warning("The upload %s was not deleted: %s", name, error)
        return False
    return True


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
