"""What a command says: its log on stderr, its result on stdout."""
