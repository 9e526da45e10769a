"""What a LoRA is called on a machine that has none of your tokens, and whether it gets it there.

A hosted job fetches the file by itself, by an address in a request that is paid for: so a page
becomes its file's address, a secret is not sent, and who asks without a login is asked for.
"""

import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

from ...network.errors import DeadlineExceeded, HttpStatusError, NetworkError, WebPage
from .civitai import TOKEN_VARIABLES as CIVITAI_TOKENS
from .hub import TOKEN_VARIABLES as HUB_TOKENS
from .hub import Hub
from .site import FetchError, Site
from .source import SourceError, parse_url

SIGNED_VARIABLE = "FLUX2_LORA_EDIT_SEND_SIGNED_LINKS"
"""Set to 1 by an operator whose links may be sent with the token or signature in them."""
TOKENS = (*HUB_TOKENS, *CIVITAI_TOKENS)

GATED = "it is gated, so RunComfy must be able to fetch it without your token"
ALONE = "RunComfy's machines ask by themselves, without any of your tokens."
_REFUSED = (401, 404, 410)

# Names without their punctuation: X-Amz-Signature, api_key, rlkey, Key-Pair-Id, hdnts.
_SECRET_NAME = re.compile(
    r".*(?:token|secret|signature|apikey|accesskey|passw|credential|session|jwt|hmac).*|"
    r"xamz.*|xgoog.*|xcos.*|xoss.*|qsign.*|.*key|keypairid|sig|sign|auth|authorization|bearer|pass|"
    r"pwd|pw|policy|expir\w*|hm|hdn\w*|code|otp"
)
_SECRET_VALUE = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\beyJ[\w-]{8,}\.[\w-]+|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|"
    r"\b(?:gh[a-z]_|github_pat_|glpat-|sk-)[\w-]{16,}"
)


def within(should_stop: Callable[[], None], seconds: float) -> Callable[[], None]:
    """``should_stop`` that also ends whatever is asked when ``seconds`` from now are over."""
    end = time.monotonic() + seconds

    def look() -> None:
        should_stop()
        if time.monotonic() >= end:
            raise DeadlineExceeded("There was no answer in time.")

    return look


def named(site: Site, env: Mapping[str, str]) -> str:
    """What the file is called there: an https address, or ``owner/repo``.

    env: where the tokens stand that must not be in it. The site itself knows none of them.
    Raises NetworkError, with what to do, where it has no such name or one that holds a secret.
    """
    try:
        address = site.address()
    except FetchError as error:
        raise FetchError(f"{error}\n{ALONE}") from error
    except NetworkError as error:
        raise FetchError(f"Which file it means could not be asked. {error}") from error
    if isinstance(site, Hub) and address == site.source.repo:
        return address
    try:
        parse_url(address)
    except SourceError as error:
        raise FetchError(str(error)) from None
    refuse_secret(address, env)
    site.access.client.policy.check(address)
    return address


def refuse_secret(address: str, env: Mapping[str, str]) -> None:
    """Raise FetchError for a link with a token or a signature, unless the operator lets it be sent;
    one of the tokens in ``env`` never is."""
    host, secret = urlsplit(address).hostname, secret_in(address)
    for name in TOKENS:
        if (token := env.get(name, "").strip()) and token in f"{address} {_decoded(address)}":
            raise FetchError(f"The link to {host} holds your {name}, which is never sent.")
    if secret and env.get(SIGNED_VARIABLE) != "1":
        raise FetchError(
            f"The link to {host} carries what looks like {secret}, and RunComfy would get it with "
            "the request. Use a link that needs none. If it may be sent, set "
            f"{SIGNED_VARIABLE}=1 in ComfyUI's environment and restart it."
        )


def looked_at(site: Site, address: str) -> str:
    """What the user should know of ``address`` before somebody without a token fetches it.

    Raises FetchError where it is certain that nobody without a login gets a file there. What cannot
    be asked (offline, a server in trouble) is said, and is no refusal.
    """
    try:
        return GATED if site.look(address) else ""
    except (FetchError, WebPage):
        raise
    except HttpStatusError as error:
        if error.error_code == "GatedRepo":
            return GATED
        if error.status in _REFUSED:
            private = error.error_code == "RepoNotFound"
            said = "There is no such repository, or it is private." if private else str(error)
            raise FetchError(f"{said}\n{ALONE}") from error
        reason = f"HTTP {error.status}"
    except NetworkError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
    return f"whether RunComfy can fetch it is not known ({reason})"


def secret_in(address: str) -> str:
    """What in ``address`` looks like a secret, in our words and none of its own; empty if nothing.

    Looked for in path, query and fragment, however often they are percent-encoded.
    """
    if "@" in urlsplit(address).netloc:
        return "a user name or password"
    whole = _decoded(address)
    if _SECRET_VALUE.search(whole):
        return "a token"
    for pair in re.split(r"[?&;#/]", whole):
        name, equals, _ = pair.partition("=")
        if equals and _SECRET_NAME.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower())):
            return "a token or a signature"
    return ""


def _decoded(address: str) -> str:
    for _ in range(4):
        address = unquote(address)
    return address
