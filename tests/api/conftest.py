"""Clients that hold a person's token."""

from collections.abc import Callable

import pytest
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from annotate.models import User


@pytest.fixture
def api() -> Callable[[User], APIClient]:
    """A client with the token of the person who is given."""

    def client_of(user: User) -> APIClient:
        token, _ = Token.objects.get_or_create(user=user)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {token.key}")
        client.default_format = "json"
        return client

    return client_of
