"""The trainers' and reviewers' pages."""
