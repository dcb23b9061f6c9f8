"""People: their roles, their projects, and links that let them in."""

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from annotate import people
from annotate.admin.reading import CappedPaginator
from annotate.models import Membership, Role, User

LINKS_AT_ONCE = 100


class RolesField(forms.MultipleChoiceField):
    """Roles as boxes to tick; each is a group."""

    def __init__(self):
        super().__init__(choices=Role.choices, required=False, widget=forms.CheckboxSelectMultiple)


class NewPersonForm(AdminUserCreationForm):
    """Somebody new. Without a password, which is the rule here, a sign-in link lets them in."""

    roles = RolesField()

    class Meta:
        model = User
        fields = ("email", "name")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        password = self.fields["usable_password"]
        password.initial, password.help_text = "false", "Disabled: only a sign-in link lets them in."

    def clean_email(self) -> str:
        return self.cleaned_data["email"].lower()


class PersonForm(UserChangeForm):
    """Somebody who is there already."""

    roles = RolesField()

    class Meta:
        model = User
        fields = ("email", "name", "is_active", "is_superuser")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial["roles"] = list(self.instance.groups.values_list("name", flat=True))

    def clean_email(self) -> str:
        return self.cleaned_data["email"].lower()


class ProjectsInline(admin.TabularInline):
    """The projects that a person works on."""

    model = Membership
    extra = 0
    autocomplete_fields = ("project",)
    fields = ("project", "created_at")
    readonly_fields = ("created_at",)
    verbose_name = "project"
    verbose_name_plural = "projects"

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("user", "project").order_by("id")

    def has_change_permission(self, request, obj=None) -> bool:
        return False


@admin.register(User)
class PersonAdmin(UserAdmin):
    """Nobody is deleted, because their work keeps their name; who may no longer come in is made inactive."""

    form = PersonForm
    add_form = NewPersonForm
    change_form_template = "admin/annotate/user/change_form.html"
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_display = ("email", "name", "role_names", "is_active", "last_login")
    list_filter = ("groups", "is_active")
    search_fields = ("email", "name")
    ordering = ("email",)
    sortable_by = ("email",)
    list_per_page = 50
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined", "role_names")
    actions = ("make_links",)
    inlines = (ProjectsInline,)
    add_fieldsets = (
        (
            None,
            {"classes": ("wide",), "fields": ("email", "name", "roles", "usable_password", "password1", "password2")},
        ),
    )

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("groups")

    def get_fieldsets(self, request, obj=None):
        if obj is None:
            return self.add_fieldsets
        when = ("When", {"fields": ("last_login", "date_joined")})
        if not self.has_change_permission(request, obj):
            return [(None, {"fields": ("email", "name", "role_names", "is_active", "is_superuser")}), when]
        allowed = ("is_active", "is_superuser") if request.user.is_superuser else ("is_active",)
        return [
            (None, {"fields": ("email", "name", "password")}),
            ("What they may do", {"fields": ("roles", *allowed)}),
            when,
        ]

    def has_change_permission(self, request, obj=None) -> bool:
        """Who has every permission is out of reach for those who have not."""
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request, obj=None) -> bool:
        return False

    @admin.display(description="roles")
    def role_names(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all())

    def save_related(self, request, form, formsets, change) -> None:
        super().save_related(request, form, formsets, change)
        wanted, user = set(form.cleaned_data["roles"]), form.instance
        had = set(user.groups.values_list("name", flat=True))
        for role in sorted(wanted - had):
            people.give_role(user=user, role=role)
        for role in sorted(set(Role.values) & had - wanted):
            people.take_role(user=user, role=role)

    def get_urls(self):
        link = path("<int:user_id>/link/", self.admin_site.admin_view(self.make_link), name="annotate_user_link")
        return [link, *super().get_urls()]

    def make_link(self, request: HttpRequest, user_id: int) -> HttpResponse:
        """The button on a person's page."""
        if request.method != "POST":
            raise PermissionDenied
        return self._links(request, User.objects.filter(pk=user_id))

    @admin.action(description="Make sign-in links", permissions=["change"])
    def make_links(self, request: HttpRequest, users) -> HttpResponse | None:
        return self._links(request, users)

    def _links(self, request: HttpRequest, users) -> HttpResponse | None:
        """A page with the links: they are keys, and messages would be kept in a cookie."""
        chosen = list(users.filter(is_active=True).order_by("email")[:LINKS_AT_ONCE])
        if not all(self.has_change_permission(request, user) for user in chosen):
            raise PermissionDenied
        if not chosen:
            messages.error(request, "Nobody active was chosen.")
            return None
        for user in chosen:
            self.log_change(request, user, "Made a sign-in link.")
        context = {
            "title": "Sign-in links",
            "links": [(user, people.sign_in_link(user)) for user in chosen],
            "opts": self.opts,
        }
        return TemplateResponse(
            request, "admin/annotate/user/links.html", self.admin_site.each_context(request) | context
        )
