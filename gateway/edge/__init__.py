"""The edge: where clients come in.

peers    who is at the other end, and what is believed of it
asgi     the ASGI face: one exchange for each request, under any ASGI server
server   our own process: uvicorn, signals, drain
"""
