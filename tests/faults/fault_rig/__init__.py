"""What the fault tests are made of: a daemon in a process, servers and clients that do as told, load."""
