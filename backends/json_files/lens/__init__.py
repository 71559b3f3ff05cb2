"""Maps a legacy document to records and back, keeping what it does not know."""
