"""The default policy on its own: no server, no name look-up."""

import ipaddress

import pytest
from hypothesis import example, given, strategies

from flux2_lora_edit.network.address import (
    PROXY_VARIABLE,
    PUBLIC_ONLY,
    AddressPolicy,
    is_public,
)
from flux2_lora_edit.network.errors import AddressRefused

PUBLIC = """
8.8.8.8 1.1.1.1 93.184.216.34 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 9.255.255.255
11.0.0.0 169.253.255.255 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001::200e 2001:4860:4860::8888 2001:200::1 2003::1
64:ff9b::8.8.8.8
""".split()

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1
127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1
192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
:: ::1 ::2 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:10.0.0.1 ::ffff:0:8.8.8.8
fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 ff0e::1 100::1 5f00::1 3fff::1
2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:db8::1
2002:7f00:1::1 2002:808:808::1
64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b::100.64.0.1
64:ff9b:1::8.8.8.8 4000::1
""".split()


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/a", "Only https"),
        ("ftp://example.com/a", "Only https"),
        ("file:///etc/passwd", "Only https"),
        ("//example.com/a", "Only https"),
        ("example.com/a", "Only https"),
        ("", "Only https"),
        ("https:///a", "no usable host"),
        ("https://example.com:80/a", "Port 80"),
        ("https://example.com:8443/a", "Port 8443"),
        ("https://example.com:99999/a", "cannot be read"),
        ("https://user@example.com/a", "user name"),
        ("https://user:secret@example.com/a", "user name"),
        ("https://@example.com/a", "user name"),
        ("https://example.com\\@evil.test/a", "backslashes"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/a\r\nHost: x", "control"),
        ("https://example.com/\x00", "control"),
        ("https://exa\u200bmple.com/\u2028", "control"),
        ("https://127.0.0.1/", "non-public"),
        ("https://10.0.0.1/", "non-public"),
        ("https://169.254.169.254/latest/meta-data", "non-public"),
        ("https://[::1]/", "non-public"),
        ("https://[::ffff:7f00:1]/", "non-public"),
        ("https://[64:ff9b::7f00:1]/", "non-public"),
        ("https://[fe80::1%25eth0]/", "no usable host"),
        ("https://[fe80::1%eth0]/", "no usable host"),
        ("https://[::1/", "cannot be read"),
        # the spellings of 127.0.0.1 and 8.8.8.8 that inet_aton would take
        ("https://2130706433/", "no usable host"),
        ("https://017700000001/", "no usable host"),
        ("https://0x7f000001/", "no usable host"),
        ("https://0x7f.0.0.1/", "no usable host"),
        ("https://0177.0.0.1/", "no usable host"),
        ("https://127.1/", "no usable host"),
        ("https://127.0.1/", "no usable host"),
        ("https://0/", "no usable host"),
        ("https://134744072/", "no usable host"),
        ("https://8.8.8.0x8/", "no usable host"),
        ("https://1.2.3.4.5/", "no usable host"),
        ("https://256.1.1.1/", "no usable host"),
        ("https://\uff11\uff12\uff17.0.0.1/", "non-public"),  # full-width digits
        ("https://127\u30020\u30020\u30021/", "non-public"),  # ideographic full stops
        ("https://localhost/", "local network"),
        ("https://LOCALHOST./", "local network"),
        ("https://router/", "local network"),
        ("https://nas.local/", "local network"),
        ("https://metadata.google.internal/", "local network"),
        ("https://a..example.com/", "no usable host"),
        ("https://-a.example.com/", "no usable host"),
        ("https://exa mple.com/", "spaces"),
        ("https://ex%61mple.com/", "no usable host"),
        ("https://" + "a" * 300 + ".com/", "no usable host"),
    ],
)
def test_refused_links(url: str, said: str) -> None:
    with pytest.raises(AddressRefused, match=said):
        PUBLIC_ONLY.check(url)


@pytest.mark.parametrize(
    ("url", "host", "request_path"),
    [
        ("https://example.com", "example.com", "/"),
        ("https://EXAMPLE.com.:443/a?b=c#d", "example.com", "/a?b=c"),
        (
            "HTTPS://example.com/a%20b/\u00fc.safetensors",
            "example.com",
            "/a%20b/%C3%BC.safetensors",
        ),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example", "/"),
        ("https://8.8.8.8/x", "8.8.8.8", "/x"),
        ("https://[2606:4700:4700::1111]/x", "2606:4700:4700::1111", "/x"),
        (
            "https://a_b.example.com/?x=https://127.0.0.1/",
            "a_b.example.com",
            "/?x=https://127.0.0.1/",
        ),
    ],
)
def test_allowed_links(url: str, host: str, request_path: str) -> None:
    target = PUBLIC_ONLY.check(url)
    assert (target.scheme, target.host, target.port) == ("https", host, 443)
    assert target.request_path == request_path
    assert not target.named


def test_authority_is_what_credentials_are_keyed_by() -> None:
    policy = PUBLIC_ONLY.allowing("https://hub.example.com:8443")
    assert policy.check("https://Hub.example.com:443/").authority == "hub.example.com"
    assert policy.check("https://hub.example.com:8443/").authority == "hub.example.com:8443"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["2606:4700:4700::1111", "::1"],
        ["8.8.8.8", "fe80::1%eth0"],
        ["8.8.8.8", "nonsense"],
    ],
)
def test_one_inside_address_among_public_ones_is_enough_to_refuse(addresses: list[str]) -> None:
    target = PUBLIC_ONLY.check("https://example.com/")
    with pytest.raises(AddressRefused, match="non-public") as caught:
        PUBLIC_ONLY.check_addresses(target, addresses)
    assert not any(address in str(caught.value) for address in addresses)
    PUBLIC_ONLY.check_addresses(target, ["8.8.8.8", "2606:4700:4700::1111"])


def test_a_loopback_origin_is_allowed_exactly_as_written() -> None:
    policy = PUBLIC_ONLY.allowing("http://127.0.0.1:8188/")
    assert policy.check("http://127.0.0.1:8188/x").named
    for other in (
        "http://127.0.0.1:8189/x",
        "https://127.0.0.1:8188/x",
        "http://127.0.0.2:8188/x",
        "http://localhost:8188/x",
        "http://[::1]:8188/x",
        "http://127.0.0.1/x",
        "http://example.com:8188/x",
    ):
        with pytest.raises(AddressRefused):
            policy.check(other)
    assert not PUBLIC_ONLY.origins


def test_a_loopback_name_must_stay_on_loopback() -> None:
    policy = PUBLIC_ONLY.allowing("http://localhost:8188")
    target = policy.check("http://localhost:8188/")
    policy.check_addresses(target, ["127.0.0.1", "::1"])
    for elsewhere in ("8.8.8.8", "192.168.0.1"):
        with pytest.raises(AddressRefused):
            policy.check_addresses(target, ["127.0.0.1", elsewhere])


@pytest.mark.parametrize("origin", ["https://models.corp", "https://10.0.0.5:8443"])
def test_an_origin_that_the_operator_names_may_lie_anywhere(origin: str) -> None:
    policy = PUBLIC_ONLY.allowing(origin)
    target = policy.check(f"{origin}/x")
    policy.check_addresses(target, ["10.0.0.5"])
    for other in ("https://models.corp:444/x", "http://models.corp/x", "https://10.0.0.5/x"):
        with pytest.raises(AddressRefused):
            policy.check(other)
    public = policy.check("https://example.com/x")
    with pytest.raises(AddressRefused, match="non-public"):
        policy.check_addresses(public, ["10.0.0.5"])


@pytest.mark.parametrize(
    "origin",
    [
        "http://192.168.0.1:80",
        "http://example.com:80",
        "http://127.0.0.1",
        "http://127.0.0.1:80/path",
        "ftp://127.0.0.1:80",
        "http://a@127.0.0.1:80",
    ],
)
def test_only_loopback_has_http_and_an_origin_is_one(origin: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy(frozenset({origin})).check(origin)


def test_the_usual_proxy_variables_are_not_used() -> None:
    usual = {"HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://p:1", "https_proxy": "http://p:1"}
    assert AddressPolicy.from_environment(usual) == PUBLIC_ONLY
    named = AddressPolicy.from_environment({PROXY_VARIABLE: "http://p.corp:3128"})
    assert named.proxy == "http://p.corp:3128"
    with pytest.raises(ValueError, match=PROXY_VARIABLE):
        AddressPolicy.from_environment({PROXY_VARIABLE: "socks5://user:secret@p:1"})


HOSTS = strategies.sampled_from(["example.com", "127.0.0.1", "[::1]", "0x7f.1", "a.local", "x"])


LINKS = strategies.builds("https://{}{}".format, HOSTS, strategies.text(max_size=40))


@given(strategies.text(max_size=80) | LINKS)
def test_any_text_is_refused_or_becomes_a_public_target(text: str) -> None:
    try:
        target = PUBLIC_ONLY.check(text)
    except AddressRefused:
        return
    assert (target.scheme, target.port, target.named) == ("https", 443, False)
    assert target.url.isascii() and target.url.isprintable()
    assert target.host not in ("127.0.0.1", "::1", "0x7f.1", "a.local", "x")
    assert PUBLIC_ONLY.check(target.url) == target


def test_target_url_is_normal() -> None:
    policy = PUBLIC_ONLY.allowing("http://127.0.0.1")
    literal = policy.check("https://[2606:4700:0::1111]:443/a")
    assert (literal.host, literal.url) == ("2606:4700::1111", "https://[2606:4700::1111]/a")
    assert policy.check("http://127.0.0.1").authority == "127.0.0.1:80"


@pytest.mark.parametrize(
    "proxy",
    [
        "http://p.corp:3128", "http://p:3128/", "http://10.0.0.1:1", "http://[::1]:8080",
        "http://me:pass%21%2F%23@p.corp:3128", "http://m@e:p@ss:w0rd@p.corp:3128", "HTTP://P.corp:80",
    ],
)  # fmt: skip
def test_proxies_that_are_taken(proxy: str) -> None:
    assert AddressPolicy.from_environment({PROXY_VARIABLE: proxy}).proxy == proxy


# What stands round a password in an address that somebody mistyped; the {} is the password.
MISTYPED = """
http://me:{}@p.corp:{} http://me:{}@p.corp http://me:{}@:3128 http://p.corp:{} me:{}@p.corp:3128
http://me:{}p.corp:3128 https://me:{}@p.corp:3128 socks5://me:{}@p.corp:1080 http:/me:{}@p.corp:31
http://me:x/{}@p.corp:3128 http://me:80/{}@p.corp:3128 http://me:x#{}@p.corp:3128 {}
http://me:x?{}@p.corp:3128 http://me:80?{}@p.corp:3128 http://me:80#{}@p.corp:3128 //me:{}@p:1
http://me:[{}@p.corp:3128 http://[me:{}@p.corp:3128 http://me:{}@[p.corp:3128 http://[{}]:3128
http://me:{}\u2100@p.corp:3128 http://me:{}@p\u2100.corp:3128 http://me:{}\ud800@p.corp:3128
http://me:{}@p.corp:99999 http://me:{}@p.corp:-1 http://me:{}@p.corp:0 http://me:{}@p_.c:1/{}
http://me:{}@p.corp:3128/x http://me:{}@p.corp:3128?{} http://me:{}@p.corp:\u0663 http://me:{}@p..c:1
http://me:{}@p.corp:3128,http://q:1 http://me:{}@127.1:80 http://me:{}@-p:80
""".split()


def told(error: BaseException) -> str:
    """All that a log could show of ``error`` and of those that it came from."""
    seen, text = error, ""
    while seen is not None:
        text += f"{seen!s}\n{seen!r}\n{seen.args!r}\n{vars(seen)!r}\n"
        text += f"{getattr(seen, 'object', '')!r}\n"
        seen = seen.__cause__ or seen.__context__
    return text


@given(
    strategies.sampled_from(MISTYPED),
    strategies.text(strategies.characters(min_codepoint=33), min_size=4, max_size=12).filter(
        lambda text: "{" not in text and "}" not in text
    ),
)
@example("http://me:{}@p.corp:{}", "hunter2")
@example("http://[{}]:3128", "hunter2")
@example("http://me:80/{}@p.corp:3128", "hunter2")
def test_a_mistyped_proxy_is_refused_without_its_password(form: str, password: str) -> None:
    # Doubled and marked, so that no part of it stands in our own words by chance.
    password = f"Q7{password}Q7"
    try:
        policy = AddressPolicy.from_environment({PROXY_VARIABLE: form.replace("{}", password)})
    except ValueError as error:
        said = told(error)
        assert PROXY_VARIABLE in said and "http://" in said and "%40" in said
        assert "Q7" not in said
    else:
        assert "Q7" not in f"{policy!r}{policy}"
        # Taken only where the password left the rest of the form whole.
        assert form in MISTYPED and policy.proxy is not None


@pytest.mark.parametrize("form", MISTYPED)
def test_what_is_mistyped_is_not_taken(form: str) -> None:
    with pytest.raises(ValueError, match=f"{PROXY_VARIABLE} must look like") as caught:
        AddressPolicy.from_environment({PROXY_VARIABLE: form.replace("{}", "hunter2")})
    assert "hunter2" not in told(caught.value)
