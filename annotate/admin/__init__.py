"""The admin site: projects, people and policies are kept here; the record is read, and changed only by its verbs."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin

from annotate.admin import (
    assignments,
    comparisons,
    conversations,
    exports,
    generation,
    imports,
    iterations,
    passages,
    people,
    policies,
    projects,
    prompts,
    rankings,
    reviews,
    tokens,
    training,
)

__all__ = [
    "assignments",
    "comparisons",
    "conversations",
    "exports",
    "generation",
    "imports",
    "iterations",
    "passages",
    "people",
    "policies",
    "projects",
    "prompts",
    "rankings",
    "reviews",
    "tokens",
    "training",
]

admin.site.site_header = admin.site.site_title = "Bothsides"
admin.site.index_title = "Administration"
# One sign-in page for everybody, which slows down whoever guesses passwords.
admin.site.login = secure_admin_login(admin.site.login)
