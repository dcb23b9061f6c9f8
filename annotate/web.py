"""How the web server runs: gunicorn reads this as its configuration (`gunicorn -c python:annotate.web`)."""

import os
import socket
import struct

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotate.settings")

from django.conf import settings

CLIENT_SECONDS = 60
"""How long a client may neither send what it began nor take what is sent to it; its thread then goes on to others."""

wsgi_app = "annotate.wsgi:application"
bind = f"{settings.BIND}:{settings.PORT}"
workers = settings.WEB_PROCESSES
# A thread serves a request or a stream; waiting connections cost none.
worker_class = "gthread"
threads = settings.WEB_THREADS
# Streams end only when their reader leaves, so a stop does not wait long for them; readers come back by themselves.
graceful_timeout = 3
# Of whatever the proxy said about the client, Django decides by BEHIND_PROXY what to believe.
forwarded_allow_ips = "*"
loglevel = "info" if settings.LOG_LEVEL == "DEBUG" else "warning"


def when_ready(server) -> None:
    """Each connection has the patience of the socket that it came to; gunicorn itself waits for ever."""
    patience = struct.pack("ll", CLIENT_SECONDS, 0)
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
