"""Trainings: each takes examples and a model, and makes a model; see `running`."""
