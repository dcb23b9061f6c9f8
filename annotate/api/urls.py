"""The addresses of the REST API, of its description and of its readable docs."""

from django.urls import include, path

from annotate.api import assignments, comparisons, conversations, docs, projects, reviews, writing

version_1 = [
    path("projects/", projects.ProjectList.as_view()),
    path("projects/<slug:slug>/", projects.ProjectView.as_view()),
    path("projects/<slug:slug>/claim/", assignments.Claim.as_view()),
    path("projects/<slug:slug>/release-ahead/", assignments.ReleaseAhead.as_view()),
    path("projects/<slug:slug>/comparisons/", comparisons.ComparisonList.as_view()),
    path("projects/<slug:slug>/conversations/", conversations.ConversationList.as_view()),
    path("assignments/<int:assignment_id>/", assignments.AssignmentView.as_view()),
    path("assignments/<int:assignment_id>/draft/", assignments.Draft.as_view()),
    path("assignments/<int:assignment_id>/skip/", assignments.Skip.as_view()),
    path("assignments/<int:assignment_id>/submit/", assignments.Submit.as_view()),
    path("assignments/<int:assignment_id>/suggestions/", writing.Suggestions.as_view()),
    path("assignments/<int:assignment_id>/finish/", writing.Finish.as_view()),
    path("assignments/<int:assignment_id>/verdict/", reviews.Verdict.as_view()),
    path("comparisons/<int:comparison_id>/", comparisons.ComparisonView.as_view()),
    path("conversations/<int:conversation_id>/", conversations.ConversationView.as_view()),
]

urlpatterns = [
    path("v1/", include(version_1)),
    path("schema/", docs.Schema.as_view(), name="api_schema"),
    path("docs/", docs.Docs.as_view(), name="api_docs"),
]
