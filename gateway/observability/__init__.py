"""What the gateway tells while it runs: events, and one line for each request.

output    where lines go: a stream or a file, written by a thread of its own
logging   structlog and the stdlib's logging, rendered alike
access    the line of a request
events    what the engine's observer makes of what it hears
"""
