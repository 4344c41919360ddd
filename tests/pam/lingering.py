# SPDX-License-Identifier: Apache-2.0
"""What blocks whoever closes it last, as a piece of a hostile program."""

# A TCP connection that is full, for its peer never reads; SO_LINGER makes its end wait.
FULL_CONNECTION = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
client.setblocking(False)
try:
    while True:
        client.send(bytes(65536))
except BlockingIOError:
    pass
"""
