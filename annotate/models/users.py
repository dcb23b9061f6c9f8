"""Users: people who sign in by e-mail address. Their role is the group that they are in."""

from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower


class Role(models.TextChoices):
    """What a person does here; each is the name of a group."""

    TRAINER = "trainer", "Trainer"
    REVIEWER = "reviewer", "Reviewer"
    ADMIN = "admin", "Admin"
    ENGINEER = "engineer", "Engineer"


class People(BaseUserManager):
    """Makes users from an e-mail address (what `createsuperuser` and the sign-in pages call)."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields) -> "User":
        """A new user; without a password only a sign-in link lets them in."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields) -> "User":
        """A new user with every permission."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person. The e-mail address is the login name and is stored in lower case."""

    username = None
    email = models.EmailField("e-mail address", unique=True)
    name = models.CharField(max_length=120, blank=True, help_text="As shown to reviewers and admins.")

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []

    objects = People()

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_once", violation_error_message="Taken."),
        ]

    def __str__(self) -> str:
        return self.name or self.email
