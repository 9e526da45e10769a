"""Everything that can go wrong with a hosted job.

Each error's text says what is wrong, what it means for the bill and what to do. None carries the
token, the prompt, a picture or a signed address; ``request_id`` is kept wherever there is one.
"""


class RemoteError(Exception):
    """A hosted job that gave no picture.

    ``status``: what the API answered (its HTTP status or its code's class), 0 where it did not;
    ``retry_after``: seconds that it asked to wait.
    """

    def __init__(
        self,
        message: str,
        request_id: str = "",
        *,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id, self.status, self.retry_after = request_id, status, retry_after

    @classmethod
    def of(cls, request_id: str, message: str) -> "RemoteError":
        """The error of a known job; its id stands alone on the last line."""
        return cls(f"{message}\n{request_id}", request_id)


class InvalidInput(RemoteError):
    """Refused here, before anything was sent; the text names the node's own input."""


class CredentialError(RemoteError):
    """No token, an unusable one, or an API address that a token must not be sent to."""


class JournalError(RemoteError):
    """The record of paid requests cannot be written; nothing was submitted."""


class Refused(RemoteError):
    """The API answered that it did not take the job: nothing was submitted, nothing is billed."""


class OutcomeUnknown(RemoteError):
    """No usable answer to the submission: it may have been accepted. Never submitted again."""


class Unresolved(RemoteError):
    """The very same request was submitted before and what became of it is not known: not again."""


class Gone(RemoteError):
    """The known result of the same request cannot be had any more; a new one may be submitted."""


class Transient(RemoteError):
    """A question about a job that went unanswered; asked again until the deadline."""


class RequestRejected(RemoteError):
    """The API answers questions about the job with a final no (token, permission, no such id)."""


class JobFailed(RemoteError):
    """The job ended without a picture."""


class JobCancelled(RemoteError):
    """The job was cancelled before it ran."""


class TimedOut(RemoteError):
    """The deadline passed; the job goes on and its result can be fetched by its id."""


class MediaError(RemoteError):
    """The job succeeded, but its picture was refused or could not be read."""


class Stopped(RemoteError):
    """The user pressed Stop; the text says what became of the job."""
