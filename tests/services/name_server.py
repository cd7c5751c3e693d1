"""A name server on loopback, that answers for some names, is silent for others, and knows no more."""

import asyncio
import ipaddress
import struct
from contextlib import asynccontextmanager

A, AAAA = 1, 28
NAME_ERROR = 3


class NameServer(asyncio.DatagramProtocol):
    """`addresses` by name; names that end in `silent` get no answer. `asked`: the names of queries for A."""

    def __init__(self, addresses, silent):
        self.addresses, self.silent = addresses, silent
        self.asked = []

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, query, sender):
        question = query[12 : query.index(b"\0", 12) + 5]
        name, kind = name_in(question), struct.unpack("!H", question[-4:-2])[0]
        if kind == A:
            self.asked.append(name)
        if self.silent is not None and name.endswith(self.silent):
            return
        given = [ipaddress.ip_address(text).packed for text in self.addresses.get(name, ())]
        given = [packed for packed in given if len(packed) == (16 if kind == AAAA else 4)]
        flags = 0x8180 | (0 if name in self.addresses else NAME_ERROR)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(given), 0, 0)
        answers = [struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(packed)) + packed for packed in given]
        self._transport.sendto(head + question + b"".join(answers), sender)


def name_in(question):
    labels, at = [], 0
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels)


@asynccontextmanager
async def name_server(addresses=(), silent=None):
    """A running server, with `address` to ask."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(dict(addresses), silent), local_addr=("127.0.0.1", 0))
    server.address = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    try:
        yield server
    finally:
        transport.close()
