"""What both sides need of the event loop and know nothing of each other by. Imports only the core.

backlog     bytes that were read and are not looked at yet: a share of them in each turn
departed    whether the other side has left, although there is more to read
pieces      large bodies over plain connections, read in small pieces
unsent      what could not be sent yet, joined in one piece
secured     a TLS session over a plain connection: bounded memory, handshakes in shares
unread      what a peer sent before its connection broke
"""
