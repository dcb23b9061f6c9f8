"""Style sheets and scripts under names that carry their hash, compressed when they are collected."""

import hashlib

from django.contrib.staticfiles.finders import get_finders
from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):
    """Also renames what our own scripts import, so that a module and its imports are always of one release.

    Not what others' scripts import: those name modules that a page is free not to have.
    """

    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        ("trainers_ui/*.js", CompressedManifestStaticFilesStorage._js_module_import_aggregation_patterns[1]),
    )


def fingerprint() -> str:
    """Changes whenever collecting again would bring something else."""
    found = hashlib.sha256()
    for finder in get_finders():
        for name, storage in finder.list(ignore_patterns=None):
            found.update(f"{name} {storage.size(name)} {storage.get_modified_time(name)}\n".encode())
    return found.hexdigest()
