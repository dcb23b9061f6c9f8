"""Every address of the site."""

from allauth.account.urls import urlpatterns as account_patterns
from django.contrib import admin
from django.urls import include, path

from annotate import health, metrics
from annotate.admin import rounds, serving

# Signing in and passwords. Not the pages on which people change their own address: an invitation finds people by it.
ACCOUNT_PAGES = {
    "account_login",
    "account_logout",
    "account_inactive",
    "account_signup",
    "account_reauthenticate",
    "account_change_password",
    "account_set_password",
    "account_reset_password",
    "account_reset_password_done",
    "account_reset_password_from_key",
    "account_reset_password_from_key_done",
}

urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("healthz", health.healthz, name="healthz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("api/", include("annotate.api.urls")),
    path("admin/serving/", serving.page, name="serving"),
    path("admin/serving/try-again/", serving.try_again, name="serving_try-again"),
    path("admin/rounds/", rounds.projects, name="rounds_projects"),
    path("admin/rounds/<slug:slug>/", rounds.page, name="rounds"),
    path("admin/", admin.site.urls),
    path("accounts/", include([page for page in account_patterns if page.name in ACCOUNT_PAGES])),
    path("", include("trainers_ui.urls")),
]
