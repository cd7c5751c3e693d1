"""Every test that takes `twin` runs on both twins, or on those that HEADGATE_PURE allows."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from headgate.cli.twins import IDEAS, twin_module

SOURCES = Path(__file__).parents[1] / "src"
SHARED = Path(os.environ.get("HEADGATE_SHARED", Path(__file__).parents[2] / "shared"))

PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # a machine may be busy
settings.register_profile("plain", **PATIENT)
settings.register_profile("sanitizers", max_examples=10, **PATIENT)
settings.register_profile("exhaustive", max_examples=1000, **PATIENT)
settings.load_profile("plain")


def homes(module):
    """The names of the modules that make up a twin's module: its own, and any x.py beside an x.pxi."""
    package = SOURCES.joinpath(*module.__package__.split("."))
    halves = [path.relative_to(SOURCES).with_suffix("") for path in package.rglob("*.pxi")]
    return {module.__name__, *(".".join(half.parts) for half in halves)}


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="more examples, more steps, whole traces")


def pytest_configure(config):
    if config.option.exhaustive:
        settings.load_profile("exhaustive")


def pytest_collection_finish():
    """What tests collect is their own garbage: collections do not visit thousands of tests each time."""
    gc.collect()
    gc.freeze()


class Twin:
    """One twin; its modules are imported when asked for: ``twin.cache.LRUCache``."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, idea):
        if idea not in IDEAS:
            raise AttributeError(idea)
        return twin_module(self.name, idea)


def twin_names():
    wish = os.environ.get("HEADGATE_PURE")
    if wish == "1":
        return ["pure"]
    if wish == "0" or find_spec("headgate.hashing._compiled"):
        return ["compiled", "pure"]
    return ["pure"]


@pytest.fixture(params=twin_names())
def twin(request):
    return Twin(request.param)


@pytest.fixture(scope="session")
def twins():
    """All twins that are tested, for tests whose other half is dear."""
    return [Twin(name) for name in twin_names()]


@pytest.fixture
def both_twins():
    """The compiled and the pure twin, for tests that compare them."""
    if "compiled" not in twin_names():
        pytest.skip("the compiled twin is ignored or absent: there is nothing to compare")
    return Twin("compiled"), Twin("pure")


@pytest.fixture(scope="module")
def one_secret():
    """All tables hash keys alike in every run: two of fifteen keys share a tag, and so a debt, in one of some
    hundred thousand tables, and no test that counts exactly foresees it."""
    with pytest.MonkeyPatch.context() as patch:
        pure = Twin("pure").keyed
        patch.setattr(pure, "_hash_in_process", lambda secret: pure._hash_anywhere(bytes(len(secret))))
        patch.setattr("headgate.limit._files.urandom", bytes)
        if "compiled" in twin_names():
            patch.setattr(Twin("compiled").keyed, "urandom", bytes)
        yield


@pytest.fixture
def limits_of_twin(twin, monkeypatch):
    """RateLimits and AddressLimiter make limiters of the twin that is tested."""
    for module in ("_addresses", "_joint", "_levels"):
        monkeypatch.setattr(f"headgate.limit.{module}.RateLimiter", twin.keyed.RateLimiter)


class FakeClock:
    """A clock in integer nanoseconds that moves only when told to."""

    def __init__(self, now=1_000_000_000):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += round(seconds * 1e9)


@pytest.fixture(scope="session")
def exhaustive(request):
    """Whether a test tries all that it can."""
    return request.config.option.exhaustive


@pytest.fixture
def clock():
    return FakeClock()


class TickingClock(FakeClock):
    """A clock that goes on by `step` nanoseconds whenever it is read."""

    step = 10_000_000

    def __call__(self):
        self.now += self.step
        return self.now


class CacheMaker:
    """Makes caches of one policy; with `timed`, entries end after some thirty readings of the clock."""

    def __init__(self, cls, timed):
        self.cls, self.clock = cls, TickingClock()
        self.options = {"ttl": 0.4, "tti": 0.3, "jitter": 0.5, "clock": self.clock} if timed else {}

    def __call__(self, *args, **kwargs):
        return self.cls(*args, **self.options, **kwargs)


POLICIES = (
    "FIFOCache", "LFUCache", "LRUCache", "RRCache", "S3FIFOCache", "SieveCache", "TinyLFUCache",
)


@pytest.fixture(params=POLICIES)
def policy(request, twin):
    """The cache class of each policy."""
    return getattr(twin.cache, request.param)


@pytest.fixture(params=[False, True], ids=["plain", "timed"])
def make_cache(request, policy):
    """Makes caches of each policy, without and with lifetimes."""
    return CacheMaker(policy, request.param)


@pytest.fixture(scope="session")
def shared():
    """The folder of vectors and traces that lies beside the checkout, or where HEADGATE_SHARED says."""
    if not SHARED.is_dir():
        pytest.skip(f"no vectors and traces at {SHARED.name}/ beside the checkout")
    return SHARED
