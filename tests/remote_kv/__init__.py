"""A small key-value server over TCP and a store on it: a store that is not on this machine."""
