"""What is known of one server that announces changes, from the messages of one connection."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.near._compiled import NearEpoch, NearTable


class NearSource:
    """One server whose announcements keep the entries of a `NearTable` fresh.

    The reader of the connection calls the methods in the order of its messages: `connected` once the server
    announces, `heartbeat_sent` before a heartbeat is written, `heartbeat_answered` when its reply was read,
    `invalidated` for each announcement, `lost` when the connection ends or is no longer trusted.

    A server may write the announcement of a change after the reply to a heartbeat that came in the same cycle
    of its event loop. So the next heartbeat is sent only when the last was answered, and its own reply proves
    that all changes up to the sending of the last one have been announced: entries are fresh until
    `max_stale` seconds after that.

    >>> from headgate.near import NearTable
    >>> now = [0]
    >>> table = NearTable(prefixes=["user:"], max_stale=2, clock=lambda: now[0])
    >>> source = NearSource(table)
    >>> source.connected("run id")
    >>> for _ in range(2):
    ...     source.heartbeat_sent()
    ...     source.heartbeat_answered()
    >>> table.is_fresh(source.epoch)
    True
    >>> now[0] = 2 * 10**9
    >>> table.is_fresh(source.epoch)
    False
    """

    __slots__ = ("_last", "_sent", "_table", "epoch")

    def __init__(self, table: NearTable) -> None:
        self._table = table
        self.epoch: NearEpoch | None = None
        self._sent: int | None = None
        self._last: int | None = None

    def connected(self, run_id: str) -> None:
        """Begin an epoch, in which the server of that run announces each change.

        Raises RuntimeError if there is an epoch already.
        """
        if self.epoch is not None:
            raise RuntimeError("connected() must follow lost()")
        self._sent = self._last = None
        self.epoch = self._table.open_epoch(run_id)

    def heartbeat_sent(self) -> None:
        """Note the time at which a heartbeat is about to be sent.

        Raises RuntimeError if there is no epoch, or if the last heartbeat has not been answered.
        """
        if self.epoch is None or self._sent is not None:
            raise RuntimeError("heartbeat_sent() must follow connected() or heartbeat_answered()")
        self._sent = self._table.now()

    def heartbeat_answered(self) -> None:
        """Keep entries fresh until `max_stale` after the heartbeat before this one was sent.

        Raises RuntimeError if no heartbeat was sent.
        """
        if self.epoch is None or self._sent is None:
            raise RuntimeError("heartbeat_answered() must follow heartbeat_sent()")
        if self._last is not None:
            self.epoch.extend(self._last + self._table.max_stale_ns)
        self._last, self._sent = self._sent, None

    def invalidated(self, keys: Iterable[str | bytes] | None) -> None:
        """Drop these keys, and what is being fetched of them; all of the server's for None."""
        if keys is not None:
            self._table.invalidate(keys)
        elif self.epoch is not None:
            old = self.epoch
            self._table.close_epoch(old)
            self.epoch = self._table.open_epoch(old.run_id)
            self.epoch.extend(old.fresh_until)

    def lost(self) -> None:
        """End the epoch, and with it all entries of the server."""
        if self.epoch is not None:
            self._table.close_epoch(self.epoch)
        self.epoch = None
