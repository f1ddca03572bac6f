"""Measures what saturates first in a fleet with many replicas, many files and many publishes.

usage: script/bench fleet NAME [--quick] [OPTIONS], with one of the following names:
"""

import sys
from importlib import import_module

NAMES = {
    "notify": "commits that send notifications, while many connections listen",
    "connections": "database connections of a replica and a worker, with and without PgBouncer",
    "wan": "a replica on a network that delays and loses packets",
    "manifest": "reads and writes of millions of file versions, in one table and in partitions",
    "standby": "wrong bytes from a standby of Postgres that lags",
    "quorum": "a worker on a quorum queue of RabbitMQ, compared with a classic queue",
    "budget": "the cost of a replica, a write and a publish, and the cost of whole fleets",
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
