# SPDX-License-Identifier: MIT OR Apache-2.0
# A client that speaks QUIC, and sends the bytes of HTTP/3 that it is given. Its argument is a port of 127.0.0.1. It
# reads one command per line on stdin and runs them in order. It prints `ok` when the connection is established,
# and after each command. With `early` after the port it first makes another connection, which leaves a session
# ticket, and prints the first `ok` before the handshake (0-RTT). With `narrow` it never takes more than 16 KiB of a
# response:
#
# send ID BYTES       sends bytes on a stream, given as hex digits
# last ID BYTES       sends them, and ends the stream
# reset ID            resets a stream
# some ID             waits for bytes of a stream
# end ID              waits for the end of a stream
# early               fails unless the server accepted the bytes that came before the handshake
# deaf ID BYTES MS    as last, and then neither reads nor acknowledges anything for MS milliseconds
import asyncio
import collections
import ssl
import sys
import time

from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived, StreamReset


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.some = collections.defaultdict(asyncio.Event)
        self.end = collections.defaultdict(asyncio.Event)

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.some[event.stream_id].set()
            if event.end_stream:
                self.end[event.stream_id].set()
        elif isinstance(event, StreamReset):
            self.end[event.stream_id].set()

    async def do(self, command, stream=0, content="", ms=0):
        if command == "early":
            assert self._quic.tls.early_data_accepted
            return
        stream = int(stream)
        if command == "some":
            await self.some[stream].wait()
        elif command == "end":
            await self.end[stream].wait()
        elif command == "reset":
            self._quic.reset_stream(stream, 0)
            self._quic.stop_stream(stream, 0)
            self.transmit()
        else:
            self._quic.send_stream_data(
                stream, bytes.fromhex(content), command != "send"
            )
            self.transmit()
            time.sleep(int(ms) / 1000)


async def main():
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        server_name="test",
        verify_mode=ssl.CERT_NONE,
        max_data=1 << 30,
        max_stream_data=1 << 14,
    )
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    is_early = sys.argv[2:] == ["early"]
    is_narrow = sys.argv[2:] == ["narrow"]
    if is_early:
        ticket = asyncio.get_running_loop().create_future()
        async with connect(
            "127.0.0.1",
            int(sys.argv[1]),
            configuration=configuration,
            session_ticket_handler=lambda t: ticket.done() or ticket.set_result(t),
        ):
            configuration.session_ticket = await ticket
    async with connect(
        "127.0.0.1",
        int(sys.argv[1]),
        configuration=configuration,
        create_protocol=Client,
        wait_connected=not is_early,
    ) as client:
        if is_narrow:
            client._quic._write_stream_limits = lambda builder, space, stream: None
        print("ok", flush=True)
        while line := await commands.readline():
            await client.do(*line.decode().split())
            print("ok", flush=True)


asyncio.run(main())
