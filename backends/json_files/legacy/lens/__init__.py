"""Map a legacy document to records and back, keeping its unknown fields."""
