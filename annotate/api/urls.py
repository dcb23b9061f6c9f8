"""The addresses of the REST API, of its description and of its readable docs."""

from django.urls import include, path

from annotate.api import assignments, comparisons, conversations, docs, exports, imports, projects, reviews, writing

version_1 = [
    path("projects/", projects.ProjectList.as_view()),
    path("projects/<slug:slug>/", projects.ProjectView.as_view()),
    path("projects/<slug:slug>/claim/", assignments.Claim.as_view()),
    path("projects/<slug:slug>/release-ahead/", assignments.ReleaseAhead.as_view()),
    path("projects/<slug:slug>/comparisons/", comparisons.ComparisonList.as_view()),
    path("projects/<slug:slug>/conversations/", conversations.ConversationList.as_view()),
    path("projects/<slug:slug>/exports/", exports.ExportList.as_view()),
    path("projects/<slug:slug>/imports/", imports.ImportList.as_view()),
    path("assignments/<int:assignment_id>/", assignments.AssignmentView.as_view()),
    path("assignments/<int:assignment_id>/draft/", assignments.Draft.as_view()),
    path("assignments/<int:assignment_id>/skip/", assignments.Skip.as_view()),
    path("assignments/<int:assignment_id>/submit/", assignments.Submit.as_view()),
    path("assignments/<int:assignment_id>/suggestions/", writing.Suggestions.as_view()),
    path("assignments/<int:assignment_id>/finish/", writing.Finish.as_view()),
    path("assignments/<int:assignment_id>/verdict/", reviews.Verdict.as_view()),
    path("comparisons/<int:comparison_id>/", comparisons.ComparisonView.as_view()),
    path("conversations/<int:conversation_id>/", conversations.ConversationView.as_view()),
    path("exports/<int:export_id>/", exports.ExportView.as_view()),
    path("exports/<int:export_id>/stop/", exports.ExportStop.as_view()),
    path("exports/<int:export_id>/go-on/", exports.ExportGoOn.as_view()),
    path("exports/<int:export_id>/files/<str:name>/", exports.ExportFile.as_view(), name="api_export_file"),
    path("imports/<int:import_id>/", imports.ImportView.as_view()),
    path("imports/<int:import_id>/stop/", imports.ImportStop.as_view()),
    path("imports/<int:import_id>/go-on/", imports.ImportGoOn.as_view()),
]

urlpatterns = [
    path("v1/", include(version_1)),
    path("schema/", docs.Schema.as_view(), name="api_schema"),
    path("docs/", docs.Docs.as_view(), name="api_docs"),
]
