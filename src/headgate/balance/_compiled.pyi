from collections.abc import Callable, Hashable, Iterable, Mapping
from types import GenericAlias, TracebackType
from typing import Any, Generic, Literal, NoReturn, Self, SupportsIndex, TypeVar, final

from typing_extensions import disjoint_base

from headgate.balance._settings import ServerRecord
from headgate.hotkeys._compiled import HotKeys
from headgate.placement._compiled import HashRing, Maglev, Rendezvous

_Server = TypeVar("_Server", bound=Hashable)

@final
class _Pick(Generic[_Server]):
    @property
    def server(self) -> _Server: ...
    def done(self, ok: object = True, *, overloaded: object = False) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

@disjoint_base
class _Members(Generic[_Server]):
    def __init__(
        self,
        servers: Mapping[_Server, float] | Iterable[_Server],
        *,
        clock: Callable[[], int] | None = None,
        seed: SupportsIndex | None = None,
        max_failures: SupportsIndex | None = 5,
        success_rate: float | None = None,
        ejection_time: float = 30,
        max_ejected: float = 0.5,
        panic_threshold: float = 0.5,
        slow_start: float = 0,
    ) -> None: ...
    def add_server(self, server: _Server, weight: float = 1) -> None: ...
    def remove_server(self, server: _Server) -> None: ...
    def drain_server(self, server: _Server, draining: bool = True) -> None: ...
    def mark_down(self, server: _Server) -> None: ...
    def mark_up(self, server: _Server) -> None: ...
    def set_weight(self, server: _Server, weight: float) -> None: ...
    def reconfigure(self, **settings: float | None) -> None: ...
    @property
    def servers(self) -> tuple[_Server, ...]: ...
    @property
    def records(self) -> list[ServerRecord[_Server]]: ...
    def __len__(self) -> int: ...
    def __contains__(self, server: object, /) -> bool: ...
    def __copy__(self) -> NoReturn: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

@disjoint_base
class _Balancer(_Members[_Server]):
    def get_server(self, key: Any = None, *, exclude: Iterable[_Server] = ()) -> _Server: ...
    def pick(self, key: Any = None, *, exclude: Iterable[_Server] = ()) -> _Pick[_Server]: ...

@disjoint_base
class RoundRobin(_Balancer[_Server]): ...

@disjoint_base
class WeightedRoundRobin(_Balancer[_Server]): ...

@disjoint_base
class RandomChoice(_Balancer[_Server]): ...

@disjoint_base
class LeastLoaded(_Balancer[_Server]): ...

class PowerOfTwo(_Balancer[_Server]): ...
class PeakEWMA(PowerOfTwo[_Server]): ...

@disjoint_base
class _Hashed(_Balancer[_Server]): ...

@disjoint_base
class KeyHash(_Hashed[_Server]):
    def __init__(
        self,
        servers: Mapping[_Server, float] | Iterable[_Server],
        *,
        placement: Callable[[dict[_Server, float]], HashRing[_Server] | Maglev[_Server] | Rendezvous[_Server]]
        | None = None,
        hotkeys: HotKeys[Any] | None = None,
        hot_replicas: SupportsIndex = 2,
        hot_share: float = 0.01,
        clock: Callable[[], int] | None = None,
        seed: SupportsIndex | None = None,
        max_failures: SupportsIndex | None = 5,
        success_rate: float | None = None,
        ejection_time: float = 30,
        max_ejected: float = 0.5,
        panic_threshold: float = 0.5,
        slow_start: float = 0,
    ) -> None: ...
    @property
    def hotkeys(self) -> HotKeys[Any] | None: ...

@disjoint_base
class AddressHash(_Hashed[_Server]):
    def __init__(
        self,
        servers: Mapping[_Server, float] | Iterable[_Server],
        *,
        scheme: Literal["headgate", "nginx"] = "headgate",
        clock: Callable[[], int] | None = None,
        seed: SupportsIndex | None = None,
        max_failures: SupportsIndex | None = 5,
        success_rate: float | None = None,
        ejection_time: float = 30,
        max_ejected: float = 0.5,
        panic_threshold: float = 0.5,
        slow_start: float = 0,
    ) -> None: ...
