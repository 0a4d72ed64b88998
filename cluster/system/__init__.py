"""Small wrappers of the operating system: files, threads, signals and clocks."""
