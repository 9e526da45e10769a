"""A certificate authority and an HTTPS server on loopback."""

from collections.abc import Iterator

import pytest
from loopback import Authority, Server, serving

from flux2_lora_edit.network.address import PUBLIC_ONLY, AddressPolicy
from flux2_lora_edit.network.client import HttpClient, Limits
from flux2_lora_edit.network.connection import Transport


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    with serving(authority) as running:
        yield running


@pytest.fixture
def policy(server: Server) -> AddressPolicy:
    return PUBLIC_ONLY.allowing(server.origin)


@pytest.fixture
def transport(authority: Authority) -> Transport:
    return Transport(tls=authority.tls)


@pytest.fixture
def client(policy: AddressPolicy, transport: Transport) -> HttpClient:
    """One that asks once, of the loopback server."""
    return HttpClient(policy, Limits(attempts=1), transport=transport)
