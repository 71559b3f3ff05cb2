"""The PostgreSQL engine, its errors and its archives."""
