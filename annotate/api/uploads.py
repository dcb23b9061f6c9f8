"""Files that are sent to the API: written to disk as they come, and not beyond a size."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler

from annotate.errors import Unavailable

logger = logging.getLogger(__name__)


class ToDisk(FileUploadHandler):
    """Keeps a file under the home folder, because a folder for temporary files may be memory. It has no name there,
    so that nothing is left where the server dies."""

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):  # noqa: N803 (Django's name)
        """Refuse what is too large before any of it is read."""
        if content_length > settings.UPLOAD_MEGABYTES * 2**20:
            raise RequestDataTooBig("The upload is too large.")

    def new_file(self, *args, **kwargs) -> None:
        """A file begins."""
        super().new_file(*args, **kwargs)
        folder = settings.BOTHSIDES_HOME / "tmp"
        with self._room():
            folder.mkdir(parents=True, exist_ok=True)
            # Closed by Django with the request, or below.
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.file = UploadedFile(file, self.file_name, self.content_type, 0, self.charset)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """A piece of it has come; no other handler needs it."""
        with self._room():
            self.file.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile:
        """All of it has come."""
        with self._room():
            self.file.seek(0)
        self.file.size = file_size
        return self.file

    def upload_interrupted(self) -> None:
        """The rest will not come."""
        if self.file is not None:
            self.file.close()

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Raises Unavailable where the disk takes no more; what it took is given back, or it would stay full."""
        try:
            yield
        except OSError as error:
            if self.file is not None:
                with suppress(OSError):
                    self.file.close()
            logger.exception("An upload was not kept")
            reason = error.strerror or type(error).__name__
            raise Unavailable(f"The file cannot be kept: {reason}. Nothing was imported.") from error
