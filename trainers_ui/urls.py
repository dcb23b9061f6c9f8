"""Addresses of the pages."""

from django.urls import path

from trainers_ui.views import chat, home, rank, review, review_task, sign_in, work, write

urlpatterns = [
    path("", home.home, name="home"),
    path("favicon.ico", home.icon, name="icon"),
    path("history/", home.history, name="history"),
    path("keys/", home.keys, name="keys"),
    path("account/", home.account, name="account"),
    path("sign-in/", sign_in.sign_in_link, name="sign_in_link"),
    path("projects/<slug:slug>/guidelines/", home.guidelines, name="guidelines"),
    path("projects/<slug:slug>/claim/", work.claim, name="claim"),
    path("projects/<slug:slug>/ahead/", work.ahead, name="ahead"),
    path("projects/<slug:slug>/leave/", work.leave, name="leave"),
    path("projects/<slug:slug>/chats/", review.list_conversations, name="review_conversations"),
    path("projects/<slug:slug>/imported/", review.list_imported, name="review_imported"),
    path("projects/<slug:slug>/written/", review.list_pieces, name="review_pieces"),
    path("projects/<slug:slug>/rankings/", review.list_comparisons, name="review_comparisons"),
    path("work/<int:pk>/", work.work, name="work"),
    path("work/<int:pk>/keep/", work.keep, name="keep"),
    path("work/<int:pk>/draft/", work.draft, name="draft"),
    path("work/<int:pk>/skip/", work.skip, name="skip"),
    path("work/<int:pk>/conversation/", chat.conversation, name="conversation"),
    path("work/<int:pk>/say/", chat.say, name="say"),
    path("work/<int:pk>/again/", chat.again, name="again"),
    path("work/<int:pk>/stop/", work.stop, name="stop"),
    path("work/<int:pk>/blank/", chat.blank, name="blank"),
    path("work/<int:pk>/finish/", work.finish, name="finish"),
    path("work/<int:pk>/stream", work.stream, name="stream"),
    path("work/<int:pk>/suggest/", write.suggest, name="suggest"),
    path("work/<int:pk>/suggestions/", write.suggestions, name="suggestions"),
    path("work/<int:pk>/shown/", write.shown, name="shown"),
    path("work/<int:pk>/branch/", write.branch, name="branch"),
    path("work/<int:pk>/verdict/", review_task.verdict, name="verdict"),
    path("work/<int:pk>/submit/", rank.submit, name="submit"),
    path("conversations/<int:pk>/revise/", work.revise, name="revise"),
    path("read/", review.review, name="review"),
    path("read/chats/<int:pk>/", review.read_conversation, name="review_conversation"),
    path("read/written/<int:pk>/", review.read_piece, name="review_piece"),
    path("read/rankings/<int:pk>/", review.read_comparison, name="review_comparison"),
]
