"""Every test that takes `twin` runs on both twins, or on those that HEADGATE_PURE allows."""

import gc

import pytest
from clocks import FakeClock
from hypothesis import HealthCheck, settings
from policies import POLICIES, CacheMaker
from twins import SHARED, Twin, twin_names

PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}  # a machine may be busy
settings.register_profile("plain", max_examples=30, **PATIENT)
settings.register_profile("sanitizers", max_examples=10, **PATIENT)
settings.register_profile("exhaustive", max_examples=1000, **PATIENT)
settings.load_profile("plain")


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="more examples, more steps, whole traces")


def pytest_configure(config):
    if config.option.exhaustive:
        settings.load_profile("exhaustive")


def pytest_collection_finish():
    """What tests collect is their own garbage: collections do not visit thousands of tests each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=twin_names())
def twin(request):
    return Twin(request.param)


@pytest.fixture(scope="session")
def twins():
    """All twins that are tested, for tests whose other half is expensive."""
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
    """RateLimits and AddressLimiter make limiters of the twin that is tested, and decide by it."""
    for module in ("_addresses", "_levels"):
        monkeypatch.setattr(f"headgate.limit.{module}.RateLimiter", twin.keyed.RateLimiter)
    monkeypatch.setattr("headgate.limit._levels.Levels", twin.joint.Levels)
    for name in ("allow_all", "decide_all", "peek_all", "reserve_all"):
        monkeypatch.setattr(f"headgate.limit._addresses.{name}", getattr(twin.joint, name))


@pytest.fixture(scope="session")
def exhaustive(request):
    """Whether a test tries all that it can."""
    return request.config.option.exhaustive


@pytest.fixture
def unraisable(monkeypatch):
    """The errors that are passed to sys.unraisablehook."""
    errors = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: errors.append(args.exc_value))
    return errors


@pytest.fixture
def clock():
    return FakeClock()


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
