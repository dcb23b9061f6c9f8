"""Reviews: read here."""

from django.contrib import admin
from django.db.models import Count

from annotate.admin.reading import ReadOnly, ReadOnlyInline, linked
from annotate.models import Review, ReviewComment


class CommentsInline(ReadOnlyInline):
    """Comments at turns, in the order of the conversation."""

    model = ReviewComment
    fields = ("position", "text")
    ordering = ("position",)


@admin.register(Review)
class ReviewAdmin(ReadOnly):
    """What reviewers found of what was written."""

    list_display = (
        "id", "conversation_id", "verdict_word", "reviewer", "current", "comment_count", "edited_into", "created_at",
    )  # fmt: skip
    list_filter = ("verdict", "current", "conversation__project")
    list_select_related = ("reviewer", "edit")
    search_fields = ("=id", "=conversation__id", "reviewer__email")
    search_help_text = "Number of the review or of its conversation, or e-mail address of its reviewer"
    ordering = ("-id",)
    exclude = ("edit",)
    readonly_fields = ("edited_into",)
    inlines = (CommentsInline,)

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(counted=Count("comments"))

    @admin.display(description="verdict")
    def verdict_word(self, review: Review) -> str:
        return review.verdict

    @admin.display(description="comments")
    def comment_count(self, review: Review) -> int:
        return review.counted

    @admin.display(description="edited into")
    def edited_into(self, review: Review) -> str:
        return linked(review.edit)
