"""Applications that the realm server is compared with. Each runs in a process of its own."""
