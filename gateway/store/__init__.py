"""The buffer: packs are kept here, in RAM, in a journal and in a SQLite file, until a broker has acknowledged them."""
