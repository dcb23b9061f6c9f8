"""Named exceptions of the record's rules. Each carries one sentence for the person who caused it."""


class BothsidesError(Exception):
    """A refusal with a sentence for people; `status` is the HTTP status that says the same."""

    status = 400
    code = "refused"

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


class NotFound(BothsidesError):
    """There is no such thing, or the person may not know of it."""

    status = 404
    code = "not_found"


class Forbidden(BothsidesError):
    """The person belongs here, but their role does not allow this."""

    status = 403
    code = "forbidden"


class Invalid(BothsidesError):
    """The input is incomplete or wrong; nothing was changed."""

    status = 422
    code = "invalid"


class Conflict(BothsidesError):
    """The state has moved on, so that the request no longer applies; nothing was changed."""

    status = 409
    code = "conflict"


class DraftConflict(Conflict):
    """A newer draft is stored: `current` is that draft, `version` its version."""

    code = "draft_conflict"

    def __init__(self, message: str, *, current: dict, version: int):
        super().__init__(message)
        self.current = current
        self.version = version


class NothingLeft(BothsidesError):
    """A claim found no slot for this person now."""

    status = 404
    code = "nothing_left"


class Unavailable(BothsidesError):
    """A part that is needed is away for now; trying again later may help."""

    status = 503
    code = "unavailable"
