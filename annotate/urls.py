"""Every address of the site."""

from django.contrib import admin
from django.urls import include, path

from annotate import health

urlpatterns = [
    path("livez", health.livez, name="livez"),
    path("healthz", health.healthz, name="healthz"),
    path("api/", include("annotate.api.urls")),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("", include("trainers_ui.urls")),
]
