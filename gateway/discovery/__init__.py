"""Everything between a registry and the catalog.

catalog          service -> Snapshot and its freshness; one writer for each service
source           what a watcher asks: one question, one answer, or a named trouble
watcher          the task that keeps one service fresh: a dumb loop around core.watch, core.hold
link             whether the registry as a whole can be reached; one probe for the process
bodies           bodies of answers: counted, bounded, never decompressed
entries          a JSON list, read item by item
consul           the one module that knows python-consul2, over httpx
named_transport  httpx with addresses in place of names
consul_options   where Consul is, how it is asked
consul_answers   Consul's JSON -> Instances
consul_faults    what every other outcome of a question means
consul_sight     whether an empty answer is true, or only what our token may see
consul_registry  Consul as a Registry: one watcher for each followed service
selection        the catalog -> what each service's Fleet follows
static           instances from the configuration as a Registry
snapshot_file    the file of Snapshots, read as carefully as an answer of a registry
disk             the last Snapshots on disk, for a start while the registry is away
"""
