"""Which links may be opened: https, to public addresses, and nothing else.

A link in a workflow comes from whoever wrote the workflow, and ComfyUI's /prompt takes workflows
from anywhere, so a link must not become a way into the user's own network (SSRF).
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from .errors import AddressRefused

PROXY_VARIABLE = "FLUX2_LORA_EDIT_PROXY"

# IANA special-purpose registries (RFC 6890 and successors), all that is not global unicast. The
# last line: Azure's platform address, public by number, local by meaning.
_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
        "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
        "224.0.0.0/4 240.0.0.0/4 "
        "168.63.129.16/32"
    ).split()
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Inside 2000::/3: Teredo and other protocol assignments, documentation (two), 6to4.
_CLOSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in "2001::/23 2001:db8::/32 2002::/16 3fff::/20".split()
)
# On an IPv6-only network DNS64 writes every IPv4-only site this way: the last 32 bits decide.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_LOCAL_SUFFIXES = (
    *(".localhost", ".local", ".localdomain", ".internal", ".intranet", ".private", ".corp"),
    *(".home", ".lan", ".home.arpa"),
)
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_SAFE = "/%:@!$&'()*+,;=~-._"
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PROXY = re.compile(
    r"(?i)http://([^/?#\[\]\\\s]*@)?([^/?#@:\[\]\\\s]+|\[[0-9a-f:.]+\]):[0-9]{1,5}/?"
)


class Target(NamedTuple):
    """One link, in all the forms that are needed of it.

    host: lower case, ASCII; an IPv6 literal without brackets. authority: what credentials are keyed
    by and the Host header says, ``host`` for https on port 443, else ``host:port``. request_path:
    path and query, percent-encoded. url: the whole link with its query, not for messages. named:
    whether it is at one of the policy's own origins.
    """

    scheme: str
    host: str
    port: int
    authority: str
    request_path: str
    url: str
    named: bool = False

    @property
    def loopback(self) -> bool:
        """Whether the host says of itself that it is this machine."""
        address = _literal(self.host)
        return self.host == "localhost" if address is None else address.is_loopback


@dataclass(frozen=True)
class AddressPolicy:
    """What may be connected to. The default is: https on port 443, public addresses only.

    origins: allowed besides, at whatever address, exactly as written: the operator's own words,
        never a link's (see :meth:`allowing`). The API's is one, perhaps a gateway inside a company;
        so are the RunComfy stand-in and the servers of the tests. Plain http has only loopback.
    proxy: ``http://[user:password@]host:port`` of a proxy that all traffic but loopback's takes.

    Proxies. HTTPS_PROXY and its kin are NOT used: a proxy resolves host names by itself, so the
    address that was checked is no longer the one connected to. Who needs a proxy names it in
    FLUX2_LORA_EDIT_PROXY (see :meth:`from_environment`). Then literal addresses are still checked
    and local-looking names refused, but a public name that resolves to an inside address is the
    proxy's to refuse. TLS is still verified end to end.
    """

    origins: frozenset[str] = frozenset()
    proxy: str | None = field(default=None, repr=False)  # it may hold a password

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "AddressPolicy":
        """The default policy, with the proxy that the operator named, if any.

        Raises ValueError, which shows nothing of what is set: a password may be anywhere in it.
        """
        proxy = env.get(PROXY_VARIABLE, "").strip() or None
        if proxy is not None and not _is_proxy(proxy):
            raise ValueError(
                f"{PROXY_VARIABLE} must look like http://host:port or "
                "http://user:password@host:port, where /, ?, # and @ in a password are written "
                "%2F, %3F, %23 and %40"
            )
        return cls(proxy=proxy)

    def allowing(self, *origins: str) -> "AddressPolicy":
        """This policy with these origins (``scheme://host[:port]``) allowed too."""
        named = {f"{target.scheme}://{target.authority}" for target in map(parse, origins)}
        return replace(self, origins=self.origins | named)

    def check(self, url: str) -> Target:
        """``url`` taken apart and found allowed as far as can be told without resolving it.

        Raises :class:`AddressRefused`.
        """
        target = parse(url)
        named = f"{target.scheme}://{target.authority}" in self.origins
        if target.scheme != "https" and not (named and target.loopback):
            raise AddressRefused("Only https links are opened.", url)
        if named:
            return target._replace(named=True)
        if target.port != 443:
            raise AddressRefused(f"Port {target.port} is not open to links.", url)
        address = _literal(target.host)
        if address is not None and not is_public(address):
            raise AddressRefused("The link points to a non-public address.", url)
        if address is None and ("." not in target.host or target.host.endswith(_LOCAL_SUFFIXES)):
            raise AddressRefused("The link points into the local network.", url)
        return target

    def check_addresses(self, target: Target, addresses: list[str]) -> None:
        """Refuses ``target`` unless EVERY address its name resolved to is allowed."""
        if target.named and target.scheme == "https":
            return  # the operator's word, and TLS proves that it is who he means
        for address in map(_literal, addresses):
            if address is None or not (address.is_loopback if target.named else is_public(address)):
                # The address itself stays unsaid: it would map the user's network for a stranger.
                raise AddressRefused(
                    f"{target.host} resolves to a non-public address, which links may not reach. "
                    "(Behind a VPN or proxy tool with made-up addresses, name its proxy in the "
                    f"environment variable {PROXY_VARIABLE}.)"
                )


PUBLIC_ONLY = AddressPolicy()


def parse(url: str) -> Target:
    """``url`` taken apart, every doubtful spelling refused: raises :class:`AddressRefused`."""
    if not url.isprintable() or " " in url or "\\" in url:
        raise AddressRefused("The link holds spaces, backslashes or control characters.")
    try:
        parts = urlsplit(url)
        raw_host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressRefused("The link cannot be read.", url) from None
    if parts.scheme not in ("https", "http"):
        raise AddressRefused("Only https links are opened.", url)
    if "@" in parts.netloc:
        raise AddressRefused("The link holds a user name or password.", url)
    host = _host(raw_host)
    if host is None:
        raise AddressRefused("The link has no usable host name.", url)
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    authority = f"[{host}]" if ":" in host else host
    if (parts.scheme, port) != ("https", 443):
        authority += f":{port}"
    path = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_SAFE + "?")
    return Target(parts.scheme, host, port, authority, path, f"{parts.scheme}://{authority}{path}")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether ``address`` is ordinary global unicast.

    IPv4-mapped, 6to4 and Teredo forms are refused whatever they hold; NAT64 is judged by the
    IPv4 address inside.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _CLOSED_V6)


def _host(raw: str) -> str | None:
    """A host as ASCII; None for every doubtful spelling."""
    if ":" in raw:  # an IPv6 literal; a zone ("%eth0") only makes sense inside a local network
        address = _literal(raw)
        return None if address is None else str(address)
    try:
        host = raw.encode("idna").decode("ascii").lower() if raw else ""
    except UnicodeError:
        return None
    host = host.removesuffix(".")  # the same host, but certificates and tokens know one spelling
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        return None
    # "2130706433", "0x7f.1", "0177.0.0.1", "127.1": the system's resolver takes them all for
    # addresses. Only the dotted decimal form is taken here.
    number = _NUMBER.fullmatch(host.rpartition(".")[2])
    return None if number and _literal(host) is None else host


def _is_proxy(text: str) -> bool:
    """Whether ``text`` is one whole address of a proxy, however it is read.

    It says no instead of raising: what the library raises quotes the password.
    """
    if not text.isprintable() or not _PROXY.fullmatch(text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.port) and _host(parts.hostname or "") is not None
    except ValueError:
        return False


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None
