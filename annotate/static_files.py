"""Style sheets and scripts under names that carry their hash, compressed when they are collected."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):
    """Also renames what scripts import, so that a module and its imports are always of one release."""

    support_js_module_import_aggregation = True
