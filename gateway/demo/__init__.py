"""`gateway demo`: sample instances, the gateway in front of them, and what to try.

run        the whole: starts everything, says what to try, leaves nothing behind
children   the child processes
sample     the program of a sample instance
consul     a Consul of its own, for --consul
guard      runs another program for as long as its parent lives

The one rule: whatever ends the demo, even a kill -9, ends its children too.
"""

from gateway.demo.children import DemoError
from gateway.demo.run import demo_stops, run_demo

__all__ = ["DemoError", "demo_stops", "run_demo"]
