"""Forms of the admin site as a browser would send them."""

from django.http import HttpResponse


def filled(page: HttpResponse, **changes: object) -> dict[str, object]:
    """What an opened page would send when it is saved, with some fields changed. Line ends are a browser's."""
    forms = [page.context["adminform"].form]
    for inline in page.context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    sent = {}
    for form in forms:
        for field in form:
            value = field.value()
            if value is None or value is False or getattr(field.field.widget, "read_only", False):
                continue
            # Text is as the page has it already; JSON would be put in quotes once more.
            prepared = value if isinstance(value, str) else field.field.prepare_value(value)
            sent[field.html_name] = prepared.replace("\n", "\r\n") if isinstance(prepared, str) else prepared
    return {name: value for name, value in (sent | changes).items() if value is not None}
