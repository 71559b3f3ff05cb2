"""What is true now, for people: an HTTP API and a live page over the store alone."""
