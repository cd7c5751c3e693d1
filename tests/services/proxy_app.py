"""A reverse proxy before the server that HEADGATE_TEST_ORIGIN names."""

import os

from headgate import RoundRobin
from headgate.adapters.proxy import Hop, ReverseProxy

servers = RoundRobin([os.environ["HEADGATE_TEST_ORIGIN"]])
app = ReverseProxy(servers, Hop("paris"), idle_timeout=2, attempt_timeout=2)
