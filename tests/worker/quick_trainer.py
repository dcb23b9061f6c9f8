"""A trainer that learns nothing: it leaves a file where a model belongs, in a moment."""


def train(work) -> dict:
    """Tell of two steps and write a folder."""
    for step in (1, 2):
        work.tell("Training", step, 2)
        work.measure(step, {"loss": 1 / step})
    work.made.mkdir(exist_ok=True)
    (work.made / "model.txt").write_text(f"{work.run.kind} {work.run.options}")
    return {"train_loss": 0.5, "unseen_accuracy": 0.75}
