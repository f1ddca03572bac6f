"""Measures which part saturates first with many replicas, many files and many publishes.

usage: script/bench fleet NAME [--quick] [OPTIONS]; the NAME is a module of this folder.
"""

import sys
from importlib import import_module

NAMES = {
    "notify": "commits with NOTIFY against many listening connections",
    "connections": "connections of a replica and of a worker, directly and through PgBouncer",
    "wan": "a replica behind a network with delay and loss",
    "manifest": "a manifest of millions of file versions, whole and partitioned",
    "standby": "misses that ask a read replica which lags",
    "quorum": "a worker on a RabbitMQ quorum queue",
    "budget": "the cost of a replica, a write and a publish, and what saturates first",
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        asked = {"-h", "--help"} & set(sys.argv[1:])
        print(__doc__.strip(), file=sys.stdout if asked else sys.stderr)
        for name, subject in NAMES.items():
            print(f"  {name:<12} {subject}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"script/bench fleet {name}"
    return int(import_module(f"bench.fleet.{name}").main())


if __name__ == "__main__":
    sys.exit(main())
