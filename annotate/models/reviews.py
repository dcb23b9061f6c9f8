"""Reviews: verdicts on what was written, with comments at its turns."""

from django.conf import settings
from django.db import models


class Review(models.Model):
    """What a reviewer said of one finished conversation."""

    class Verdict(models.TextChoices):
        APPROVED = "approved", "Approved: it counts"
        RETURNED = "returned", "Returned: it goes back to its trainer first"

    conversation = models.ForeignKey("annotate.Conversation", models.CASCADE, related_name="reviews")
    assignment = models.OneToOneField("annotate.Assignment", models.PROTECT, related_name="review")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=8, choices=Verdict)
    note = models.TextField(blank=True, help_text="A word on the whole.")
    current = models.BooleanField(
        default=True, help_text="Whether it is the one that counts; one that came in too late is kept beside it."
    )
    edit = models.OneToOneField(
        "annotate.Conversation",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="made_by_review",
        help_text="The conversation as the reviewer edited it, which stands in its place.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["conversation"], condition=models.Q(current=True), name="review_one_current_a_conversation"
            ),
            models.CheckConstraint(
                condition=models.Q(edit__isnull=True) | models.Q(verdict="approved"), name="review_edit_is_approved"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} conversation {self.conversation_id}"


class ReviewComment(models.Model):
    """A comment anchored to one turn."""

    review = models.ForeignKey(Review, models.CASCADE, related_name="comments")
    position = models.PositiveIntegerField(help_text="The message it is about, counted as in its conversation.")
    text = models.TextField()

    class Meta:
        ordering = ["review", "position"]
        constraints = [
            models.UniqueConstraint(fields=["review", "position"], name="review_comment_once_a_turn"),
            models.CheckConstraint(condition=~models.Q(text=""), name="review_comment_not_empty"),
        ]

    def __str__(self) -> str:
        return f"comment on turn {self.position}"
