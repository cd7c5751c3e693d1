"""Each HTTP client that has an adapter, and servers for it."""

from contextlib import ExitStack

import pytest
from clients import CLIENTS
from servers import Origin


@pytest.fixture(params=CLIENTS)
def http(request):
    return CLIENTS[request.param]()


@pytest.fixture
def origins():
    with ExitStack() as stack:
        yield [stack.enter_context(Origin()) for _ in range(3)]
