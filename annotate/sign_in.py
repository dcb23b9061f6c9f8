"""Who may have an account: only those who were invited."""

from allauth.account.adapter import DefaultAccountAdapter


class Adapter(DefaultAccountAdapter):
    """Closes sign-up; accounts come from `manage.py invite` and the admin site."""

    def is_open_for_signup(self, request) -> bool:
        return False
