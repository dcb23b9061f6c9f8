"""Budgets measured beside their floors, each in one run."""
